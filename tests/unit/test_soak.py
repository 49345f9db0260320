"""What `make soak` calls a leak, and what it says of a soak."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from scripts.census import MEMORY_BYTES, MOST, TASKS, Census, trend_bytes
from scripts.soak import Report
from tests.support.neighbour import MIB, Answer

CALM = Census(tasks=Counter(serve=10), threads=20, descriptors=60, memory_bytes=150 * MIB)
ANSWERS = [Answer(0.0, 0.1, ""), Answer(1.0, 1.1, "")]


def calm() -> Report:
    return Report(opens=[0.1] * 3, cells=[0.01] * 3, answers=ANSWERS, counts=[CALM, CALM])


def test_what_comes_and_goes_by_itself_is_no_leak() -> None:
    more = replace(
        CALM,
        tasks=CALM.tasks + Counter(serve=TASKS),
        threads=CALM.threads + MOST["threads"],
        memory_bytes=CALM.memory_bytes + MEMORY_BYTES,
    )
    assert more.grown_since(CALM) == []


@pytest.mark.parametrize("name", sorted(MOST))
def test_one_more_than_that_is_told(name: str) -> None:
    more = replace(CALM, **{name: getattr(CALM, name) + MOST[name] + 1})
    assert more.grown_since(CALM) == [f"{MOST[name] + 1} more {name}"]


def test_tasks_that_stay_are_told_by_what_they_run() -> None:
    more = replace(CALM, tasks=CALM.tasks + Counter({"Stream.read": TASKS + 1}))
    assert more.grown_since(CALM) == [f"{TASKS + 1} more tasks: {TASKS + 1} × Stream.read"]


def test_memory_that_grows_is_told() -> None:
    more = replace(CALM, memory_bytes=CALM.memory_bytes + MEMORY_BYTES + MIB)
    assert more.grown_since(CALM) == ["33.0 MiB more memory"]


def test_less_is_no_leak() -> None:
    assert Census().grown_since(CALM) == []


@pytest.mark.parametrize(
    ("sizes", "slope"), [([], 0), ([5], 0), ([1, 2, 3], 1), ([3, 3, 3], 0), ([4, 2, 0], -2)]
)
def test_the_trend_is_what_memory_grows_by_from_one_round_to_the_next(
    sizes: list[int], slope: float
) -> None:
    assert trend_bytes(sizes) == pytest.approx(slope)


def test_a_soak_without_faults_says_so() -> None:
    assert calm().faults() == []
    assert calm().lines()[-1] == "zero errors, zero orphans, nothing grows"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"opens": []}, "nothing was done"),
        ({"counts": [CALM]}, "nothing was compared"),
        ({"answers": []}, "the official client was not heard"),
        ({"wrong": Counter(["a cell answered '3'"])}, "1 times a cell answered '3'"),
        ({"left": ["container 1"]}, "left: container 1"),
        ({"log": ["ERROR x"]}, "logged: ERROR x"),
        ({"record": "the record is not whole"}, "the record is not whole"),
        ({"counts": [CALM, replace(CALM, containers=1)]}, "leak: 1 more containers"),
    ],
)
def test_each_thing_that_is_wrong_is_a_fault(change: dict[str, object], told: str) -> None:
    assert replace(calm(), **change).faults() == [told]
