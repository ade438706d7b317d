"""A CUDA that does nothing, so that ONNX Runtime's CUDA provider loads on a machine without a GPU.

Which node gets which kernel, what is copied to the host, which shapes a kernel refuses: all that the provider decides
on the processor is real. The results of kernels are not.

    python -m tests.cuda_stub.build FOLDER
"""

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

# The version in Triton 26.07, and the headers of the CUDA that it is built for.
PACKAGES = ("onnxruntime-gpu==1.27.0", "nvidia-cuda-runtime==13.5.37", "nvidia-cuda-crt==13.5.37")

SOURCE = Path(__file__).with_name("cuda.c")
COUNTERS = ("launches", "copies_to_host", "copies_to_device", "synchronisations")  # as in cuda.c

# Functions of other libraries whose answer is looked at: those that return a handle, a text or a version.
_HANDLES = ("cublasCreate_v2", "cublasLtCreate", "cublasLtMatmulDescCreate", "cudnnCreate")
_TEXTS = ("GetErrorString", "GetStatusString", "GetStatusName")


def install(folder: Path) -> Path:
    """Install the packages, without what they depend on, into a folder of their own, and return that: 220 MB, once."""
    packages = folder / "packages"
    if not packages.exists():
        unfinished = folder / "unfinished"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        subprocess.run([*pip, "--target", str(unfinished), *PACKAGES], check=True)
        unfinished.rename(packages)
    return packages


def build(packages: Path, folder: Path) -> Path:
    """Compile the libraries that the CUDA provider of the installed packages needs, and return their folder."""
    [provider] = packages.rglob("libonnxruntime_providers_cuda.so")
    [header] = packages.rglob("cuda_runtime_api.h")
    libraries = folder / "libraries"
    libraries.mkdir(parents=True, exist_ok=True)
    symbols = list_symbols(provider)
    for library in {*symbols, *list_needed(provider), "libcuda.so.1"}:
        source = libraries / f"{library}.c"
        written = SOURCE.read_text() if library.startswith("libcudart.") else ""
        names = [name for name in symbols.get(library, []) if f"{name}(" not in written]
        source.write_text("#include <stdlib.h>\n" + "".join(map(define, names)))
        versions = libraries / f"{library}.map"
        versions.write_text(f"{library} {{ global: *; }};\n")
        command = ["gcc", "-w", "-shared", "-fPIC", f"-I{header.parent}", f"-Wl,-soname,{library}"]
        command += [f"-Wl,--version-script,{versions}", "-o", str(libraries / library), str(source)]
        subprocess.run(command + [str(SOURCE)] * bool(written), check=True)
    return libraries


def list_symbols(provider: Path) -> dict[str, list[str]]:
    """Return the functions that a library takes from each library of CUDA."""
    symbols = defaultdict(list)
    for line in read_lines("nm", "-D", "--undefined-only", str(provider)):
        name, _, library = line.split()[-1].partition("@")
        if library.startswith(("libcu", "libnvrtc")):
            symbols[library].append(name)
    return symbols


def list_needed(provider: Path) -> list[str]:
    """Return the libraries of CUDA that a library is linked with."""
    lines = [line for line in read_lines("readelf", "-d", str(provider)) if "(NEEDED)" in line]
    names = [line.split("[")[1].rstrip("]") for line in lines]
    return [name for name in names if name.startswith(("libcu", "libnvrtc"))]


def define(name: str) -> str:
    """Return the definition of a function that succeeds."""
    if name.startswith(_HANDLES):
        return f"int {name}(void **handle) {{ *handle = calloc(1, 64); return 0; }}\n"
    if name.endswith(_TEXTS):
        return f'const char *{name}(int status) {{ return "status"; }}\n'
    if name == "cudnnGetVersion":
        return f"size_t {name}(void) {{ return 91000; }}\n"
    if name == "cudnnGetLastErrorString":
        return f"void {name}(char *text, size_t size) {{ if (size) *text = 0; }}\n"
    return f"int {name}() {{ return 0; }}\n"


def read_lines(*command: str) -> list[str]:
    """Return what a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    build(install(folder), folder)
