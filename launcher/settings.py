"""Settings of the launcher: ports, addresses and what to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PROJECT = Path(__file__).resolve().parent.parent
TEXT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
STAND_IN = "tiny/llama-nemotron-embed-vl"
"""The flagship's architecture, tiny and with random weights, to try the image path without downloading gigabytes."""


class LauncherSettings(BaseSettings):
    """Settings read from environment variables of the same names in capitals; empty ones count as unset."""

    model_config = SettingsConfigDict(frozen=True, env_ignore_empty=True)

    host: str = Field("127.0.0.1", description="Address that the gateway listens on.")
    gateway_port: int = Field(8000, ge=1, le=65535, description="Port of the gateway's HTTP API.")
    triton_grpc_port: int = Field(8001, ge=1, le=65535, description="Port of Triton's gRPC API, on loopback.")
    triton_socket_dir: Path | None = Field(
        None,
        description="Folder for a Unix socket with Triton's gRPC API, which then has no port and which only this user "
        "can reach. Created if absent; its socket is `grpc:` and `TRITON_GRPC_PORT`.",
    )
    triton_metrics_port: int = Field(8002, ge=1, le=65535, description="Port of Triton's metrics, on loopback.")
    repository: Path | None = Field(
        None, description="Model repository to serve as it is. If unset: `build/model_repository`, filled by exports."
    )
    model: str | None = Field(
        None,
        description="Hub id or folder to export and serve instead of the stand-in, unless `repository` is set.",
    )
    precision: Literal["fp32", "fp16", "int8"] | None = Field(
        None,
        description="Precision in which `model` is exported, again if it was exported in another. If unset: `fp32`, or "
        "as it is.",
    )
    revision: str | None = Field(
        None,
        description="Commit, tag or branch of `model` on the hub, which is exported again if it was another. If unset: "
        "the pinned one or `main`, or as it is.",
    )
    build_dir: Path = Field(PROJECT / "build", description="Folder for exports, Triton's backends and logs.")
    native_backend: Path | None = Field(
        None,
        description="Folder with Triton's own ONNX Runtime backend, `libtriton_onnxruntime.so`, to use instead of the "
        "embedded one.",
    )
    start_timeout_s: float = Field(
        300.0, gt=0, description="Time for Triton and the gateway to become ready, in seconds."
    )
    log_max_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, description="Size above which a log of Triton or the gateway is rotated, in bytes."
    )
    log_backups: int = Field(3, ge=0, le=100, description="Rotated files kept of each log.")
    grace_s: float = Field(35.0, gt=0, description="Time for requests in flight to complete at shutdown, in seconds.")

    @field_validator("repository", "build_dir", "native_backend", "triton_socket_dir")
    @classmethod
    def resolve(cls, path: Path | None) -> Path | None:
        """Make paths absolute: child processes may run in other folders."""
        return path and path.expanduser().resolve()

    @property
    def served_repository(self) -> Path:
        """Repository that Triton reads."""
        return self.repository or self.build_dir / "model_repository"

    @property
    def triton_socket(self) -> Path | None:
        """Unix socket of Triton's gRPC API; None if it has a port."""
        return self.triton_socket_dir and self.triton_socket_dir / f"grpc:{self.triton_grpc_port}"

    @property
    def triton_address(self) -> str:
        """Address of Triton's gRPC API as gRPC's clients take it."""
        return f"unix:{self.triton_socket}" if self.triton_socket else f"127.0.0.1:{self.triton_grpc_port}"

    @property
    def required_models(self) -> tuple[str, ...]:
        """Models to export if the repository lacks them."""
        return () if self.repository else (TEXT_MODEL, self.model or STAND_IN)
