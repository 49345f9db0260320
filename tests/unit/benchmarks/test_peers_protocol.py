"""The conversation between the driver of `make bench-peers` and an adapter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.protocol import Adapter, AdapterFailed, AdapterGone, AdapterLacks

CONTENDER = Path(__file__).with_name("peercontender.py")


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Adapter]:
    started = Adapter([sys.executable, str(CONTENDER)], tmp_path / "log", {})
    try:
        started.ask("start", folder=str(tmp_path))
        yield started
    finally:
        started.end()


def test_code_runs_in_a_session_that_keeps_its_variables(adapter: Adapter) -> None:
    session = adapter.ask("open").value
    adapter.ask("run", session=session, code="x = 41")
    told = adapter.ask("run", session=session, code="print(x + 1)", times=3)
    assert told.value["text"] == "42\n"
    assert len(told.value["seconds"]) == 3
    assert 0 < sum(told.value["seconds"]) <= told.seconds


def test_repetition_ends_when_its_time_is_over(adapter: Adapter) -> None:
    session = adapter.ask("open").value
    told = adapter.ask("run", session=session, code="pass", times=50, at_most_s=0)
    assert len(told.value["seconds"]) == 1


def test_of_a_long_output_the_beginning_and_the_length_are_told(adapter: Adapter) -> None:
    session = adapter.ask("open").value
    told = adapter.ask("run", session=session, code="print('x' * 9999)").value
    assert told["length"] == 10_000
    assert len(told["text"]) < 10_000
    assert adapter.ask("output", session=session, code="print('x' * 9)").value == {"length": 10}


def test_what_a_contender_prints_goes_to_the_log(adapter: Adapter, tmp_path: Path) -> None:
    adapter.ask("open")
    adapter.stop()
    assert "what a contender prints" in (tmp_path / "log").read_text()


def test_what_is_lacking_and_what_fails_are_told_apart(adapter: Adapter, tmp_path: Path) -> None:
    session = adapter.ask("open").value
    with pytest.raises(AdapterLacks, match="files go in and stay"):
        adapter.ask("get", session=session, name="a", target=str(tmp_path / "b"))
    with pytest.raises(AdapterFailed, match="restart: ValueError: it cannot be had"):
        adapter.ask("restart", session=session)
    assert adapter.is_running


def test_a_file_goes_in(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    session = adapter.ask("open").value
    adapter.ask("put", session=session, source=str(tmp_path / "a"), name="a")
    assert (tmp_path / "in-a").read_text() == "text"


def test_an_adapter_that_ends_is_gone(adapter: Adapter) -> None:
    session = adapter.ask("open").value
    adapter.ask("run", session=session, code="is_fatal = True")
    with pytest.raises(AdapterGone):
        adapter.ask("close", session=session)
    with pytest.raises(AdapterGone):
        adapter.ask("open")


def test_an_adapter_that_does_not_answer_is_ended(adapter: Adapter) -> None:
    session = adapter.ask("open").value
    with pytest.raises(AdapterGone, match="no answer in 0 s"):
        adapter.ask("run", timeout_s=0.1, session=session, code="import time; time.sleep(60)")
    assert not adapter.is_running


def test_programs_are_counted_and_one_that_fails_is_told(adapter: Adapter) -> None:
    programs = {"code": "print(1 + 1)", "for_s": 0.05, "workers": 1}
    told = adapter.ask("programs", expected="2", **programs).value
    assert told["done"] >= 1
    assert told["seconds"] > 0
    with pytest.raises(AdapterFailed, match="a program printed '2'"):
        adapter.ask("programs", expected="3", **programs)
