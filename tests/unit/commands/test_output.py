"""What is set aside of a command's output because it takes the controller too long."""

from __future__ import annotations

import time

import anyio
import pytest

from sandbox.bulkheads.overruns import Overruns
from sandbox.commands.command import Command
from sandbox.commands.models import CommandRecord
from sandbox.commands.report import SET_ASIDE, report
from sandbox.link import wire
from sandbox.outputs.denials import DenialLog
from sandbox.outputs.redaction import Pieces, Redactor

pytestmark = pytest.mark.anyio


def command(overruns: Overruns) -> Command:
    record = CommandRecord(
        command_id="c-1", session_id="s-1", command="x", started_at=time.time(), timeout_s=9
    )
    return Command(
        record, None, limit_bytes=1000, denials=DenialLog(), redactor=Redactor(), overruns=overruns
    )


def spin(*_args: object) -> bytes:
    """Take longer than any section may."""
    began = time.thread_time()
    while time.thread_time() - began < 5:
        pass
    return b""


async def test_a_piece_that_takes_too_long_is_set_aside_and_the_next_ones_are_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    overruns = Overruns()
    running = command(overruns)
    running.take(wire.BYTES, b"before\n")
    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "feed", spin)
        running.take(wire.BYTES, b"x" * 50)
    running.take(wire.BYTES, b"after\n")
    running.conclude({"exit_code": 0})
    result = report(running)
    assert overruns.count == 1
    assert "after\n" in result.stdout
    assert "before" not in result.stdout
    assert result.truncated_bytes == 57
    with anyio.fail_after(5):
        reads = [got async for got in running.follow()]
    assert sum(got.missed for got in reads) == 57
    assert [piece.data for got in reads for piece in got.entries] == [b"after\n"]


async def test_a_text_that_takes_too_long_to_make_is_told_and_not_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running = command(Overruns())
    running.take(wire.STDERR, b"x" * 50)
    running.conclude({"exit_code": 0})
    monkeypatch.setattr("sandbox.commands.report.plain", spin)
    result = report(running)
    assert (result.status, result.exit_code, result.stderr) == ("exited", 0, "")
    assert result.reason == SET_ASIDE
    assert result.truncated_bytes == 50
