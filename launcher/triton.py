"""The embedded Triton: the server from the `nvidia-pytriton` wheel, with our backends beside its Python backend."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import sysconfig
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from launcher.errors import LauncherError, UnwritableFolderError
from launcher.processes import child_environment
from launcher.settings import PROJECT

SHARED_MEMORY_BYTES = 16 * 1024 * 1024
"""Initial size of each Python stub's shared memory. It grows on demand, which takes time during requests."""

RESTRICTED_PROTOCOLS = "shared-memory,trace,logging:Off=never"
"""Parts of the gRPC API that nobody here uses. They need a header with a capital in its name, which HTTP/2 refuses."""

POLL_INTERVAL_S = 1
"""How often Triton looks for models that have appeared, changed or disappeared, in seconds."""

NATIVE_LIBRARY = "libtriton_onnxruntime.so"
"""The file that Triton looks for before `model.py`."""

MAX_SOCKET_PATH_BYTES = 107  # unix(7)

MEMORY_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""Lets glibc return the memory of every large request to the system: it would learn to keep up to 64 MB of each."""


def find_wheel() -> Path:
    """Return the folder of the `pytriton` package without importing it: only its files are used.

    Raises:
        LauncherError: The package is not installed.
    """
    spec = find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise LauncherError("the embedded Triton is not installed: run make install, or pip install '.[serve]'")
    return Path(spec.submodule_search_locations[0])


def assemble_backends(target: Path, native_backend: Path | None = None) -> Path:
    """Create Triton's backend directory: its Python backend with the stub for this interpreter, and our backends.

    Files are copied because Triton refuses symbolic links that leave the directory.

    Args:
        target: Folder to create; an existing one is replaced.
        native_backend: Folder with Triton's own ONNX Runtime backend, to use instead of ours.

    Raises:
        LauncherError: Triton has no stub for this Python version, the native backend is not in its folder, or the
            target cannot be written.
    """
    if native_backend and not (native_backend / NATIVE_LIBRARY).is_file():
        raise LauncherError(f"{native_backend} does not contain {NATIVE_LIBRARY}: correct or unset NATIVE_BACKEND")
    server = find_wheel() / "tritonserver"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
    if not stub.exists():
        raise LauncherError(f"the embedded Triton has no stub for Python {python}: use 3.11 or 3.12")
    shutil.rmtree(target, ignore_errors=True)
    sources = {
        "python": server / "backends" / "python",
        "onnxruntime": native_backend or PROJECT / "backends" / "onnxruntime",
        "preprocess": PROJECT / "backends" / "preprocess",
    }
    try:
        for name, source in sources.items():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(stub, target / "python")
    except OSError as error:
        raise UnwritableFolderError(target.parent, error) from error
    return target


def server_command(
    repository: Path, backends: Path, grpc_port: int, metrics_port: int, grpc_address: str = "127.0.0.1"
) -> list[str]:
    """Return the command that serves a repository and follows it, with gRPC and metrics on loopback and no HTTP.

    Args:
        repository: Model repository, in which models appear and disappear as a whole.
        backends: Triton's backend directory.
        grpc_port: Port of the gRPC API.
        metrics_port: Port of the metrics.
        grpc_address: What comes before the port in the gRPC address; `unix:` and a path for a Unix socket.
    """
    binary = find_wheel() / "tritonserver" / "bin" / "tritonserver"
    binary.chmod(0o755)  # pip may drop the executable bit
    return [
        str(binary),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--disable-auto-complete-config",
        "--model-control-mode=poll",  # while it polls, nobody can let it load models through its API
        f"--repository-poll-secs={POLL_INTERVAL_S}",
        "--exit-on-error=false",  # a model that cannot be loaded does not keep the others from being served
        "--strict-readiness=false",
        "--allow-http=false",
        f"--grpc-address={grpc_address}",
        f"--grpc-port={grpc_port}",
        f"--grpc-restricted-protocol={RESTRICTED_PROTOCOLS}",
        "--grpc-infer-allocation-pool-size=1",  # Triton keeps the content of that many requests
        "--grpc-http2-min-recv-ping-interval-without-data=10000",  # the gateway pings during long inferences
        "--metrics-address=127.0.0.1",
        f"--metrics-port={metrics_port}",
        f"--backend-config=python,shm-default-byte-size={SHARED_MEMORY_BYTES}",
    ]


def engine_flag() -> str:
    """Return the flag by which Triton says that ONNX Runtime is this environment's, and not that of its release."""
    return f"--id=onnxruntime-{version('onnxruntime')}"


def prepare_socket(path: Path) -> None:
    """Create the folder of Triton's Unix socket, which only this user may enter, and check that the socket is free.

    Raises:
        LauncherError: The folder is another user's or open to others, the path is too long, or a server listens there.
    """
    folder = path.parent
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise LauncherError(f"{path} is too long for a socket: choose a shorter TRITON_SOCKET_DIR")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise LauncherError(f"{folder} cannot be used ({error.strerror}): choose another TRITON_SOCKET_DIR") from None
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise LauncherError(
            f"{folder} is open to other users: run chmod 700 on it, or choose another TRITON_SOCKET_DIR"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(os.fsencode(path)) == 0:
            raise LauncherError(f"{path} is in use by another server: stop it, or choose another TRITON_SOCKET_DIR")


def server_environment() -> dict[str, str]:
    """Return Triton's environment: its own libraries, and this interpreter's packages for the Python stubs."""
    wheel = find_wheel()
    libraries = [sysconfig.get_config_var("LIBDIR"), str(wheel.parent / "nvidia_pytriton.libs")]
    return {
        **child_environment(),
        "LD_LIBRARY_PATH": ":".join(library for library in libraries if library),
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        **MEMORY_ENVIRONMENT,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
