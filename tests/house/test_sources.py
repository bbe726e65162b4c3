"""House rules that are about the text of the code: what core may not do, how long a file may be, what a link must point to."""
from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted(path for top in ("core", "app", "pagewalk", "tests", "benchmarks") for path in (ROOT / top).rglob("*.py"))
CORE = sorted((ROOT / "core").rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "core").rglob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks" / "README.md"])

# A kernel is a value: the same machine, seed and calls give the same bytes. None of these may reach a simulated number.
OUTSIDE_WORLD = {
    "asyncio", "concurrent", "datetime", "getpass", "io", "locale", "logging", "multiprocessing", "os", "pathlib", "platform",
    "resource", "secrets", "select", "shutil", "socket", "sqlite3", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
}
# jit.py hashes the sources and finds the compile cache, warm.py reports progress; nothing simulated passes through them.
OUTWARD = {"core/jit.py", "core/warm.py"}
LINES = 1000


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of every module that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def unseeded_random(tree: ast.AST) -> list[str]:
    """Uses of randomness other than `random.Random(seed)`: the global generator, numpy's, one without a seed."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module="random", names=names):
                found += [f"random.{alias.name}" for alias in names if alias.name != "Random"]
            case ast.Attribute(value=ast.Name(id="random"), attr=name) if name != "Random":
                found.append(f"random.{name}")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="random"), attr="Random"), args=[]):
                found.append("random.Random()")
            case ast.Call(func=ast.Name(id="Random"), args=[]):
                found.append("random.Random()")
            case ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="random"):
                found.append("numpy.random")
    return found


@pytest.mark.parametrize(("source", "bad"), [
    ("import random\nrng: random.Random = random.Random(seed)", []),
    ("random.Random()", ["random.Random()"]),
    ("random.shuffle(x)", ["random.shuffle"]),
    ("from random import Random, randint\nRandom(7)\nRandom()", ["random.randint", "random.Random()"]),
    ("np.random.default_rng(1)", ["numpy.random"]),
])  # fmt: skip
def test_the_rule_about_randomness_can_fail(source: str, bad: list[str]) -> None:
    assert unseeded_random(ast.parse(source)) == bad


def calls_of(tree: ast.AST, function: str) -> list[int]:
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name) and node.func.id == function]


def test_there_is_a_core_to_check() -> None:
    assert len(CORE) > 30


@pytest.mark.parametrize("path", CORE, ids=name)
def test_core_is_a_value(path: Path) -> None:
    """No clock, no environment, no files, no threads, no randomness but the machine's seed, no print."""
    if name(path) in OUTWARD:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not imported(tree) & OUTSIDE_WORLD
    assert not unseeded_random(tree)
    assert not calls_of(tree, "print") + calls_of(tree, "open") + calls_of(tree, "input")


PAGE_LOOP = {"njit", "inline", "step"}  # core/jit.py


def untyped(tree: ast.AST) -> list[str]:
    """Functions without full annotations that are not page loops; a page loop is typed by numba."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or PAGE_LOOP & {d.id for d in node.decorator_list if isinstance(d, ast.Name)}:
            continue
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        bare = [argument for argument in arguments if argument.annotation is None and argument.arg not in ("self", "cls")]
        if bare or node.returns is None:
            found.append(f"{node.name}, line {node.lineno}")
    return found


@pytest.mark.parametrize("path", CORE, ids=name)
def test_only_page_loops_go_without_types(path: Path) -> None:
    """What mypy's relaxed rule for core would let through."""
    assert not untyped(ast.parse(path.read_text(encoding="utf-8")))


def test_the_rule_about_types_can_fail() -> None:
    assert untyped(ast.parse("def f(x: int): ...")) == ["f, line 1"]
    assert not untyped(ast.parse("@njit\ndef f(s, x): ..."))


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_file_fits_a_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as the usual renderers make them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(document: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in links(document):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        there = (document.parent / target) if target else document
        assert there.exists(), link
        assert not anchor or anchor in headings(there), link
