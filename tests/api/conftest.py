"""The service that the tests of this folder share; every test talks to it as a client does."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.api.client import Client, Service, running


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    with running(max_sessions=10_000) as service:
        yield service


@pytest.fixture(scope="session")
def special() -> Callable[..., Any]:
    """Starts a service with settings of the test's own."""
    return running


@pytest.fixture
def session(service: Service) -> Iterator[Client]:
    client = service.session(seed=1)
    yield client
    service.http.delete(client.path)
