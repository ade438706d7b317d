"""Which Python starts the workers."""

import subprocess
import sys

import pytest

from preprocess.interpreter import find_interpreter


def test_own_executable_is_taken_where_it_is_a_python():
    assert find_interpreter(sys.executable) == sys.executable


@pytest.mark.parametrize("executable", ["/opt/tritonserver/backends/python/triton_python_backend_stub", "", None])
def test_embedding_program_is_never_taken(executable):
    found = find_interpreter(executable)
    version = subprocess.check_output([found, "-c", "import sys; print(*sys.version_info[:2])"], text=True)
    assert tuple(map(int, version.split())) == sys.version_info[:2]
