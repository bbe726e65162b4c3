"""The same cases over HTTP: a client of the service sees the same kernel, figure by figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.service import serving
from tests.conformance.run import CASES, score

PATHS = sorted(CASES.glob("*.json.gz"))


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with serving(PAGEWALK_MAX_PAGES_PER_CALL=str(1 << 26)) as (_, url):
        yield url


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name.removesuffix(".json.gz"))
def test_the_service_is_the_kernel(path: Path, service: str) -> None:
    over_http, in_process = score(path, service), score(path)
    assert [(check.where, check.got) for check in over_http.failures] == [(check.where, check.got) for check in in_process.failures]
    assert len(over_http.checks) == len(in_process.checks)
    assert not over_http.failures, f"\n{over_http}"
