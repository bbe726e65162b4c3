"""Each recorded scenario, figure by figure, against real Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.run import CASES, score

PATHS = sorted(CASES.glob("*.json.gz"))


def test_the_recordings_are_here() -> None:
    assert len(PATHS) >= 14


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_every_figure_is_linuxs(path: Path) -> None:
    report = score(path)
    assert report.checks, "nothing was compared"
    assert not report.failures, f"\n{report}"
