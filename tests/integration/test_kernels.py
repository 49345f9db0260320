"""Kernels, terminals and files of real containers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sandbox.errors import Conflict, FileError
from sandbox.kernels.models import ExecutionResult
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.terminals.models import TerminalView

from ..support.controllers import text_of
from ..support.waiting import until

ALICE = Caller("alice")

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session(manager: SessionManager) -> Session:
    return await manager.open(ALICE)


async def execute(
    session: Session, code: str, *, timeout_s: float = 120, kernel_id: str = ""
) -> ExecutionResult:
    async with session.use():
        execution = await session.kernels.execute(code, timeout_s=timeout_s, kernel_id=kernel_id)
        with anyio.fail_after(180):
            return await execution.wait()


async def shown(session: Session, terminal_id: str, text: str) -> TerminalView:
    """Read until a text stands on the screen."""
    with anyio.fail_after(60):
        while True:
            view = await session.terminals.read(terminal_id, 2)
            if any(text in line for line in view.screen):
                return view


async def test_running_out_of_memory_is_named_as_the_cause_and_the_session_goes_on(
    session: Session,
) -> None:
    result = await execute(session, "hog = []\nwhile True: hog.append(bytearray(50_000_000))")
    with pytest.raises(Conflict, match="out of memory"):
        await execute(session, "1")
    async with session.use():
        info = await session.kernels.restart()
    after = await execute(session, "print('alive')")

    assert (result.status, result.state) == ("died", "lost")
    assert "out of memory" in (result.reason or "")
    assert info.state == "idle"
    assert text_of(after) == "alive\n"


async def test_a_cell_over_its_time_is_interrupted_or_its_kernel_restarted(
    session: Session,
) -> None:
    await execute(session, "import signal, time\nx = 1")
    kept = await execute(session, "time.sleep(60)", timeout_s=1)
    still = await execute(session, "print(x)")
    deaf = await execute(
        session, "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass", timeout_s=1
    )
    gone = await execute(session, "x")

    assert (kept.status, kept.state) == ("timeout", "kept")
    assert text_of(still) == "1\n"
    assert (deaf.status, deaf.state) == ("timeout", "restarted")
    assert gone.status == "error"


async def test_kernels_of_other_languages_run_beside_python(session: Session) -> None:
    async with session.use():
        specs = await session.kernels.kernelspecs()
        bash = await session.kernels.start("bash")
    result = await execute(session, "echo $((6 * 7)); pwd", kernel_id=bash.kernel_id)
    python = await execute(session, "print('still here')")

    assert {"python3", "bash"} <= set(specs)
    assert "42\n" in text_of(result)
    assert text_of(python) == "still here\n"


async def test_vim_top_and_a_repl_are_usable(session: Session) -> None:
    async with session.use():
        terminals = session.terminals
        terminal_id = (await terminals.open(rows=24, cols=80)).terminal_id
        await terminals.write(terminal_id, "echo $((6 * 7))", ["enter"])
        await shown(session, terminal_id, "42")
        await terminals.write(terminal_id, "top -b -n 1 | head -3", ["enter"])
        await shown(session, terminal_id, "load average")
        await terminals.write(terminal_id, "python3 -q", ["enter"])
        await shown(session, terminal_id, ">>>")
        await terminals.write(terminal_id, "print('x' * 5)", ["enter"])
        await shown(session, terminal_id, "xxxxx")
        await terminals.write(terminal_id, keys=["ctrl-d"])
        await terminals.write(terminal_id, "vi note.txt", ["enter"])
        await shown(session, terminal_id, "note.txt")
        await terminals.write(terminal_id, "ihello from vi", ["escape"])
        await terminals.write(terminal_id, ":wq", ["enter"])
        with anyio.fail_after(30):
            while True:
                try:
                    data, _ = await session.files.read_bytes("note.txt", 100)
                    break
                except FileError:
                    await anyio.sleep(0.05)

    assert data == b"hello from vi\n"


async def test_files_that_are_no_files_are_an_error_and_never_a_hang(session: Session) -> None:
    await execute(session, "import os\nos.mkfifo('fifo')\nos.symlink('loop', 'loop')")
    async with session.use():
        for path, reasons in [
            ("fifo", {"not_a_file"}),
            ("/dev/zero", {"not_a_file"}),
            ("loop", {"io_error", "not_found", "not_a_file", "invalid_name"}),
            ("/etc/shadow", {"permission_denied", "not_found"}),
        ]:
            with anyio.fail_after(10), pytest.raises(FileError) as caught:
                await session.files.read_bytes(path, 100)
            assert caught.value.reason in reasons
        with pytest.raises(FileError) as caught:
            await session.files.write("/etc/note", b"x")

    assert caught.value.reason in {"read_only", "permission_denied"}


async def test_a_large_file_goes_in_and_out_unchanged(session: Session) -> None:
    piece = bytes(range(256)) * 256
    async with session.use():

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield piece

        stat = await session.files.write("large", pieces())
        size = 0
        async with await session.files.open_read("large") as reading:
            async for part in reading:
                assert part[:1] == bytes([size % 256])
                size += len(part)

    assert stat.size == size == 1000 * len(piece)


async def test_an_interrupt_from_beside_stops_the_cell_that_runs(session: Session) -> None:
    async with session.use():
        execution = await session.kernels.execute("import time\nprint('on')\ntime.sleep(60)")
        await until(lambda: bool(execution.snapshot().outputs))
        await session.kernels.interrupt()
        with anyio.fail_after(20):
            result = await execution.wait()

    assert (result.status, result.state) == ("interrupted", "kept")
