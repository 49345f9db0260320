"""Terminals over supervisors in memory and real ones."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import Conflict, InvalidRequest, LinkLost, NotFound, QuotaExceeded
from sandbox.link.link import Link
from sandbox.outputs.eventlog import EventLog
from sandbox.outputs.plain import is_plain, plain
from sandbox.policy.models import Limits
from sandbox.terminals.models import TerminalView
from sandbox.terminals.readers import MAX_READERS, NEW_TEXT_BYTES, new_text
from sandbox.terminals.terminals import Terminals

from ...support.machines import Machine, fake_machine, host_machine
from ...support.waiting import until

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def attached(machine: Machine) -> AsyncIterator[tuple[Terminals, Link]]:
    terminals = Terminals(Limits(terminals=2))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(terminals.run)
        link = await machine.connect()
        await terminals.attach(link)
        yield terminals, link
        tasks.cancel_scope.cancel()


@pytest.fixture
async def terminals() -> AsyncIterator[Terminals]:
    async with fake_machine() as (machine, _), attached(machine) as (terminals, _):
        yield terminals


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Terminals]:
    async with host_machine(tmp_path) as machine, attached(machine) as (terminals, _):
        yield terminals


async def shown(terminals: Terminals, terminal_id: str, text: str) -> TerminalView:
    """Read until a text stands on the screen."""
    with anyio.fail_after(30):
        while True:
            view = await terminals.read(terminal_id, 1)
            if any(text in line for line in view.screen):
                return view


async def test_what_is_typed_is_shown_and_new_only_once(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    first = await terminals.read(terminal_id, 1)
    await terminals.write(terminal_id, "echo hello", ["enter"])
    second = await terminals.read(terminal_id, 1)
    third = await terminals.read(terminal_id)

    assert first.new_text == "$ "
    assert second.new_text == "echo hello\nhello\n$ "
    assert second.screen[:3] == ["$ echo hello", "hello", "$"]
    assert (second.cursor.row, second.cursor.col) == (3, 3)
    assert third.new_text == ""
    assert third.screen == second.screen


@pytest.mark.timed
async def test_reading_without_waiting_answers_at_once(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    await terminals.read(terminal_id, 1)

    with anyio.fail_after(0.5):
        assert (await terminals.read(terminal_id)).new_text == ""


@pytest.mark.timed
async def test_reading_waits_no_longer_than_asked(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    await terminals.read(terminal_id, 1)

    with anyio.fail_after(2):
        assert (await terminals.read(terminal_id, 0.2)).new_text == ""


async def test_the_end_of_the_program_is_told_and_nothing_can_be_typed_then(
    terminals: Terminals,
) -> None:
    terminal_id = (await terminals.open()).terminal_id
    await terminals.write(terminal_id, "exit", ["enter"])
    with anyio.fail_after(5):
        view = await terminals.read(terminal_id, 3)
        while view.alive:
            view = await terminals.read(terminal_id, 3)

    assert view.exit_code == 0
    with pytest.raises(Conflict):
        await terminals.write(terminal_id, "x")
    (info,) = terminals.infos
    assert not info.alive


async def test_a_closed_terminal_is_gone_and_leaves_room(terminals: Terminals) -> None:
    first = await terminals.open()
    await terminals.open()
    with pytest.raises(QuotaExceeded):
        await terminals.open()
    closed = await terminals.close(first.terminal_id)

    assert not closed.alive
    with pytest.raises(NotFound):
        await terminals.read(first.terminal_id)
    await terminals.open()


@pytest.mark.parametrize(("rows", "cols"), [(0, 80), (24, 0), (501, 80), (24, 1001), (-1, 80)])
async def test_sizes_without_sense_are_refused(terminals: Terminals, rows: int, cols: int) -> None:
    with pytest.raises(InvalidRequest):
        await terminals.open(rows=rows, cols=cols)
    assert terminals.infos == ()


async def test_too_much_at_once_is_refused(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    with pytest.raises(InvalidRequest):
        await terminals.write(terminal_id, "x" * 65_537)
    with pytest.raises(InvalidRequest):
        await terminals.write(terminal_id, "", ["enter"] * 1001)


async def test_a_terminal_goes_on_over_the_next_link() -> None:
    async with fake_machine() as (machine, _), attached(machine) as (terminals, link):
        terminal_id = (await terminals.open()).terminal_id
        await terminals.read(terminal_id, 1)
        await link.aclose()
        with pytest.raises(LinkLost):
            await terminals.write(terminal_id, "x")
        await terminals.attach(await machine.connect())
        await until(lambda: True)
        await terminals.write(terminal_id, "echo on", ["enter"])
        view = await terminals.read(terminal_id, 1)

    assert view.new_text == "echo on\non\n$ "


async def test_the_next_controller_finds_terminals_with_their_screens() -> None:
    async with fake_machine() as (machine, _):
        async with attached(machine) as (terminals, link):
            terminal_id = (await terminals.open(rows=10, cols=40)).terminal_id
            await terminals.write(terminal_id, "echo before", ["enter"])
            await shown(terminals, terminal_id, "$ echo before")
            await link.aclose()
        async with attached(machine) as (terminals, _):
            (info,) = terminals.infos
            view = await shown(terminals, terminal_id, "$ echo before")

    assert (info.terminal_id, info.rows, info.cols) == (terminal_id, 10, 40)
    assert view.screen[1] == "before"


async def test_a_shell_a_repl_and_keys_work_for_real(real: Terminals) -> None:
    terminal_id = (await real.open(rows=10, cols=60)).terminal_id
    await real.write(terminal_id, "PS1='> '; echo $((6 * 7))-$(stty size)", ["enter"])
    sizes = await shown(real, terminal_id, "42-10 60")
    await real.write(terminal_id, f"{sys.executable} -q", ["enter"])
    await shown(real, terminal_id, ">>>")
    await real.write(terminal_id, "print('a' * 3)", ["enter"])
    await shown(real, terminal_id, "aaa")
    await real.write(terminal_id, "import time; time.sleep(60)", ["enter"])
    await anyio.sleep(0.2)
    await real.write(terminal_id, keys=["ctrl-c"])
    interrupted = await shown(real, terminal_id, "KeyboardInterrupt")
    await real.write(terminal_id, keys=["ctrl-d"])
    await real.resize(terminal_id, 12, 70)
    await real.write(terminal_id, "clear; stty size", ["enter"])
    resized = await shown(real, terminal_id, "12 70")

    assert all(is_plain(view.new_text) for view in (sizes, interrupted, resized))
    assert len(resized.screen) == 12


async def test_a_program_that_draws_the_whole_screen_can_be_used(
    real: Terminals, tmp_path: Path
) -> None:
    program = tmp_path / "menu.py"
    program.write_text(
        "import curses\n"
        "def main(screen):\n"
        "    chosen = 0\n"
        "    while True:\n"
        "        screen.erase()\n"
        "        for n, name in enumerate(['tea', 'coffee', 'leave']):\n"
        "            screen.addstr(2 + n, 4, ('* ' if n == chosen else '  ') + name)\n"
        "        key = screen.getch()\n"
        "        if key == curses.KEY_DOWN: chosen += 1\n"
        "        elif key == 10: return\n"
        "curses.wrapper(main)\n"
        "print('chose', 'well')\n"
    )
    terminal_id = (await real.open()).terminal_id
    await real.write(terminal_id, f"TERM=xterm {sys.executable} {program}", ["enter"])
    menu = await shown(real, terminal_id, "* tea")
    await real.write(terminal_id, keys=["down", "down"])
    moved = await shown(real, terminal_id, "* leave")
    await real.write(terminal_id, keys=["enter"])
    after = await shown(real, terminal_id, "chose well")

    assert menu.screen[2:5] == ["    * tea", "      coffee", "      leave"]
    assert moved.screen[4] == "    * leave"
    assert not any("coffee" in line for line in after.screen)


async def test_a_flood_is_bounded_and_the_screen_shows_its_end(real: Terminals) -> None:
    terminal_id = (await real.open()).terminal_id
    await real.write(terminal_id, "seq 1 300000; echo the-end", ["enter"])
    views: list[TerminalView] = []
    with anyio.fail_after(60):
        while not views or not any(line == "the-end" for line in views[-1].screen):
            views.append(await real.read(terminal_id, 2))

    assert max(len(view.new_text) for view in views) <= 64 * 1024
    assert sum(view.dropped_bytes for view in views) > 0
    assert "300000" in views[-1].screen


# --- what is pasted, and what ends a wait

SHELL_PROMPT = "PS1='here> '"
MAKEFILE = "all:\n\techo hi\n\n\techo you\n"


@pytest.fixture
async def shell(real: Terminals) -> str:
    terminal_id = (await real.open(rows=20, cols=70)).terminal_id
    await real.read(terminal_id, 20)
    await real.write(terminal_id, SHELL_PROMPT, ["enter"])
    await shown(real, terminal_id, "here>")
    return terminal_id


async def test_a_heredoc_arrives_as_it_is_written(real: Terminals, tmp_path: Path) -> None:
    terminal_id = (await real.open()).terminal_id  # at once, before it has shown a prompt
    text = f"cat > {tmp_path}/Makefile <<'EOF'\n{MAKEFILE}EOF\n"
    await real.write(terminal_id, text, may_paste=True)
    view = await real.read(terminal_id, 20)

    assert view.wait_ended == "prompt"
    assert (tmp_path / "Makefile").read_text() == MAKEFILE


async def test_lines_run_in_order_and_the_last_needs_enter(real: Terminals, shell: str) -> None:
    await real.write(shell, "a=1\necho $((a+1))-first\necho $((a+2))", may_paste=True)
    before = await real.read(shell, 1)
    await real.write(shell, "-second\n")
    after = await real.read(shell, 20)

    assert "2-first" not in before.screen
    assert after.wait_ended == "prompt"
    assert [line for line in after.screen if line in ("2-first", "3-second")] == [
        *("2-first", "3-second")
    ]


async def test_what_would_end_a_paste_does_not_leave_it(real: Terminals, shell: str) -> None:
    hostile = "cat <<'EOF'\n\x1b[20\x1b[201~1~\x1b[201~\recho $((6*7))\nEOF\n"
    await real.write(shell, hostile, may_paste=True)
    view = await real.read(shell, 20)

    assert "echo $((6*7))" in view.screen
    assert "42" not in view.screen


async def test_who_types_key_by_key_pastes_by_themselves(real: Terminals, shell: str) -> None:
    await real.write(shell, "\x1b[200~echo $((6*7))\n\x1b[201~")
    before = await real.read(shell, 1)
    await real.write(shell, "\n")
    after = await real.read(shell, 20)

    assert "42" not in before.screen
    assert "42" in after.screen


async def test_a_program_without_pastes_gets_the_text_as_it_is(
    real: Terminals, shell: str, tmp_path: Path
) -> None:
    await real.write(shell, f"cat > {tmp_path}/made\n")
    await real.read(shell, 0.5)
    await real.write(shell, MAKEFILE, ["ctrl-d"], may_paste=True)
    view = await real.read(shell, 20)

    assert view.wait_ended == "prompt"
    assert (tmp_path / "made").read_text() == MAKEFILE


async def test_a_wait_is_for_the_answer_and_not_for_the_echo(real: Terminals, shell: str) -> None:
    await real.write(shell, "sleep 1; echo made-$((6*7))\n")
    view = await real.read(shell, 20)

    assert "made-42" in view.screen
    assert view.wait_ended == "prompt"


async def test_a_wait_for_a_program_that_says_nothing_ends_in_time(
    real: Terminals, shell: str
) -> None:
    await real.write(shell, "sleep 30\n")
    view = await real.read(shell, 1)
    await real.write(shell, keys=["ctrl-c"])
    stopped = await real.read(shell, 20)

    assert view.wait_ended == "time"
    assert stopped.wait_ended == "prompt"


async def test_a_wait_ends_when_a_program_falls_quiet(real: Terminals, shell: str) -> None:
    with anyio.fail_after(15):
        await real.write(shell, "echo asked; read answer\n")
        view = await real.read(shell, 30)
        await real.write(shell, "x\n")
        answered = await real.read(shell, 30)

    assert "asked" in view.screen
    assert (view.wait_ended, answered.wait_ended) == ("quiet", "prompt")


async def test_a_repls_prompt_ends_a_wait_however_short_its_answer(
    real: Terminals, shell: str
) -> None:
    await real.write(shell, f"{sys.executable} -q\n")
    await shown(real, shell, ">>>")
    with anyio.fail_after(15):
        await real.write(shell, "1+1\n")
        view = await real.read(shell, 30)

    assert "2" in view.screen
    assert view.wait_ended == "prompt"


async def test_the_end_of_the_program_ends_a_wait(real: Terminals, shell: str) -> None:
    await real.write(shell, "exit 3\n")
    view = await real.read(shell, 20)

    assert (view.wait_ended, view.exit_code) == ("exit", 3)


async def test_nobody_waited_is_said_so(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id

    assert (await terminals.read(terminal_id)).wait_ended == ""


# --- many readers

LINES = [f"line {n}" for n in range(20)]


async def test_readers_take_nothing_away_from_each_other(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    await terminals.read(terminal_id, 1, reader="one")
    await terminals.write(terminal_id, "echo hello", ["enter"])
    first = await terminals.read(terminal_id, 1, reader="one")
    second = await terminals.read(terminal_id, 1, reader="two")
    again = await terminals.read(terminal_id, reader="two")

    assert first.new_text == "echo hello\nhello\n$ "
    assert second.new_text == "$ echo hello\nhello\n$ "
    assert first.screen == second.screen
    assert first.position == second.position == again.position
    assert again.new_text == ""


async def test_a_reader_says_where_it_was_and_is_told_the_same_again(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    start = (await terminals.read(terminal_id, 1)).position
    await terminals.write(terminal_id, "echo hello", ["enter"])
    once = await terminals.read(terminal_id, 1)
    twice = await terminals.read(terminal_id, after=start)
    future = await terminals.read(terminal_id, after=10**9)

    assert once.new_text == twice.new_text == "echo hello\nhello\n$ "
    assert (future.new_text, future.position, future.dropped_bytes) == ("", once.position, 0)


async def test_two_readers_and_one_who_follows_see_every_line(real: Terminals) -> None:
    terminal_id = (await real.open()).terminal_id
    seen = {"fast": "", "slow": ""}
    raw = bytearray()

    async def read(name: str, pause_s: float) -> None:
        while "the end" not in seen[name]:
            seen[name] += (await real.read(terminal_id, 1, reader=name)).new_text
            await anyio.sleep(pause_s)

    async def follow() -> None:
        async for got in real.follow(terminal_id):
            assert got.missed == 0
            raw.extend(b"".join(got.entries))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            async with anyio.create_task_group() as readers:
                readers.start_soon(read, "fast", 0)
                readers.start_soon(read, "slow", 0.2)
                code = "for n in $(seq 0 19); do echo line $n; sleep 0.02; done; echo the''\" end\""
                await real.write(terminal_id, code, ["enter"])
            await real.close(terminal_id)  # which ends the follower, too

    for text in (*seen.values(), raw.decode()):
        assert [line for line in text.splitlines() if line in LINES] == LINES


async def test_a_slow_reader_is_told_what_it_missed_and_slows_nobody(real: Terminals) -> None:
    terminal_id = (await real.open()).terminal_id
    start = (await real.read(terminal_id, 1, reader="slow")).position
    follower = real.follow(terminal_id, start)
    await real.write(terminal_id, "seq 1 200000; echo the-end", ["enter"])
    await shown(real, terminal_id, "the-end")
    late = await real.read(terminal_id, reader="slow")
    got = await anext(follower)
    await follower.aclose()

    assert late.dropped_bytes > 0
    assert "199999\n200000\nthe-end\n" in late.new_text
    assert late.position - start > late.dropped_bytes
    assert got.missed > 0


async def test_of_many_readers_the_one_away_longest_begins_anew(terminals: Terminals) -> None:
    terminal_id = (await terminals.open()).terminal_id
    for n in range(MAX_READERS):
        await terminals.read(terminal_id, 1, reader=str(n))
    await terminals.read(terminal_id, reader="0")
    await terminals.read(terminal_id, reader="another")

    assert (await terminals.read(terminal_id, reader="0")).new_text == ""
    assert (await terminals.read(terminal_id, reader="1")).new_text == "$ "


@given(
    st.lists(
        st.sampled_from(["ab\n", "é你", "\x1b[1;31m", "\x1b]0;title\x07", "\x9b0m", "c", "d\r\n"]),
        max_size=20,
    ),
    st.lists(st.integers(0, 120), max_size=6),
)
def test_wherever_reading_stops_nothing_is_garbled(written: list[str], stops: list[int]) -> None:
    """A reader may stop within a character or an escape sequence."""
    data = "".join(written).encode()
    log = EventLog.bytes_log(1 << 20, piece_bytes=16)
    at, position, text = 0, 0, ""
    for stop in sorted(min(stop, len(data)) for stop in (*stops, len(data))):
        if stop > at:
            log.append(data[at:stop])
        at = stop
        new = new_text(log, position)
        text, position = text + new.text, new.position

    assert text == plain("".join(written))
    assert position == len(data)


def test_what_was_written_long_ago_costs_a_reader_nothing() -> None:
    log = EventLog.bytes_log(1 << 20, piece_bytes=4096)
    log.append(b"x" * 500_000)

    assert new_text(log, log.end).text == ""
    late = new_text(log, 0)
    assert len(late.text) == NEW_TEXT_BYTES
    assert late.dropped == 500_000 - NEW_TEXT_BYTES
