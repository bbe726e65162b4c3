"""The generated documents: fresh, well formed, and true of what the service does."""

import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.openapi import main
from app.schemas.documents import CLOSE_CODES, documents, settings_table
from app.settings import Settings
from app.stream.websocket import CLOSE_OF
from core import CALLS, EVENTS, FILES
from tests.api.client import PAGE

OPENAPI = Path(__file__).resolve().parents[2] / "openapi"


@pytest.fixture(scope="module")
def document(service):
    return service.http.get("/openapi.json").json()


def test_the_committed_documents_are_fresh(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_check_tells_what_is_stale(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["asyncapi.yaml", "calls.md", "events.md", "files.md", "openapi.json", "settings.md"]
    (tmp_path / "calls.md").write_text("old")
    assert main(["--check", str(tmp_path)]) == 1
    assert "stale: calls.md" in capsys.readouterr().err
    assert (tmp_path / "calls.md").read_text() == "old"


def test_every_call_has_its_path(document):
    head = "/v1/sessions/{sid}/processes/{pid}/"
    for name, row in CALLS.items():
        assert (head + name in document["paths"]) is row.process


def test_every_schema_is_one(document):
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("type") == "object" or "anyOf" in schema, name


def test_every_reference_leads_somewhere(document):
    def references(value):
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "$ref":
                    yield item
                else:
                    yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    found = set(references(document))
    assert found
    assert {ref.removeprefix("#/components/schemas/") for ref in found} <= document["components"]["schemas"].keys()


def test_operations_are_named_once_and_all_may_answer_a_problem(document):
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    for item in document["paths"].values():
        for operation in item.values():
            assert "application/problem+json" in operation["responses"]["4XX"]["content"]


def test_tables_hold_every_row():
    made = {name: (OPENAPI / name).read_text() for name in ("calls.md", "files.md", "events.md")}
    assert all(f"| `{name}` |" in made["calls.md"] for name in CALLS)
    assert all(f"| `{row.pattern}` |" in made["files.md"] for row in FILES)
    assert all(f"\n## {name}\n" in made["events.md"] for name in [*EVENTS, "gap", "bookmark", "progress"])


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_table_of_settings_tells_the_true_default(name, monkeypatch):
    """The default, given as the environment would give it, makes the default settings; and every setting says what it means."""
    rows = re.findall(rf"^\| `PAGEWALK_{name.upper()}` \| (?:`(.*?)`|none) \| \S.* \|$", settings_table(), re.MULTILINE)
    assert len(rows) == 1
    monkeypatch.delenv(f"PAGEWALK_{name.upper()}", raising=False)
    default = getattr(Settings(), name)
    if not rows[0]:
        assert default is None
        return
    monkeypatch.setenv(f"PAGEWALK_{name.upper()}", rows[0])
    assert getattr(Settings(), name) == default


def test_close_codes_are_documented():
    assert set(CLOSE_OF.values()) | {1000, 1012, 4429} <= CLOSE_CODES.keys()


def test_documents_do_not_depend_on_the_run(service):
    assert documents(service.app) == documents(service.app)


def test_events_are_what_asyncapi_says(session):
    schemas = yaml.safe_load((OPENAPI / "asyncapi.yaml").read_text())["components"]["schemas"]
    pid = session.spawn()
    address = session.mmap(pid, 64 * PAGE)
    session.touch(pid, address, 8 * PAGE)
    session.touch(pid, address, 8 * PAGE, order="reverse")
    session.call(pid, "fork")
    session.touch(pid, address, 8 * PAGE)
    session.call(pid, "munmap", address=address, length=PAGE)
    session.post("/cgroups", {"path": "/app", "memory.max": "1M"})
    small = session.spawn(cgroup="/app")
    session.touch(small, session.mmap(small, 1024 * PAGE), 1024 * PAGE)
    session.call(pid, "touch", address=0)
    items = session.get("/events?limit=10000").json()["items"]
    assert {"process", "fault", "vma", "memcg", "oom"} <= {item["type"] for item in items}
    for item in items:
        Draft202012Validator(schemas[item["type"]] | {"additionalProperties": False}).validate(item)
