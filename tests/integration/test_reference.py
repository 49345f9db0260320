"""ipykernel is the reference: what it and our kernel say to the same, in one container."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable

import anyio
import pytest

from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.containers import container
from ..support.reference import Case, Transcript, ask_both, brief
from ..support.referencecells import CASES, DATA
from ..support.referenceprograms import PROGRAMS
from ..support.referencetable import DIFFERENCES, UNLIKE

pytestmark = pytest.mark.anyio

Said = dict[str, Transcript]


async def both(engine: DockerRuntime, policy: str, cases: Iterable[Case]) -> tuple[Said, Said]:
    with anyio.fail_after(500):
        async with container(engine, policy) as made, made.link() as link:
            return await ask_both(link, cases)


def shown(ours: Transcript, bare: Transcript) -> str:
    sides = (
        json.dumps(each, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
        for each in (bare, ours)
    )
    return "\n".join(list(difflib.unified_diff(*sides, "ipykernel", "ours", n=2))[:40])


async def test_ours_differs_from_ipykernel_only_where_the_table_says_why(
    engine: DockerRuntime,
) -> None:
    assert len(CASES) > 80
    ours, bare = await both(engine, "offline", CASES)
    always = {case for each in DIFFERENCES for case in (*each.cases, *each.ours)}
    assert always <= set(ours)
    unexplained = {
        case: shown(ours[case], bare[case])
        for case in ours
        if ours[case] != bare[case]
        and case not in UNLIKE
        and not any(
            each.explains(case, ours[case], bare[case])
            for each in DIFFERENCES
            if case in (*each.cases, *each.ours, *each.sometimes)
        )
    }
    assert not unexplained, "\n".join(f"{case}:\n{text}" for case, text in unexplained.items())
    for case, ending in UNLIKE.items():
        assert brief(ours[case])[-len(ending) :] == ending, case
    assert sorted(case for case in always if ours[case] == bare[case]) == []


async def test_data_frames_and_plots_are_the_same_to_the_last_byte(engine: DockerRuntime) -> None:
    ours, bare = await both(engine, "datascience", DATA)
    assert {case: shown(ours[case], bare[case]) for case in ours if ours[case] != bare[case]} == {}


async def test_programs_end_equal_on_both(engine: DockerRuntime) -> None:
    assert len(PROGRAMS) >= 20
    cases = [
        Case(f"{name} {number}", code, content={"stop_on_error": False})
        for name, codes in PROGRAMS.items()
        for number, code in enumerate(codes)
    ]
    ours, bare = await both(engine, "offline", cases)
    assert {case: brief(said) for case, said in ours.items()} == {
        case: brief(said) for case, said in bare.items()
    }
    assert all(brief(said) for said in ours.values())
