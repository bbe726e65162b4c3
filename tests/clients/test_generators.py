"""Clients generated from the committed documents: the generators do not complain, and what they make works against the service."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.client import Service, running

ROOT = Path(__file__).resolve().parents[2]
OPENAPI = ROOT / "openapi" / "openapi.json"
ASYNCAPI = ROOT / "openapi" / "asyncapi.yaml"
NPM = ("openapi-typescript@7.13.0", "typescript@5.9.3", "@asyncapi/parser@3.6.6")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running() as service:
        yield service


# ---- Python ----------------------------------------------------------------------------------------------------


def generate(document: Path, target: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # its hook formats with ruff
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document), "--output-path", str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=250, env=os.environ | {"PATH": path, "NO_COLOR": "1"})


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    words = ("WARNING", "Unable", "Cannot", "Failure", "Skipping", "rror")
    return [line for line in (done.stdout + done.stderr).splitlines() if any(word in line for word in words)]


def test_the_python_generator_does_not_complain_and_its_client_works(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = generate(OPENAPI, tmp_path / "made")
    assert (done.returncode, complaints(done)) == (0, []), done.stdout + done.stderr
    monkeypatch.syspath_prepend(str(tmp_path / "made"))
    made = importlib.import_module("pagewalk_client")
    api, models = "pagewalk_client.api", importlib.import_module("pagewalk_client.models")

    def call(module: str):
        return importlib.import_module(f"{api}.{module}").sync_detailed

    with made.Client(base_url=service.url) as client:
        booted = call("sessions.create_session")(client=client, body=models.SessionCreate.from_dict({"machine": {"memory": "256M"}}))
        assert booted.status_code == 201
        sid = booted.parsed.id
        pid = call("processes.spawn_process")(sid, client=client, body=models.SpawnBody.from_dict({"comm": "student"})).parsed.pid
        body = models.MmapBody.from_dict({"length": "1M", "prot": "rw", "flags": ["private", "anonymous"]})
        mapped = call("calls.call_mmap")(sid, str(pid), client=client, body=body)
        assert mapped.parsed.errno is None and mapped.parsed.result.address.startswith("0x")
        read, write = call("files.read_file"), call("files.write_file")
        assert read(sid, "proc/meminfo", client=client).parsed.startswith("MemTotal:")
        value = importlib.import_module("pagewalk_client.types").File(payload=b"11\n")
        assert write(sid, "proc/sys/vm/swappiness", client=client, body=value).status_code == 204
        assert read(sid, "proc/sys/vm/swappiness", client=client).parsed == "11\n"


def test_the_generators_complaints_are_heard(tmp_path: Path) -> None:
    document = json.loads(OPENAPI.read_text())
    document["components"]["schemas"]["Audit"]["properties"]["cgroups"] = {"type": "array"}
    (tmp_path / "bad.json").write_text(json.dumps(document))
    assert complaints(generate(tmp_path / "bad.json", tmp_path / "made"))


# ---- TypeScript, and AsyncAPI's own parser ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the JavaScript tools installed."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed: the TypeScript generator and AsyncAPI's parser need them")
    folder = tmp_path_factory.mktemp("node")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", *NPM]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=280)
    if done.returncode:
        pytest.skip(f"npm could not install {' '.join(NPM)}: {done.stderr.strip()[-200:]}")
    return folder


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)


USES = """
import type { components, paths } from "./made";
type Boot = paths["/v1/sessions"]["post"]["requestBody"]["content"]["application/json"];
type Answer = components["schemas"]["Answer"];
export const boot: Boot = { machine: { memory: "512M" }, seed: 1 };
export function faults(answer: Answer): number { return answer.faults.minor + answer.faults.major; }
// @ts-expect-error an answer has no such member
export function wrong(answer: Answer) { return answer.nothing; }
"""


def test_the_typescript_generator_does_not_complain_and_its_types_are_ours(node: Path) -> None:
    done = run(node, "npx", "--no-install", "openapi-typescript", str(OPENAPI), "-o", "made.d.ts")
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "made.d.ts" in said, said
    assert not [word for word in ("warn", "error", "⚠", "✘") if word in said.lower()], said
    (node / "uses.ts").write_text(USES)
    checked = run(node, "npx", "--no-install", "tsc", "--noEmit", "--strict", "--skipLibCheck", "false", "uses.ts", "made.d.ts")
    assert checked.returncode == 0, checked.stdout


PARSE = """
import { Parser } from "@asyncapi/parser";
import { readFileSync } from "node:fs";
const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify({
  parsed: document !== undefined,
  channels: document?.channels().all().map((channel) => channel.id()) ?? [],
  diagnostics: diagnostics.map((found) => `${found.path.join("/")}: ${found.message}`),
}));
"""


def parse(node: Path, document: Path) -> dict[str, object]:
    (node / "parse.mjs").write_text(PARSE)
    done = run(node, "node", "parse.mjs", str(document))
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_asyncapis_own_parser_accepts_the_document(node: Path) -> None:
    assert parse(node, ASYNCAPI) == {"parsed": True, "channels": ["events", "policy"], "diagnostics": []}


def test_asyncapis_parser_can_refuse(node: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(ASYNCAPI.read_text().replace("action: send", "action: shout"))
    assert parse(node, bad)["diagnostics"]
