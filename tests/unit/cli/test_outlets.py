"""A terminal is put back whatever ends the command that wrote to it."""

from __future__ import annotations

import os
import pty
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from sandbox.cli.outlets import Sink
from sandbox.cli.printing import Printer

from ...support.results import result, stream

pytestmark = pytest.mark.anyio

SCREEN = "\x1b[?1049h\x1b[?1003h"
BACK = b"\x1b[?1049l\x1b[?1003l"


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: what shows, and what is written to."""
    here, there = pty.openpty()
    yield here, there
    os.close(here)
    os.close(there)


def read_until(here: int, wanted: bytes) -> bytes:
    """What shows, up to what is wanted; a terminal gives it in pieces as it likes."""
    got = b""
    while wanted not in got:
        assert select.select([here], [], [], 5)[0], f"only {got!r} was shown"
        got += os.read(here, 4096)
    return got


async def test_a_sink_puts_its_terminal_back_also_while_all_is_cancelled(
    terminal: tuple[int, int],
) -> None:
    here, there = terminal
    sink = Sink(there)
    with anyio.CancelScope() as ending:
        try:
            await sink.write(SCREEN.encode())
            ending.cancel()
            await anyio.sleep_forever()
        finally:
            await sink.close()
    end = BACK + b"\x1b7\x1b[r\x1b8\x1b[4l\x1b[m\x1b(B\x0f\x1b>"
    assert read_until(here, end).endswith(end)


async def test_a_printer_puts_its_terminal_back_before_an_execution_has_ended(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, there = terminal
    with os.fdopen(os.dup(there), "w") as shown:
        monkeypatch.setattr(sys, "stdout", shown)
        printer = Printer(tmp_path, "x")
        printer.show(result(stream(SCREEN), status="running").outputs)
        printer.restore()
    read_until(here, BACK)
