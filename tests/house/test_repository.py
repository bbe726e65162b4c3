"""What the documents promise is there: generated files are fresh, README's commands are the ones that run, versions agree."""
from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SETUP = "python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e "


def command_lines(prefix: str) -> list[str]:
    """Indented or fenced lines of the README that begin with `prefix`."""
    return [line.strip() for line in README.splitlines() if line.strip().startswith(prefix)]


def test_generated_files_are_fresh() -> None:
    result = subprocess.run([sys.executable, "-m", "app.openapi", "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_readme_has_its_two_commands() -> None:
    """One that ends in the demo, one that ends in the tests; both set themselves up."""
    commands = command_lines(SETUP)
    assert len(commands) == 2
    assert commands[0].endswith(".venv/bin/pagewalk demo")
    assert commands[1].endswith("pytest -q")


def test_ci_reads_the_test_command_from_the_readme() -> None:
    pattern = r"^ *(python3 -m venv .*pytest.*)$"
    assert len(re.findall(pattern, README, re.MULTILINE)) == 1
    assert r"sed -n 's/^ *\(python3 -m venv .*pytest.*\)$/\1/p' README.md" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", ["run", "test", "check", "openapi", "bench", "demo", "clean-cache", "conformance"])
def test_makefile_has_one_line_targets(target: str) -> None:
    lines = [line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if line.startswith(f"{target}:")]
    assert len(lines) == 1
    assert ";" in lines[0]


def test_console_script_says_the_same_version() -> None:
    result = subprocess.run([sys.executable, "-m", "app.cli", "version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert PROJECT["version"] in result.stdout


def test_every_floor_is_met_by_the_lock() -> None:
    """constraints.txt names every direct dependency, at its floor or above."""
    lock = dict(re.findall(r"^([\w.-]+)==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    lock = {name.lower().replace("_", "-"): version for name, version in lock.items()}
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        name, floor = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", line).groups()  # type: ignore[union-attr]
        assert numbers(lock[name.lower()]) >= numbers(floor), line


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_nothing_generated_or_private_is_committed() -> None:
    """No caches, virtual environments or compiled files among the tracked ones."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "pyproject.toml" in tracked
    assert not [path for path in tracked if re.search(r"(^|/)(__pycache__|\.venv|\.mypy_cache)/|\.(pyc|so|nbi|nbc)$", path)]


SETTING_ROWS = dict(re.findall(r"^\| `PAGEWALK_(\w+)`[^|]*\| (?:`([^`]*)`|none) \|", README, re.MULTILINE))


def test_readme_lists_settings_that_there_are() -> None:
    """The README has those that most will want; openapi/settings.md is generated and has them all."""
    assert {"HOST", "PORT", "DATA", "TOKEN", "MAX_SESSIONS"} <= set(SETTING_ROWS) - {"CACHE"} <= {name.upper() for name in Settings.model_fields}
    assert "(openapi/settings.md)" in README


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name.upper() in SETTING_ROWS])
def test_readme_tells_the_true_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's default, given as the environment would give it, makes the default settings."""
    written = SETTING_ROWS[name.upper()]
    monkeypatch.delenv(f"PAGEWALK_{name.upper()}", raising=False)
    default = getattr(Settings(), name)
    if not written:
        assert default is None
        return
    monkeypatch.setenv(f"PAGEWALK_{name.upper()}", written)
    assert getattr(Settings(), name) == default
