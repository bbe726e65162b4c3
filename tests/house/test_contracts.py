"""The import rule is a program: every contract holds, every module of core stands in a layer, and the rule can fail."""
from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BELOW_ALL = {"core.jit", "core.columns"}  # they import nothing else of ours, so they may be imported from anywhere
LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, check=False)


def contracts() -> list[dict[str, object]]:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found: list[dict[str, object]] = configuration["tool"]["importlinter"]["contracts"]
    return found


def layered(prefix: str) -> set[str]:
    """Every module named in a layers contract whose names begin with `prefix`."""
    rows = [row for contract in contracts() if contract["type"] == "layers" for row in contract["layers"]]  # type: ignore[attr-defined]
    return {name for row in rows for name in re.findall(r"[\w.]+", row) if name.startswith(prefix)}


def modules(package: str) -> list[str]:
    """Dotted names of a package's modules, without the packages' own __init__."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths if path.name != "__init__.py"]


def test_contracts_hold() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout[-4000:]


def test_contracts_can_break(tmp_path: Path) -> None:
    """The same contracts over a house where the allocator imports the reclaimer and a route imports a file of core."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    files = {
        "core/__init__.py": "", "core/kernel.py": "", "core/abi/__init__.py": "", "core/mm/__init__.py": "", "core/fs/__init__.py": "",
        "core/syscalls/__init__.py": "", "core/sched/__init__.py": "", "core/mm/vmscan.py": "",
        "core/mm/page_alloc.py": "from core.mm import vmscan", "app/__init__.py": "", "app/routes.py": "from core.kernel import Kernel",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert "app is not allowed to import core.kernel" in result.stdout
    assert "core.mm.page_alloc is not allowed to import core.mm.vmscan" in result.stdout


@pytest.mark.parametrize("package", ["core", "app"])
def test_every_module_stands_in_a_layer(package: str) -> None:
    """A new file must say where it belongs, or the layers contract would not see it."""
    known = layered(package) | BELOW_ALL
    assert not [module for module in modules(package) if not any(f"{module}.".startswith(f"{name}.") for name in known)]
