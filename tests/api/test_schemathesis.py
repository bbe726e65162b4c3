"""The service keeps its own contract: requests made from openapi.json, valid and not, find no server error and no answer outside it."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from app.main import create_app
from app.settings import Settings
from tests.api.client import Client, Service, running

load_all_checks()
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)
LIMITS: dict[str, Any] = {
    "max_sessions": 8,
    "max_machine_memory": "1G",
    "max_pages_per_call": 4096,
    "max_advance": "1s",
    "max_answer": "64K",
    "max_snapshots": 4,
}


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    with running(**LIMITS) as service:
        yield service


@pytest.fixture
def target(small: Service) -> Client:
    return small.session(machine={"memory": "256M"})


SCHEMA = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = [operation.ok() for operation in SCHEMA.get_all_operations()]


def _has(operation: Any, mode: GenerationMode) -> bool:
    """True when there is something to get wrong, or getting it right is asked for."""
    return mode is GenerationMode.POSITIVE or bool(operation.body or operation.query)


def _aim(case: Any, target: Client) -> None:
    """Make a case meet a session and a process that live, and let no stream stay open."""
    if "sid" in case.path_parameters:
        victim = case.method == "DELETE" and case.path.endswith("{sid}")
        case.path_parameters["sid"] = target.service.session(machine={"memory": "64M"}).id if victim else target.id
    if "pid" in case.path_parameters:
        case.path_parameters["pid"] = str(target.spawn(catch_signals=True))
    if case.path.endswith("/events"):
        case.headers = {"Accept": "application/json"}
        if isinstance(case.query, dict):
            case.query.pop("wait", None)


CASES = [
    pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    if _has(operation, mode)
]


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_the_contract_holds(operation: Any, mode: GenerationMode, target: Client) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=6,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case: Any) -> None:
        _aim(case, target)
        case.call_and_validate(base_url=target.service.url, timeout=120, checks=CHECKS.get_by_names(list(NAMES)))

    check()
    for session in target.service.http.get("/v1/sessions").json()["items"]:
        if session["id"] != target.id:
            target.service.http.delete(f"/v1/sessions/{session['id']}")
