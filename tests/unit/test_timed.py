"""What holds a bound on wall-clock time is tried again, and nothing else."""

from __future__ import annotations

import pytest


@pytest.mark.timed
def test_a_test_that_is_timed_is_tried_up_to_three_times(request: pytest.FixtureRequest) -> None:
    flaky = request.node.get_closest_marker("flaky")
    assert flaky is not None
    assert flaky.kwargs == {"reruns": 2}


def test_any_other_test_is_tried_once(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("flaky") is None
