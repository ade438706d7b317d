"""The services of docker-compose.yml and docker-compose.cpu.yml, which extend docker-compose.services.yml."""

import re
import shutil
import subprocess

import pytest
import yaml

from deploy.export_missing import ExportSettings
from gateway.settings import Settings
from launcher import triton
from tests.deploy.conftest import COMPOSE_FILES, FORMS, read_form
from tests.service import PROJECT

LONG_LIVED = ("triton", "gateway")
VARIABLE_NAME = re.compile(r"\$\{(\w+)")
HARDENING = ("read_only", "cap_drop", "security_opt", "logging", "init", "pids_limit", "ulimits")


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


def test_services_with_a_profile_are_hardened_like_the_others(compose, services):
    with_profile = {name: service for name, service in compose["services"].items() if "profiles" in service}
    profiles = {name: service["profiles"] for name, service in with_profile.items() if name != "engines"}
    assert profiles == {"proxy": ["proxy"], "prometheus": ["monitoring"], "grafana": ["monitoring"]}
    for service in with_profile.values():
        assert {name: service[name] for name in HARDENING} == {name: services["gateway"][name] for name in HARDENING}
        assert service["user"] not in ("0", "root", "0:0")
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", service["image"])
        assert service["restart"] == ("no" if service["profiles"] == ["tensorrt"] else "unless-stopped")


def test_memory_files_and_temporary_files_are_bounded(services, with_defaults):
    for name, service in services.items():
        assert with_defaults(service["mem_limit"]) == "0"  # none, unless it is set
        assert service["tmpfs"] == ["/tmp:mode=1777,size=64m"], name
        assert with_defaults(service["ulimits"]["nofile"]) == "65536"


def test_prometheus_scrapes_the_gateway_and_triton(compose, services, triton_command):
    config = yaml.safe_load((PROJECT / "deploy" / "prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"gateway": ["gateway:8000"], "triton": ["triton:8002"]}
    assert config["scrape_configs"][0]["metrics_path"] == "/v1/metrics"
    assert "--metrics-port=8002" in triton_command
    assert set(compose["services"]["prometheus"]["networks"]) == {"edge", "inference"}


def test_monitoring_is_published_on_loopback_only(compose):
    for name in ("prometheus", "grafana"):
        assert all(port.startswith("127.0.0.1:") for port in compose["services"][name]["ports"])


def test_the_proxy_reaches_the_gateway_only(compose):
    proxy = compose["services"]["proxy"]
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
        check = services[name]["healthcheck"]
        assert check.keys() == {"test", "interval", "timeout", "retries", "start_period"}
        assert check["test"] == ["CMD", "python3", "/opt/tessera/health_check.py", name]
    assert services["export"]["restart"] == "no"
    assert "healthcheck" not in services["export"]


def test_the_stop_grace_period_covers_the_requests_in_flight(services):
    grace_s = {name: int(services[name]["stop_grace_period"].removesuffix("s")) for name in LONG_LIVED}
    assert grace_s["gateway"] > Settings.model_fields["grace_s"].default
    assert grace_s["triton"] > 30  # Triton's own default of --exit-timeout-secs


def test_triton_reads_what_the_export_publishes_and_cannot_write_it(services, triton_command):
    repository = services["export"]["environment"]["REPOSITORY"]
    assert f"--model-repository={repository}" in triton_command
    assert "models:/models" in services["export"]["volumes"]
    assert [volume for volume in services["triton"]["volumes"] if "models" in volume] == ["models:/models:ro"]


def test_another_model_revision_or_precision_recreates_triton(services):
    """Compose recreates a container whose configuration changes; else it would serve what it had loaded."""
    environment = services["export"]["environment"]
    assert services["triton"]["labels"].items() <= environment.items()
    assert environment.keys() - services["triton"]["labels"] == {"REPOSITORY", "HF_TOKEN", "HF_TOKEN_PATH"}


def test_the_hubs_token_comes_from_the_environment_or_a_file(compose, services, with_defaults):
    export = services["export"]
    assert export["environment"]["HF_TOKEN"] is None  # passed on if set
    assert export["environment"]["HF_TOKEN_PATH"] == f"/run/secrets/{export['secrets'][0]}"
    assert [name for name, service in services.items() if "secrets" in service] == ["export"]
    default = PROJECT / with_defaults(compose["secrets"]["hub_token"]["file"])
    assert default.read_bytes() == b"", "without a token there is an empty one"


def test_the_repository_is_a_folder_within_its_volume(services):
    """An export is staged beside the repository and renamed, which does not work across mounts."""
    assert services["export"]["environment"]["REPOSITORY"].startswith("/models/")


def test_triton_has_the_same_flags_as_the_embedded_one(services, triton_command, tmp_path):
    """Except for paths and addresses; and the launcher, which is not there, lets the embedded one follow its folder."""
    assert services["triton"]["environment"].items() >= triton.MEMORY_ENVIRONMENT.items()
    program, *flags = triton_command
    embedded = triton.server_command(tmp_path, tmp_path, 8001, 8002)[1:]
    assert program == "tritonserver"
    of_the_embedded = {"--model-control-mode=poll", f"--repository-poll-secs={triton.POLL_INTERVAL_S}"}
    of_the_container = {"--model-control-mode=none"}
    assert of_the_embedded <= set(embedded) and of_the_container <= set(flags) and "--allow-http=false" in flags
    assert [drop_place(flag) for flag in flags if flag not in of_the_container] == [
        drop_place(flag) for flag in embedded if flag not in of_the_embedded
    ]


def drop_place(flag: str) -> str:
    place = re.match(r"--(model-repository|backend-directory|grpc-address|metrics-address)=", flag)
    return place[0] if place else flag


def test_triton_has_shared_memory_for_its_preprocessing(services, with_defaults):
    assert with_defaults(services["triton"]["shm_size"]) == "2gb"  # Docker's default is 64 MB


def test_every_setting_of_the_gateway_is_passed_on(services):
    known = {str(field.validation_alias or f"GATEWAY_{name.upper()}") for name, field in Settings.model_fields.items()}
    files_to_mount = {"GATEWAY_API_KEYS_FILE", "GATEWAY_TIKTOKEN_FILE"}
    assert services["gateway"]["environment"].keys() == known - files_to_mount


def test_every_variable_of_the_export_is_one_of_its_settings(services):
    known = {name.upper() for name in ExportSettings.model_fields}
    assert services["export"]["environment"].keys() - {"HF_TOKEN", "HF_TOKEN_PATH"} == known


def test_the_gateway_connects_to_the_triton_of_this_network(services, triton_command):
    assert services["gateway"]["environment"]["TRITON_URL"] == "triton:8001"
    assert "--grpc-port=8001" in triton_command


def test_by_default_the_flagship_is_exported_for_the_gpu(with_defaults):
    services = read_form("gpu")["services"]
    settings = read_settings(services["export"]["environment"], with_defaults)
    assert settings.model == settings.public_id == "nvidia/llama-nemotron-embed-vl-1b-v2"
    assert (settings.precision, settings.target) == ("fp16", "cuda")
    [device] = services["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert services["triton"]["command"] == ["--cuda-memory-pool-byte-size=0:1073741824"]
    assert services["triton"]["environment"]["CUDA_CACHE_PATH"].startswith("/cache/")
    assert "caches:/cache" in services["triton"]["volumes"]


def test_without_a_gpu_nothing_asks_for_one(with_defaults):
    services = read_form("cpu")["services"]
    settings = read_settings(services["export"]["environment"], with_defaults)
    assert settings.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert (settings.precision, settings.target) == ("fp32", "cpu")
    assert not services["triton"].keys() & {"deploy", "command", "runtime"}


def read_settings(environment, with_defaults):
    values = {name.lower(): with_defaults(value) for name, value in environment.items() if value}
    known = {name: value for name, value in values.items() if name in ExportSettings.model_fields and value}
    return ExportSettings(**known)


def test_what_is_mounted_or_built_from_the_project_exists(services, with_defaults):
    for service in services.values():
        assert (PROJECT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", ()):
            source = with_defaults(volume).split(":")[0]
            assert not source.startswith("/")
            assert not source.startswith(".") or (PROJECT / source).is_dir()


def test_named_volumes_and_networks_are_declared_and_used(compose, with_defaults):
    services = compose["services"].values()
    volumes = {with_defaults(volume).split(":")[0] for service in services for volume in service.get("volumes", ())}
    assert {name for name in volumes if not name.startswith(".")} == compose["volumes"].keys()
    assert {name for service in services for name in service["networks"]} == compose["networks"].keys()


def test_every_variable_that_can_be_set_is_documented():
    readme = (PROJECT / "deploy" / "README.md").read_text()
    names = {name for file in COMPOSE_FILES for name in VARIABLE_NAME.findall((PROJECT / file).read_text())}
    assert "MODEL" in names
    assert names <= set(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))


def test_the_example_of_an_env_file_lists_every_variable_with_its_default(services, with_defaults):
    example = dict(re.findall(r"^# ?(\w+)=(.*)$", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    defaults: dict[str, set[str]] = {}
    for file in COMPOSE_FILES:
        for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", (PROJECT / file).read_text()):
            defaults.setdefault(name, set()).add(default)
    passed_on = {name for service in services.values() for name, value in service["environment"].items() if not value}
    assert example.keys() == defaults.keys() | passed_on
    assert not {name: example[name] for name in defaults if example[name] not in defaults[name]}


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose is not installed")
def test_docker_compose_accepts_the_files(form):
    command = ["docker-compose", "--file", FORMS[form], "--profile", "proxy", "--profile", "monitoring", "config"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("nvidia" in done.stdout) == (form == "gpu")
    assert yaml.safe_load(done.stdout)["services"].keys() == read_form(form)["services"].keys()
