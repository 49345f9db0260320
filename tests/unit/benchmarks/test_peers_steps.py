"""The order of a run beside the peers, and what one step of it yields."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.contenders import Contender
from benchmarks.peers.protocol import Adapter, AdapterGone
from benchmarks.peers.samples import Run
from benchmarks.peers.steps import Measuring, plan

CONTENDER = Contender("docker", "docker run", "fake", keeps="variables", about="")


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    program = Path(__file__).with_name("peercontender.py")
    started = Adapter([sys.executable, str(program)], tmp_path / "log", {})
    try:
        started.ask("start", folder=str(tmp_path))
        yield started
    finally:
        started.end()


def test_contenders_take_turns_and_each_turn_begins_with_another() -> None:
    steps = plan(["a", "b"], rounds=2, bulks=1, programs=1)
    assert [step.key for step in steps] == [
        *("alone 0 a", "alone 0 b"),
        *("round 0 a", "round 0 b", "round 1 b", "round 1 a"),
        *("bulk 0 a", "bulk 0 b", "programs 0 a", "programs 0 b"),
    ]


def test_a_round_measures_what_there_is_and_notes_the_rest(
    adapter: Adapter, tmp_path: Path
) -> None:
    run = Run({})
    measuring = Measuring(run, CONTENDER, adapter, tmp_path)
    (tmp_path / "pandas.py").touch()  # what is measured imports it: an empty one will do
    adapter.ask(
        "run",
        session=adapter.ask("open").value,
        code=f"import sys; sys.path[:0] = [{str(tmp_path)!r}]",
    )
    measuring.step("round", programs_s=0)
    samples, notes = run.samples["docker"], run.notes["docker"]
    assert set(samples) == {"open", "first", "next", "pandas", "close"}
    assert samples["first"][0] > samples["open"][0]
    assert len(samples["next"]) == 20
    assert notes == {
        "official": "one client only",
        "restart": "restart: ValueError: it cannot be had",
    }


def test_programs_become_a_rate(adapter: Adapter, tmp_path: Path) -> None:
    run = Run({})
    Measuring(run, CONTENDER, adapter, tmp_path).step("programs", programs_s=0.5)
    assert run.samples["docker"]["programs"][0] > 0


def test_an_adapter_that_is_gone_ends_the_step(adapter: Adapter, tmp_path: Path) -> None:
    adapter.end()
    run = Run({})
    with pytest.raises(AdapterGone):
        Measuring(run, CONTENDER, adapter, tmp_path).step("round", programs_s=0)
    assert "open" in run.notes["docker"]
