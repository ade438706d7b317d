"""The gateway's settings, read once from the environment."""

import json
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 1024 * 1024

IPNetwork: TypeAlias = IPv4Network | IPv6Network

ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s]+")


def read_aliases(value: object) -> object:
    """Return the aliases of a JSON object, or of `alias=model` pairs separated by commas.

    Raises:
        ValueError: The text is neither, or has an alias twice.
    """
    if not isinstance(value, str):
        return value
    try:
        if value.lstrip().startswith("{"):
            pairs = json.loads(value, object_pairs_hook=list)
        else:
            entries = [entry.split("=") for entry in value.split(",") if entry.strip()]
            pairs = [(alias.strip(), model.strip()) for alias, model in entries]
    except ValueError:
        raise ValueError("must be a JSON object, or alias=model pairs separated by commas") from None
    aliases = dict(pairs)
    if len(aliases) < len(pairs):
        raise ValueError("an alias is given twice")
    return aliases


def check_aliases(aliases: Mapping[str, str]) -> Mapping[str, str]:
    """Return the aliases if each has a name and a model.

    Raises:
        ValueError: A name is empty, or an alias stands for another alias.
    """
    if not all(alias and model for alias, model in aliases.items()):
        raise ValueError("an alias and its model must not be empty")
    for alias, model in aliases.items():
        if model in aliases:
            raise ValueError(f"'{alias}' must stand for a model, and '{model}' is an alias")
    return aliases


def read_origins(value: object) -> object:
    """Return the origins in a text that separates them by commas.

    Raises:
        ValueError: One is not an origin: a browser would send no such thing, and the setting would have no effect.
    """
    if not isinstance(value, str):
        return value
    origins = tuple(value.lower().replace(",", " ").split())
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValueError(f"'{origin}' must be *, or scheme://host[:port] without a path")
    return origins


def read_networks(value: object) -> object:
    """Return the addresses and networks in a text that separates them by commas.

    Raises:
        ValueError: One is neither.
    """
    if not isinstance(value, str):
        return value
    networks = []
    for network in value.replace(",", " ").split():
        try:
            networks.append(ip_network(network))
        except ValueError:
            raise ValueError(f"'{network}' must be an IP address, or a network such as 10.0.0.0/8") from None
    return tuple(networks)


ModelAliases: TypeAlias = Annotated[
    Mapping[str, str], NoDecode, BeforeValidator(read_aliases), AfterValidator(check_aliases)
]
Origins: TypeAlias = Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_origins)]
Networks: TypeAlias = Annotated[tuple[IPNetwork, ...], NoDecode, BeforeValidator(read_networks)]


class Settings(BaseSettings):
    """Each setting is an environment variable of its name with the prefix `GATEWAY_`.

    `HOST`, `TRITON_URL` and `TRITON_METRICS_URL`, which other processes share, have no prefix.
    """

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", frozen=True, populate_by_name=True, extra="ignore")

    host: str = Field(default="127.0.0.1", validation_alias="HOST", description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    workers: int = Field(default=1, ge=1, le=256, description="Worker processes.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Lowest level logged.")
    grace_s: float = Field(
        default=30.0, gt=0, description="Seconds that requests in flight may take to finish after SIGTERM."
    )

    drain_s: float = Field(
        default=1.0,
        ge=0,
        description="Seconds after SIGTERM for which requests are accepted while readiness is already false: more than "
        "the interval at which a load balancer asks.",
    )

    triton_url: str = Field(
        default="127.0.0.1:8001",
        validation_alias="TRITON_URL",
        description="Triton's gRPC `host:port`, or `unix:` and the path of its socket. Several, separated by commas, "
        "and every address of a name, are replicas: requests go to the one with the least to do.",
    )
    triton_metrics_url: str = Field(
        default="http://127.0.0.1:8002/metrics",
        validation_alias="TRITON_METRICS_URL",
        description="Triton's metrics page, proxied at `/v1/metrics/triton`.",
    )
    model_aliases: ModelAliases = Field(
        default={},
        description="Further names of served models, for clients with a fixed model id: "
        "`text-embedding-3-small=sentence-transformers/all-MiniLM-L6-v2`, separated by commas, or a JSON object. "
        "A served model's own name wins over an alias.",
    )
    catalogue_ttl_s: float = Field(
        default=2.0, ge=0, description="Seconds after which the list of models is read again."
    )
    ready_ttl_s: float = Field(
        default=1.0, ge=0, description="Seconds for which the result of a readiness probe is reused."
    )
    canary_timeout_s: float = Field(default=3.0, gt=0, description="Seconds that a readiness probe may take.")

    max_connections: int = Field(
        default=8192,
        ge=1,
        description="Limit of open connections, per worker; fewer if the process may have fewer descriptors. Beyond "
        "it, the oldest connection that serves no request is closed.",
    )
    max_connections_per_address: int = Field(
        default=1024, ge=1, description="Limit of open connections from one address, per worker; beyond it, 503."
    )
    max_header_bytes: int = Field(
        default=32 * 1024, ge=1024, description="Limit of a request's line and headers, in bytes; beyond it, 431."
    )
    header_timeout_s: float = Field(default=15.0, gt=0, description="Seconds for a request's headers to arrive.")
    receive_timeout_s: float = Field(
        default=20.0, gt=0, description="Seconds in which a request's body must progress, by 1 KiB a second; else 408."
    )
    send_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds in which a client must read on, by 32 KiB a second; after that, the connection is closed.",
    )
    idle_timeout_s: float = Field(
        default=75.0,
        gt=0,
        description="Seconds that a connection stays open between requests. Longer than clients and proxies keep "
        "theirs: they should close first, so that no request meets a closing one.",
    )
    max_buffered_bytes: int = Field(
        default=256 * MEBIBYTE,
        ge=1,
        description="Limit of all request bodies being received or served, per worker, in bytes, not counting the "
        "first 64 KiB of each; one address may hold half. Beyond it, 503.",
    )
    max_unsent_bytes: int = Field(
        default=1024 * MEBIBYTE,
        ge=1,
        description="Limit of all responses that clients have yet to read, per worker, in bytes. Beyond it, the "
        "connection of the oldest is closed.",
    )
    request_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="Seconds from a request's arrival to its response.",
    )
    max_body_bytes: int = Field(default=64 * MEBIBYTE, ge=1, description="Limit of a request's body, in bytes.")
    max_items: int = Field(default=2048, ge=1, description="Limit of items in one request.")
    max_images: int = Field(default=256, ge=0, description="Limit of images in one request, pages of PDFs included.")
    max_pdf_pages: int = Field(
        default=128, ge=0, description="Limit of pages in one PDF; 0: no PDFs. A page counts as an image."
    )
    max_image_bytes: int = Field(
        default=25 * MEBIBYTE,
        ge=1,
        description="Limit of one encoded image (PNG, JPEG, ...) or PDF, in bytes. A model may have a lower limit of "
        "its own, set when it is exported.",
    )
    max_image_pixels: int = Field(
        default=8192 * 16384,
        ge=1,
        description="Limit of one image, in pixels, which its header tells. No model takes more than 8192 by 16384.",
    )
    max_request_pixels: int = Field(
        default=4 * 8192 * 16384,
        ge=1,
        description="Limit of all images of one request together, in pixels; pages of PDFs do not count.",
    )

    truncate: Literal["NONE", "END", "START"] = Field(
        default="NONE",
        description="Default for requests without `truncate`, which OpenAI clients cannot send: a text above the "
        "model's limit is refused (NONE), or cut at its end (END) or start (START). The response reports what was cut.",
    )
    token_ids: Literal["checked", "any", "refuse", "gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"] = (
        Field(
            default="checked",
            description="Input given as token ids: ids of another model's tokenizer are refused (checked), none are "
            "checked (any), or all are refused (refuse). With the name of a tiktoken encoding, ids are taken for "
            "OpenAI's and decoded to text, so that LangChain works at its defaults; this needs `tessera[tiktoken]`.",
        )
    )
    tiktoken_file: Path | None = Field(
        default=None,
        description="The `.tiktoken` file of that encoding. Without it, tiktoken uses its own cache, or downloads it.",
    )

    image_urls: Literal["off", "https", "on"] = Field(
        default="https",
        description="URLs of images and PDFs that are fetched: none (off), https only, or http and https (on).",
    )
    image_url_hosts: str = Field(
        default="",
        description="Hosts that image URLs may name, separated by commas; `.example.com` stands for all names below. "
        "Empty: every public host. Private addresses are never connected to.",
    )
    image_url_connect_timeout_s: float = Field(
        default=2.0,
        gt=0,
        description="Seconds to look up and connect to an image URL's host. A failed fetch is reported no earlier than "
        "this, so that its timing reveals nothing.",
    )
    image_url_timeout_s: float = Field(default=15.0, gt=0, description="Seconds for one response to an image URL.")
    max_fetched_bytes: int = Field(
        default=128 * MEBIBYTE, ge=1, description="Limit of all images fetched for one request, in bytes."
    )
    image_url_concurrency: int = Field(default=64, ge=1, description="Image URLs fetched at a time.")
    image_url_host_concurrency: int = Field(default=8, ge=1, description="Image URLs fetched from one host at a time.")
    image_url_queue: int = Field(default=1024, ge=1, description="Image URLs fetched or waiting; beyond that, 503.")

    max_text_tokens_in_flight: int = Field(
        default=131_072,
        ge=1,
        description="Most estimated tokens of texts in flight, per model and worker. How many are in flight adapts to "
        "the engine's speed.",
    )
    max_image_tokens_in_flight: int = Field(
        default=65_536,
        ge=1,
        description="The same for requests with images, and again for those with images that take long to decode. "
        "Decoding 8192 pixels counts as a token.",
    )
    engine_latency_target_s: float = Field(
        default=0.3,
        gt=0,
        description="Seconds that an inference request should take while there are many. What would take longer waits "
        "in the gateway, where the requests of all clients take turns.",
    )
    max_queue_s: float = Field(
        default=20.0,
        gt=0,
        description="Longest expected wait, in seconds, of a request that is not refused with 503. Small requests wait "
        "less: 5 s, and 40 times as long as they take.",
    )
    microbatch_items: int = Field(
        default=8,
        ge=1,
        description="Most texts in an inference request that small client requests share; 1: none do.",
    )
    microbatch_wait_ms: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Milliseconds that a small request waits for others to share its inference request, unless that "
        "fills up before; 0: only requests that arrive together share one.",
    )
    chunk_items: int = Field(default=32, ge=1, description="Most items in one inference request.")
    chunk_tokens: int = Field(
        default=8192,
        ge=1,
        description="Most estimated tokens in one inference request, if it has several items.",
    )
    chunk_concurrency: int = Field(default=8, ge=1, description="Inference requests in flight for one client request.")

    api_keys: str = Field(
        default="",
        repr=False,
        description='API keys as a JSON object: `{"alice": {"sha256": "...", "requests_per_minute": 60, '
        '"tokens_per_minute": 100000, "token_quota": 1000000}}`, each limit optional. With no key here or in the '
        "file, no key is needed.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="TOML file with a table `[keys.NAME]` of these fields for each API key."
    )
    rate_store: str = Field(
        default="memory://",
        repr=False,
        description="Where requests and tokens of keys are counted: in each worker process (`memory://`), or across "
        "all of them (`redis://host:port/db`).",
    )

    wrong_keys_per_minute: int = Field(
        default=20,
        ge=1,
        description="Wrong API keys per minute from one address (IPv6: one /64 network); beyond that, 429 instead of "
        "401. Valid keys are not affected.",
    )
    protect_metrics: Literal["none", "triton", "all"] = Field(
        default="none",
        description="Which metrics need an API key, if there are any keys: none, those of Triton at "
        "`/v1/metrics/triton`, or the gateway's as well (all).",
    )
    trusted_proxies: Networks = Field(
        default=(),
        description="Reverse proxies in front of the gateway, as addresses or networks separated by commas. Of their "
        "requests, the client's address is the last one in X-Forwarded-For that is not theirs.",
    )

    cors_origins: Origins = Field(
        default=(),
        description="Origins whose web pages may call the API from a browser, separated by commas, or `*` for all: "
        "`https://app.example.com`. Empty: none.",
    )
    image_queries: bool = Field(
        default=False,
        description="Whether images are accepted with `input_type` `query`, outside the embedding NIM's API, which "
        "refuses them. The vector is the same as that of a passage.",
    )
    default_model: str = Field(
        default="",
        description="Model of embeddings requests that name none, as those of Text Embeddings Inference; empty: the "
        "only one that embeds. Rankings that name none get the only one that ranks.",
    )
    provider_name: str = Field(
        default="tessera", description="Name of this server in OpenRouter's provider preferences."
    )
    int8_scale: Literal["fixed", "absmax"] = Field(
        default="fixed",
        description="Scale of int8 and uint8: 127 (fixed), or 127 over the vector's largest component (absmax).",
    )
