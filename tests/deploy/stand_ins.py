"""Stand-ins for the base images of our Dockerfiles, for machines that reach package indexes but no image registry.

`python -m tests.deploy.stand_ins` builds those that are missing. They need root, Docker and debootstrap, and differ
from the real images in this:

- Python's is Debian 12 with Debian's own Python 3.11.
- The compiler's is Debian 12 with its GCC.
- Triton's is 24.10 out of the wheel that `make serve` runs, on Debian 12 rather than Ubuntu, without CUDA.
- Our Python-based backend takes the place of NVIDIA's ONNX Runtime backend.
- Triton's Python is 3.12, as in NVIDIA's current image, if this machine has one to copy, else Debian's 3.11. NumPy is
  1.26, which the stub of 24.10 needs. The entrypoint only runs its arguments.
- They trust the certificates that this machine trusts. Python's holds the wheels in the folder PIP_FIND_LINKS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.service import PROJECT

DEBIAN = "tessera-stand-in/debian:12"
PYTHON = "tessera-stand-in/python:3.11"
TRITON = "tessera-stand-in/triton:24.10"

PACKAGES = (
    "ca-certificates", "python3", "python3-pip", "python-is-python3", "libpython3.11", "libgomp1",
    "gcc", "libc6-dev", "libbz2-1.0", "libffi8", "liblzma5", "libreadline8", "libsqlite3-0", "libssl3", "redis-server",
)  # fmt: skip
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

DEBIAN_DOCKERFILE = f"""
FROM scratch
ADD root.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \\
    SSL_CERT_FILE={CERTIFICATES} PIP_CERT={CERTIFICATES} PIP_DEFAULT_TIMEOUT=180
"""
PYTHON_DOCKERFILE = f"""
FROM {DEBIAN}
COPY wheels /opt/wheels
ENV PIP_FIND_LINKS=/opt/wheels UV_FIND_LINKS=/opt/wheels
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
CMD ["python3"]
"""
TRITON_DOCKERFILE = f"""
FROM {DEBIAN}
COPY python /usr/local
COPY server /opt/tritonserver
COPY entrypoint.sh /opt/nvidia/nvidia_entrypoint.sh
ENV PATH=/opt/tritonserver/bin:$PATH PIP_BREAK_SYSTEM_PACKAGES=1
RUN echo /opt/tritonserver/lib > /etc/ld.so.conf.d/tritonserver.conf && ldconfig \\
 && (python3 -m pip --version || python3 -m ensurepip) && useradd --uid 1000 triton-server \\
 && ! ldd /opt/tritonserver/bin/tritonserver | grep "not found"
COPY constraints.txt ./
RUN python3 -m pip install --no-cache-dir --constraint constraints.txt 'numpy<2' onnxruntime psutil
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh"]
"""


def find_obstacle() -> str | None:
    """Return why no stand-in can be built here; None if they can."""
    if os.geteuid():
        return "stand-ins of base images need root"
    for program in ("docker", "debootstrap"):
        if not shutil.which(program):
            return f"{program} is not installed"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "no Docker daemon responds: start dockerd, or set DOCKER_HOST"
    return None


def build_all(folder: Path) -> None:
    """Build the stand-ins that Docker does not have yet.

    Args:
        folder: For intermediate files, of which about 1 GB stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for image, prepare in ((DEBIAN, _prepare_debian), (PYTHON, _prepare_python), (TRITON, _prepare_triton)):
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            sys.stderr.write(f"building the stand-in {image}\n")
            context = folder / image.replace("/", "-").replace(":", "-")
            shutil.rmtree(context, ignore_errors=True)
            context.mkdir()
            dockerfile = prepare(context)
            (context / "Dockerfile").write_text(dockerfile)
            run("docker", "build", "--quiet", "--network", "host", "--tag", image, str(context))
            shutil.rmtree(context)


def build_arguments() -> dict[str, str]:
    """Return the arguments that make our Dockerfiles build on the stand-ins."""
    arguments = {"PYTHON_IMAGE": PYTHON, "TRITON_IMAGE": TRITON, "COMPILER_IMAGE": DEBIAN}
    arguments["ONNXRUNTIME_BACKEND"] = "model.py"
    if _find_wheels():
        arguments["TORCH_BACKEND"] = ""  # PyTorch's own index may be out of reach: the folder has its wheel
    return arguments


def run(*command: str) -> None:
    """Run a program with the classic builder of Docker, which needs no plugin."""
    subprocess.run(command, env=os.environ | {"DOCKER_BUILDKIT": "0"}, stdout=sys.stderr, check=True)


def _prepare_debian(context: Path) -> str:
    root = context / "root"
    run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(root))
    if CERTIFICATES.is_file():
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
    run("tar", "--directory", str(root), "--create", "--file", str(context / "root.tar"), ".")
    shutil.rmtree(root)
    return DEBIAN_DOCKERFILE


def _prepare_python(context: Path) -> str:
    (context / "wheels").mkdir()
    for wheel in _find_wheels():
        shutil.copy2(wheel, context / "wheels")
    return PYTHON_DOCKERFILE


def _find_wheels() -> list[Path]:
    return sorted(Path(os.environ.get("PIP_FIND_LINKS") or os.devnull).glob("*.whl"))


def _prepare_triton(context: Path) -> str:
    wheel = _unpack_wheel(context)
    server = context / "server"
    shutil.copytree(wheel / "pytriton/tritonserver", server, ignore=shutil.ignore_patterns("python_backend_stubs"))
    shutil.copytree(wheel / "nvidia_pytriton.libs", server / "lib", dirs_exist_ok=True)
    version = _copy_python(context / "python")
    stub = wheel / "pytriton/tritonserver/python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, server / "backends/python")
    shutil.copytree(PROJECT / "backends/onnxruntime", server / "backends/onnxruntime")
    shutil.rmtree(context / "wheel")
    for program in (server / "bin/tritonserver", server / "backends/python/triton_python_backend_stub"):
        program.chmod(0o755)
    (context / "entrypoint.sh").write_text('#!/bin/sh\nexec "$@"\n')
    (context / "entrypoint.sh").chmod(0o755)
    shutil.copy2(PROJECT / "constraints.txt", context)
    return TRITON_DOCKERFILE


def _unpack_wheel(context: Path) -> Path:
    """Return the folder of the unpacked wheel of Triton, of the version that `make serve` runs."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--platform", "manylinux_2_35_x86_64", "--constraint", str(PROJECT / "constraints.txt")]
    run(*command, "--dest", str(context), "nvidia-pytriton")
    [wheel] = context.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(context / "wheel")
    wheel.unlink()
    return context / "wheel"


def _copy_python(target: Path) -> str:
    """Copy a Python 3.12 with a shared library, if there is one, and return the version that the image will have."""
    target.mkdir()
    script = (
        "import sys, sysconfig; assert sys.version_info[:2] == (3, 12);"
        "assert sysconfig.get_config_var('Py_ENABLE_SHARED'); print(sys.base_prefix)"
    )
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob("3.12.*/bin/python3"))
    for candidate in ("python3.12", *map(str, pyenv)):
        found = shutil.which(candidate) and subprocess.run(
            [candidate, "-c", script], capture_output=True, text=True, check=False
        )
        prefix = found and found.stdout.strip()
        if prefix and prefix != "/usr":
            ignored = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-3*", "*.a")
            (target / "lib").mkdir()
            shutil.copytree(Path(prefix) / "lib/python3.12", target / "lib/python3.12", ignore=ignored)
            for library in Path(prefix).glob("lib/libpython3*.so*"):
                shutil.copy2(library, target / "lib")
            (target / "bin").mkdir()
            shutil.copy2(Path(prefix) / "bin/python3.12", target / "bin/python3")
            return "3.12"
    return "3.11"


if __name__ == "__main__":
    obstacle = find_obstacle()
    if obstacle:
        sys.exit(f"error: {obstacle}")
    build_all(PROJECT / "build" / "stand_ins")
