"""What every test shares: asyncio, the only backend of the link, and tries of what is timed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
# For the run that decides whether a commit is good: what passed once passes again. Every other run
# looks for examples that none has tried.
settings.register_profile("same again", settings.get_profile("any machine"), derandomize=True)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Try a test that holds a bound on time up to three times, with new fixtures of its own."""
    if config.option.usepdb:  # with which no test can be tried again
        return
    for item in items:
        if item.get_closest_marker("timed"):
            item.add_marker(pytest.mark.flaky(reruns=2))
