"""The services of docker-compose.yml and docker-compose.cpu.yml."""

import re
import shutil
import subprocess

import pytest

from deploy.export_missing import ExportSettings
from gateway.settings import Settings
from launcher import triton
from tests.service import PROJECT

LONG_LIVED = ("triton", "gateway")
FORMS = {"gpu": ["docker-compose.yml"], "cpu": ["docker-compose.yml", "docker-compose.cpu.yml"]}


def test_there_is_one_service_for_each_stage(services):
    assert list(services) == ["export", "triton", "gateway"]


def test_images_are_tagged_with_a_version(services):
    for service in services.values():
        assert re.fullmatch(r"tessera/\w+:\d+\.\d+\.\d+", service["image"])


def test_no_service_runs_as_root_or_writes_to_its_image(services):
    for service in services.values():
        assert service["user"] == "1000:1000"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.keys() & {"privileged", "cap_add", "pid", "ipc", "network_mode", "devices"}


def test_only_the_gateway_is_published_and_on_loopback_by_default(services, with_defaults):
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert {name: [with_defaults(port) for port in ports] for name, ports in published.items()} == {
        "gateway": ["127.0.0.1:8000:8000"]
    }


def test_the_proxy_is_hardened_like_the_others_and_reaches_the_gateway_only(compose, services):
    proxy = compose["services"]["proxy"]
    assert proxy["profiles"] == ["proxy"]
    hardening = ("user", "read_only", "tmpfs", "cap_drop", "security_opt", "logging", "init")
    assert {name: proxy[name] for name in hardening} == {name: services["gateway"][name] for name in hardening}
    assert proxy["networks"] == ["edge"]
    assert proxy["ports"][0].endswith(":8080") and "listen 8080" in (PROJECT / "deploy" / "nginx.conf").read_text()
    [volume] = proxy["volumes"]
    assert (PROJECT / volume.partition(":")[0]).is_file() and volume.endswith(":ro")


def test_triton_shares_an_internal_network_with_the_gateway_alone(compose, services):
    assert services["triton"]["networks"] == ["inference"]
    assert compose["networks"]["inference"]["internal"] is True
    assert [name for name, service in services.items() if "inference" in service["networks"]] == ["triton", "gateway"]


def test_each_service_waits_for_the_one_before(services):
    assert "depends_on" not in services["export"]
    assert services["triton"]["depends_on"] == {"export": {"condition": "service_completed_successfully"}}
    assert services["gateway"]["depends_on"] == {"triton": {"condition": "service_healthy"}}


def test_servers_are_watched_and_restarted_and_the_export_runs_once(services):
    for name in LONG_LIVED:
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["healthcheck"].keys() == {"test", "interval", "timeout", "retries", "start_period"}
    assert services["export"]["restart"] == "no"
    assert "healthcheck" not in services["export"]


def test_the_stop_grace_period_covers_the_requests_in_flight(services):
    grace_s = {name: int(services[name]["stop_grace_period"].removesuffix("s")) for name in LONG_LIVED}
    assert grace_s["gateway"] > Settings.model_fields["grace_s"].default
    assert grace_s["triton"] > 30  # Triton's own default of --exit-timeout-secs


def test_triton_reads_what_the_export_publishes_and_cannot_write_it(services):
    repository = services["export"]["environment"]["REPOSITORY"]
    assert f"--model-repository={repository}" in services["triton"]["command"]
    assert "models:/models" in services["export"]["volumes"]
    assert services["triton"]["volumes"] == ["models:/models:ro"]


def test_the_repository_is_a_folder_within_its_volume(services):
    """An export is staged beside the repository and renamed, which does not work across mounts."""
    assert services["export"]["environment"]["REPOSITORY"].startswith("/models/")


def test_triton_has_the_same_flags_as_the_embedded_one(services, tmp_path):
    """Except for paths and addresses."""
    assert services["triton"]["environment"].items() >= triton.MEMORY_ENVIRONMENT.items()
    program, *flags = services["triton"]["command"]
    embedded = triton.server_command(tmp_path, tmp_path, 8001, 8002)[1:]
    assert program == "tritonserver"
    assert [drop_place(flag) for flag in flags] == [drop_place(flag) for flag in embedded]
    assert {"--allow-http=false", "--model-control-mode=none"} <= set(flags)


def drop_place(flag: str) -> str:
    place = re.match(r"--(model-repository|backend-directory|grpc-address|metrics-address)=", flag)
    return place[0] if place else flag


def test_triton_has_shared_memory_for_its_preprocessing(services):
    assert services["triton"]["shm_size"] == "2gb"  # Docker's default is 64 MB


def test_every_setting_of_the_gateway_is_passed_on(services):
    known = {str(field.validation_alias or f"GATEWAY_{name.upper()}") for name, field in Settings.model_fields.items()}
    files_to_mount = {"GATEWAY_API_KEYS_FILE", "GATEWAY_TIKTOKEN_FILE"}
    assert services["gateway"]["environment"].keys() == known - files_to_mount


def test_every_variable_of_the_export_is_one_of_its_settings(services):
    known = {name.upper() for name in ExportSettings.model_fields}
    assert services["export"]["environment"].keys() - {"HF_TOKEN"} == known


def test_the_gateway_connects_to_the_triton_of_this_network(services):
    assert services["gateway"]["environment"]["TRITON_URL"] == "triton:8001"
    assert "--grpc-port=8001" in services["triton"]["command"]


def test_by_default_the_flagship_is_exported_for_the_gpu(services, with_defaults):
    settings = read_settings(services["export"]["environment"], with_defaults)
    assert settings.model == settings.public_id == "nvidia/llama-nemotron-embed-vl-1b-v2"
    assert (settings.precision, settings.target) == ("fp16", "cuda")
    assert services["triton"]["runtime"] == "nvidia"


def test_without_a_gpu_nothing_asks_for_one(services, cpu_override, with_defaults):
    overridden = cpu_override["services"]
    environment = services["export"]["environment"] | overridden["export"]["environment"]
    settings = read_settings(environment, with_defaults)
    assert (settings.precision, settings.target) == ("fp32", "cpu")
    assert overridden["triton"] == {"runtime": "runc"}
    assert "gateway" not in overridden


def read_settings(environment, with_defaults):
    values = {name.lower(): with_defaults(value) for name, value in environment.items() if name != "HF_TOKEN"}
    return ExportSettings(**{name: value for name, value in values.items() if value})


def test_what_is_mounted_or_built_from_the_project_exists(services, with_defaults):
    for service in services.values():
        assert (PROJECT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = with_defaults(volume).split(":")[0]
            assert not source.startswith("/")
            assert not source.startswith(".") or (PROJECT / source).is_dir()


def test_named_volumes_and_networks_are_declared_and_used(compose, services, with_defaults):
    volumes = {
        with_defaults(volume).split(":")[0] for service in services.values() for volume in service.get("volumes", ())
    }
    assert {name for name in volumes if not name.startswith(".")} == compose["volumes"].keys()
    assert {name for service in services.values() for name in service["networks"]} == compose["networks"].keys()


def test_every_variable_that_can_be_set_is_documented():
    readme = (PROJECT / "deploy" / "README.md").read_text()
    names = {name for form in FORMS["cpu"] for name in re.findall(r"\$\{(\w+)", (PROJECT / form).read_text())}
    assert "MODEL" in names
    assert names <= set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
@pytest.mark.parametrize("form", FORMS)
def test_docker_compose_accepts_the_files(form):
    files = [word for name in FORMS[form] for word in ("--file", name)]
    done = subprocess.run(["docker-compose", *files, "config"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"runtime: {'nvidia' if form == 'gpu' else 'runc'}" in done.stdout
