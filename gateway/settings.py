"""Everything about the gateway that an operator can set, read once from the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MEBIBYTE = 1024 * 1024


class Settings(BaseSettings):
    """The gateway's settings; each is an environment variable of its name with `GATEWAY_` before it.

    `HOST`, `TRITON_URL` and `TRITON_METRICS_URL`, which are not the gateway's own, go without the prefix.
    """

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True, populate_by_name=True, extra="ignore")

    host: str = Field(default="127.0.0.1", validation_alias="HOST", description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes that serve the port.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level logged."
    )
    grace_s: float = Field(
        default=30.0, gt=0, description="Seconds that accepted requests may take to finish after SIGTERM."
    )

    triton_url: str = Field(
        default="127.0.0.1:8001", validation_alias="TRITON_URL", description="Triton's gRPC host:port."
    )
    triton_metrics_url: str = Field(
        default="http://127.0.0.1:8002/metrics",
        validation_alias="TRITON_METRICS_URL",
        description="Triton's metrics page, shown at `/v1/metrics/triton`.",
    )
    catalogue_ttl_s: float = Field(
        default=10.0, ge=0, description="Seconds after which the list of models is asked for anew, in the background."
    )
    ready_ttl_s: float = Field(default=1.0, ge=0, description="Seconds for which an answer about readiness is reused.")
    canary_timeout_s: float = Field(default=3.0, gt=0, description="Seconds a readiness inference may take.")

    request_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds from a request's arrival to its answer.",
    )
    max_body_bytes: int = Field(default=64 * MEBIBYTE, ge=1, description="Bytes of a request's body.")
    max_items: int = Field(default=2048, ge=1, description="Items in one request's input.")
    max_images: int = Field(default=256, ge=0, description="Images in one request's input.")
    max_image_bytes: int = Field(
        default=25 * MEBIBYTE, ge=1, description="Bytes of one encoded image (PNG, JPEG, ...)."
    )

    image_urls: Literal["off", "https", "on"] = Field(
        default="https", description="Image URLs that are fetched: none (off), https only, or http and https (on)."
    )
    image_url_hosts: str = Field(
        default="",
        description="Hosts that image URLs may name, separated by commas; `.example.com` stands for all names below. "
        "Empty: every public host. An address that is not public is never connected to.",
    )
    image_url_connect_timeout_s: float = Field(
        default=2.0,
        gt=0,
        description="Seconds to look up and connect to an image URL's host; a URL that fails is told after this time.",
    )
    image_url_timeout_s: float = Field(default=15.0, gt=0, description="Seconds for one answer to an image URL.")
    max_fetched_bytes: int = Field(
        default=128 * MEBIBYTE, ge=1, description="Bytes of all images fetched by URL for one request."
    )
    image_url_concurrency: int = Field(default=64, ge=1, description="Image URLs fetched at once.")
    image_url_host_concurrency: int = Field(default=8, ge=1, description="Image URLs fetched from one host at once.")
    image_url_queue: int = Field(default=1024, ge=1, description="Image URLs being fetched and waiting for it.")

    max_text_tokens_inside: int = Field(
        default=131_072, ge=1, description="Estimated tokens of text requests that are worked on at a time, per worker."
    )
    max_text_tokens_waiting: int = Field(
        default=524_288, ge=0, description="Estimated tokens of text requests that may wait, per worker; then 503."
    )
    max_image_tokens_inside: int = Field(
        default=65_536, ge=1, description="The same for requests with images, which have a queue of their own."
    )
    max_image_tokens_waiting: int = Field(
        default=262_144, ge=0, description="The same for requests with images, which have a queue of their own."
    )
    join_items: int = Field(
        default=8,
        ge=1,
        description="Texts that one inference request carries at most when small requests that come together share it; "
        "1: none do.",
    )
    join_wait_ms: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Milliseconds that a small request waits for others to share its inference request, unless that is "
        "full before; 0: only those of the same moment do.",
    )
    chunk_items: int = Field(default=32, ge=1, description="Items that one inference request carries at most.")
    chunk_tokens: int = Field(
        default=8192,
        ge=1,
        description="Estimated tokens that one inference request carries at most, if it has several items.",
    )
    chunk_concurrency: int = Field(default=8, ge=1, description="Inference requests in flight for one client request.")

    api_keys: str = Field(
        default="",
        repr=False,
        description="API keys, separated by semicolons: `name sha256 [requests_per_minute=N] [tokens_per_minute=N] "
        "[token_quota=N]`. With no key here or in the file, everybody may ask.",
    )
    api_keys_file: Path | None = Field(default=None, description="File with one such API key on each line.")
    rate_store: str = Field(
        default="memory://",
        repr=False,
        description="Where requests and tokens of keys are counted: in each worker process (memory://), or together "
        "(redis://host:port/db).",
    )

    provider_name: str = Field(
        default="tessera", description="Name of this server in the provider rules of OpenRouter's dialect."
    )
    int8_scale: Literal["fixed", "absmax"] = Field(
        default="fixed",
        description="Factor of int8 and uint8: 127 (fixed), or 127 over the vector's largest component (absmax).",
    )
