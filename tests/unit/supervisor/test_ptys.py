from __future__ import annotations

import uuid

import anyio
import pytest

from sandbox.errors import Conflict, InvalidRequest, NotFound
from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.stream import Stream

from ...support.supervisorprocess import SupervisorProcess

pytestmark = pytest.mark.anyio


async def open_terminal(link: Link, *argv: str, rows: int = 24, cols: int = 80) -> str:
    terminal_id = uuid.uuid4().hex
    await link.call(
        "terminal.open", terminal_id=terminal_id, rows=rows, cols=cols, argv=list(argv) or None
    )
    return terminal_id


async def attach(link: Link, terminal_id: str, after: int = 0) -> tuple[Stream, int]:
    stream = link.open("terminal.attach", terminal_id=terminal_id, after=after)
    return stream, (await stream.receive_json())["offset"]


async def read_until(stream: Stream, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        message = await stream.receive()
        assert message is not None
        assert message.tag == wire.BYTES, f"it ended: {message.data!r} after {seen!r}"
        seen += message.data
    return seen


async def test_a_shell_is_on_a_terminal_of_its_own(link: Link) -> None:
    with anyio.fail_after(10):
        stream, offset = await attach(link, await open_terminal(link, rows=31, cols=117))
        assert offset == 0
        await stream.send(b"stty size; echo $TERM; tty; exit 4\n")
        seen = await read_until(stream, b"/dev/pts/")
        assert b"31 117" in seen
        assert b"xterm-256color" in seen
        async for message in stream:
            if message.tag == wire.JSON:
                assert message.json() == {"exit_code": 4, "signal": None}


async def test_keys_that_interrupt_reach_the_foreground_program(link: Link) -> None:
    with anyio.fail_after(10):
        program = "trap 'echo caught' INT; echo ready; while :; do sleep 0.05; done"
        stream, _ = await attach(link, await open_terminal(link, "bash", "-c", program))
        await read_until(stream, b"ready")
        await stream.send(b"\x03")
        await read_until(stream, b"caught")


async def test_a_resize_reaches_the_program(link: Link) -> None:
    with anyio.fail_after(10):
        terminal_id = await open_terminal(
            link, "bash", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done"
        )
        stream, _ = await attach(link, terminal_id)
        await read_until(stream, b"ready")
        assert await link.call("terminal.resize", terminal_id=terminal_id, rows=50, cols=99) == {}
        await read_until(stream, b"50 99")
        [info] = [
            terminal
            for terminal in (await link.call("terminal.list"))["terminals"]
            if terminal["terminal_id"] == terminal_id
        ]
        assert (info["rows"], info["cols"], info["alive"]) == (50, 99, True)


async def test_a_terminal_lives_on_without_a_link_and_is_read_on(
    machine: SupervisorProcess,
) -> None:
    with anyio.fail_after(10):
        async with machine.link() as first:
            terminal_id = await open_terminal(first, "sh", "-c", "echo one; read x; echo got $x")
            stream, _ = await attach(first, terminal_id)
            seen = await read_until(stream, b"one\r\n")
        async with machine.link() as second:
            stream, offset = await attach(second, terminal_id, after=len(seen))
            assert offset == len(seen)
            await stream.send(b"two\n")
            await read_until(stream, b"got two")


async def test_only_the_last_of_a_flood_is_kept_when_nobody_reads(link: Link) -> None:
    with anyio.fail_after(30):
        terminal_id = await open_terminal(
            link, "sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo the end"
        )
        while True:
            [info] = [
                terminal
                for terminal in (await link.call("terminal.list"))["terminals"]
                if terminal["terminal_id"] == terminal_id
            ]
            if not info["alive"]:
                break
            await anyio.sleep(0.02)
        assert info["last_offset"] == 5_000_000 + len("the end\r\n")
        assert info["last_offset"] - info["first_offset"] == 1024 * 1024
        stream, offset = await attach(link, terminal_id, after=5)
        assert offset == info["first_offset"]
        seen = b"".join([m.data async for m in stream if m.tag == wire.BYTES])
    assert len(seen) == 1024 * 1024
    assert seen.endswith(b"xthe end\r\n")


async def test_a_flood_waits_for_an_attached_reader(link: Link) -> None:
    size = 8_000_000
    with anyio.fail_after(30):
        terminal_id = await open_terminal(
            link, "sh", "-c", f"read go; head -c {size} /dev/zero | tr '\\0' y; read stay"
        )
        stream, _ = await attach(link, terminal_id)
        await stream.send(b"\n")
        received = 0
        while received < size:
            message = await stream.receive()
            assert message is not None
            received += message.data.count(b"y")
            if received < 3_000_000:
                await anyio.sleep(0.002)
    assert received == size


async def test_several_may_watch_one_terminal(link: Link) -> None:
    with anyio.fail_after(10):
        terminal_id = await open_terminal(link, "cat")
        first, _ = await attach(link, terminal_id)
        second, _ = await attach(link, terminal_id)
        await first.send(b"hello\n")
        await read_until(second, b"hello\r\nhello\r\n")
        await read_until(first, b"hello\r\nhello\r\n")


@pytest.mark.parametrize("program", ["sleep 1000", "trap '' HUP; while :; do sleep 0.1; done"])
async def test_closing_ends_the_program_however_stubborn(link: Link, program: str) -> None:
    with anyio.fail_after(10):
        terminal_id = await open_terminal(link, "bash", "-c", f"echo up; {program}")
        stream, _ = await attach(link, terminal_id)
        await read_until(stream, b"up")
        await link.call("terminal.close", terminal_id=terminal_id)
        endings = [message.json() async for message in stream if message.tag == wire.JSON]
        assert endings[0]["signal"] in (1, 9)
        with pytest.raises(NotFound):
            await link.call("terminal.resize", terminal_id=terminal_id, rows=1, cols=1)


async def test_an_ended_terminal_can_be_read_until_it_is_closed(link: Link) -> None:
    with anyio.fail_after(10):
        terminal_id = await open_terminal(link, "sh", "-c", "echo bye; exit 5")
        for _ in range(2):
            stream, _ = await attach(link, terminal_id)
            messages = [message async for message in stream]
            assert b"".join(m.data for m in messages[:-1]) == b"bye\r\n"
            assert messages[-1].json() == {"exit_code": 5, "signal": None}


async def test_wrong_requests_are_refused(link: Link) -> None:
    with anyio.fail_after(10):
        terminal_id = await open_terminal(link, "cat")
        with pytest.raises(Conflict):
            await link.call("terminal.open", terminal_id=terminal_id, rows=2, cols=2)
        for rows, cols in ((0, 80), (24, 1001), ("24", 80), (True, 80)):
            with pytest.raises(InvalidRequest):
                await link.call("terminal.open", terminal_id="new", rows=rows, cols=cols)
        with pytest.raises(NotFound):
            await link.call("terminal.attach", terminal_id="nobody", after=0)
