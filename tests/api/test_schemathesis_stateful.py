"""The service keeps its contract over whole stories: requests follow the document's links, from session to process to mapping to touch."""

import copy
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.checks import CHECKS, load_all_checks

from app.main import create_app
from app.schemas.links import operations
from app.settings import Settings
from tests.api.client import Service, running
from tests.api.test_schemathesis import LIMITS

load_all_checks()
NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "use_after_free",
)
SEEDS, STORIES, STEPS = 4, 8, 15
DOCUMENT = create_app(Settings()).openapi()


def problems_are_problems(ctx: Any, response: Any, case: Any) -> None:
    """Every refusal is a problem document that says why."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"][0] == "application/problem+json", response.headers
    document = response.json()
    assert document["status"] == response.status_code and document["detail"] and document["request_id"]


@pytest.fixture(scope="module")
def small() -> Any:
    with running(**LIMITS | {"max_sessions": 500}) as service:
        yield service


def tell(story: Any, number: int) -> None:
    """Some stories from one seed. Session ids are made by chance, so the same draws may lead elsewhere: hypothesis calls that flaky and stops."""
    seed(number)(story)
    with suppress(FlakyStrategyDefinition):
        story.run(
            settings=settings(
                max_examples=STORIES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
        )


def test_stories_along_the_links(small: Service) -> None:
    schema = schemathesis.openapi.from_dict(copy.deepcopy(DOCUMENT))
    schema.config.update(base_url=small.url)
    seen: set[str] = set()
    outcomes: dict[int, int] = {}
    broken: list[str] = []

    class Story(schema.as_state_machine()):  # type: ignore[misc]
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"timeout": 120}

        def before_call(self, case: Any) -> None:
            if case.path.endswith("/events"):  # no stream stays open
                case.headers = {"Accept": "application/json"}
                if isinstance(case.query, dict):
                    case.query.pop("wait", None)

        def after_call(self, response: Any, case: Any) -> None:
            seen.add(case.operation.label)
            outcomes[response.status_code] = outcomes.get(response.status_code, 0) + 1

        def validate_response(self, response: Any, case: Any, additional_checks: Any = None, **kwargs: Any) -> None:
            try:
                case.validate_response(response, checks=CHECKS.get_by_names(list(NAMES)), additional_checks=[problems_are_problems])
            except BaseException as error:
                broken.append(f"{case.method} {response.request.url} {response.status_code}: {error}")
                raise

    for number in range(SEEDS):
        tell(Story, number)
    assert broken == [], broken[0]
    assert len(seen) > 15, seen
    assert outcomes.get(200, 0) + outcomes.get(201, 0) + outcomes.get(204, 0) > SEEDS * 4, outcomes
    assert all(small.inside(item["id"]).frozen is None for item in small.http.get("/v1/sessions?page_size=500").json()["items"])


def test_every_link_names_an_operation_and_its_parameters() -> None:
    found = {operation["operationId"]: operation for _, operation in operations(DOCUMENT["paths"])}
    links = [
        (name, link)
        for operation in found.values()
        for answer in operation["responses"].values()
        for name, link in answer.get("links", {}).items()
    ]
    assert len(links) > 60
    for name, link in links:
        target = found[link["operationId"]]
        assert name == link["operationId"]
        assert set(link["parameters"]) == {item["name"] for item in target["parameters"] if item["in"] == "path"}, name
