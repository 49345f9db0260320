"""What cells write: read at once when it is little, in larger pieces when it is a flood."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import anyio
import pytest

from sandbox.supervisor import cellpipes
from sandbox.supervisor.cellpipes import PIECES_AT_ONCE, CellPipes

pytestmark = pytest.mark.anyio

LIMIT_S = 30


class Written:
    """Pipes of a cell, both ends, and what was made of what they carried."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str]] = []
        self.before = 0
        self.pipes = CellPipes(self._before, self._output)
        self.pair, self.ends = self.pipes.make()

    def _before(self) -> None:
        self.before += 1

    def _output(self, parts: list[bytes]) -> None:
        content = json.loads(parts[4])
        self.got.append((content["name"], content["text"]))

    def write(self, text: str, end: int = 0) -> None:
        os.write(self.ends[end], text.encode())

    async def until(self, count: int) -> None:
        with anyio.fail_after(LIMIT_S):
            while len(self.got) < count:
                await anyio.sleep(0.001)

    async def flood(self) -> None:
        """Write until what comes next is let gather."""
        for n in range(PIECES_AT_ONCE):
            self.write(f"{n} ")
            await self.until(n + 1)
        assert self.pair.timer is not None
        self.got.clear()


@pytest.fixture
async def written(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Written]:
    monkeypatch.setattr(cellpipes, "SOON_S", LIMIT_S)  # however slow this machine is
    made = Written()
    yield made
    made.pipes.close()
    for end in made.ends:
        os.close(end)


@pytest.fixture
async def waiting(written: Written) -> Written:
    """Of a flood that gathers for longer than the test takes."""
    written.pair.gather_s = 10 * LIMIT_S
    await written.flood()
    return written


async def test_what_is_little_is_a_message_of_its_own(written: Written) -> None:
    for n in range(PIECES_AT_ONCE):
        written.write(f"{n}")
        await written.until(n + 1)
    assert written.got == [("stdout", f"{n}") for n in range(PIECES_AT_ONCE)]


async def test_what_follows_fast_is_let_gather_and_is_one_message(written: Written) -> None:
    written.pair.gather_s = 0.1
    await written.flood()
    for n in range(500):
        written.write(f"line {n}\n")
    await written.until(1)
    assert written.got == [("stdout", "".join(f"line {n}\n" for n in range(500)))]


async def test_a_flood_that_ends_is_followed_at_once_again(written: Written) -> None:
    written.pair.gather_s = 0.1
    await written.flood()
    with anyio.fail_after(LIMIT_S):
        while written.pair.timer is not None:
            await anyio.sleep(0.001)
    written.pair.gather_s = 10 * LIMIT_S
    written.write("again")
    await written.until(1)
    assert written.got == [("stdout", "again")]


async def test_what_has_gathered_comes_before_what_the_other_stream_has(waiting: Written) -> None:
    waiting.write("out")
    waiting.write("err", 1)
    await waiting.until(2)
    assert waiting.got == [("stdout", "out"), ("stderr", "err")]


async def test_of_what_came_at_once_stdout_comes_first_whatever_came_last(written: Written) -> None:
    written.write("warning", end=1)
    await written.until(1)
    written.write("job 1")
    written.write("all done", end=1)
    await written.until(3)
    assert written.got == [("stderr", "warning"), ("stdout", "job 1"), ("stderr", "all done")]


async def test_who_waits_for_what_has_gathered_gets_it_read(waiting: Written) -> None:
    waiting.write("out")
    waiting.pipes.hasten(waiting.pair)
    await waiting.until(1)
    assert waiting.got == [("stdout", "out")]


async def test_messages_are_handled_between_what_is_there_and_what_is_read(
    waiting: Written,
) -> None:
    waiting.before = 0
    waiting.pipes.hasten(waiting.pair)  # nothing is there: what came now might be behind a message
    await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()
    assert (waiting.before, waiting.got) == (0, [])
    waiting.write("out")
    waiting.pipes.hasten(waiting.pair)
    await waiting.until(1)
    assert waiting.before == 1


async def test_what_gathers_waits_while_reading_is_stopped(waiting: Written) -> None:
    waiting.pipes.pause()
    waiting.write("out")
    waiting.write("err", 1)
    waiting.pipes.hasten(waiting.pair)
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
    assert waiting.got == []
    waiting.pipes.resume()
    await waiting.until(2)
    assert sorted(waiting.got) == [("stderr", "err"), ("stdout", "out")]


async def test_a_long_text_is_cut_into_messages_between_characters(written: Written) -> None:
    text = "ü" * 110_000
    with anyio.fail_after(LIMIT_S):
        await anyio.to_thread.run_sync(written.write, text)
        while sum(len(each) for _, each in written.got) < len(text):
            await anyio.sleep(0.001)
    assert "".join(each for _, each in written.got) == text
    assert max(len(each) for _, each in written.got) <= cellpipes.TEXT_LENGTH
