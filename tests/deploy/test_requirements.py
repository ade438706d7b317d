import pytest

from tests.service import PROJECT

pytest.importorskip("tomllib")  # Python 3.11, as in the images

from deploy.requirements import list_requirements

PYPROJECT = (PROJECT / "pyproject.toml").read_text()


def test_without_extras_it_is_what_the_gateway_needs():
    names = {line.partition(">")[0] for line in list_requirements(PYPROJECT, [])}
    assert {"fastapi", "tritonclient[grpc]", "uvicorn"} <= names
    assert "torch" not in names


def test_extras_come_on_top():
    core, export = list_requirements(PYPROJECT, []), list_requirements(PYPROJECT, ["export"])
    assert export[: len(core)] == core
    assert any(line.startswith("torch") for line in export[len(core) :])


def test_an_unknown_extra_is_an_error():
    with pytest.raises(KeyError, match="no-such-extra"):
        list_requirements(PYPROJECT, ["no-such-extra"])
