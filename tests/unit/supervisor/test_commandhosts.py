"""Commands of a real supervisor, which outlive links."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.errors import Conflict, InvalidRequest, NotFound
from sandbox.link import wire
from sandbox.link.link import Link
from sandbox.link.stream import Stream

from ...support.supervisorprocess import SupervisorProcess, ending
from .test_programs import gone

pytestmark = pytest.mark.anyio


async def start(link: Link, command_id: str, stdin: bytes = b"", **fields: Any) -> int:
    """Start a command; its pid."""
    stream = link.open("command.start", command_id=command_id, **fields)
    for at in range(0, len(stdin), 60_000):
        await stream.send(stdin[at : at + 60_000])
    stream.end()
    return (await stream.receive_json())["pid"]


async def attach(link: Link, command_id: str, after: int = 0) -> tuple[Stream, int]:
    """Attach to a command: the stream, and where its bytes start."""
    stream = link.open("command.attach", command_id=command_id, after=after)
    return stream, (await stream.receive_json())["offset"]


async def listed(link: Link) -> dict[str, dict[str, Any]]:
    found = (await link.call("command.list"))["commands"]
    return {entry["command_id"]: entry for entry in found}


async def test_a_command_has_stdin_and_separate_outputs_and_an_ending(link: Link) -> None:
    with anyio.fail_after(10):
        await start(link, "c-1", bytes(range(256)), command="cat; echo err >&2; exit 3")
        stream, offset = await attach(link, "c-1")
        out, err, told = await ending(stream)
        again, _, _ = await ending((await attach(link, "c-1", 250))[0])
        await link.call("command.forget", command_id="c-1")
    assert (offset, out, err) == (0, bytes(range(256)), b"err\n")
    assert (told["exit_code"], told["stopped"], told["timed_out"]) == (3, False, False)
    assert again == bytes(range(250, 256))


async def test_a_command_outlives_its_link_and_is_found_by_the_next(
    machine: SupervisorProcess,
) -> None:
    with anyio.fail_after(10):
        async with machine.link() as link:
            await start(link, "c-2", command="echo one; sleep 0.4; echo two")
            stream, _ = await attach(link, "c-2")
            await stream.receive()
        async with machine.link() as link:
            entry = (await listed(link))["c-2"]
            assert (entry["alive"], entry["first_offset"], entry["last_offset"]) == (True, 0, 4)
            stream, offset = await attach(link, "c-2", 4)
            out, _, told = await ending(stream)
            await link.call("command.forget", command_id="c-2")
            assert "c-2" not in await listed(link)
    assert (offset, out, told["exit_code"]) == (4, b"two\n", 0)


async def test_a_command_waits_for_room_and_nothing_is_dropped(
    link: Link, machine: SupervisorProcess
) -> None:
    size = 12_000_000
    with anyio.fail_after(30):
        await start(link, "c-3", command=f"head -c {size} /dev/zero")
        await asyncio.sleep(0.5)
        entry = (await listed(link))["c-3"]
        assert entry["alive"]
        assert 4_000_000 <= entry["last_offset"] < 6_000_000
        stream, _ = await attach(link, "c-3")
        received = acknowledged = 0
        async for message in stream:
            if message.tag == wire.JSON:
                break
            received += len(message.data)
            if received - acknowledged > 2_000_000:
                acknowledged = received
                await stream.send_json({"ack": received})
        stream.reset()
        late, offset = await attach(link, "c-3", 1000)
        late.reset()
        await link.call("command.forget", command_id="c-3")
    assert received == size
    assert acknowledged - 300_000 < offset <= acknowledged
    assert machine.peak_memory_bytes() < 150 * 1024 * 1024


async def test_its_time_ends_a_command_that_waits_for_room(link: Link) -> None:
    with anyio.fail_after(20):
        pid = await start(link, "c-4", command="yes", timeout_s=1)
        await gone(pid)
        stream, received = await attach(link, "c-4")
        told = None
        async for message in stream:
            if message.tag == wire.JSON:
                told = message.json()
                break
            received += len(message.data)
            await stream.send_json({"ack": received})
        stream.reset()
        await link.call("command.forget", command_id="c-4")
    assert told is not None
    assert told["timed_out"]


@pytest.mark.parametrize("op", ["command.stop", "command.forget"])
async def test_a_stop_kills_whatever_the_command_started(
    link: Link, machine: SupervisorProcess, op: str
) -> None:
    pids = machine.workspace / "stopped-pids"
    pids.unlink(missing_ok=True)
    with anyio.fail_after(10):
        await start(link, "c-5", command=f"setsid sleep 1000 & echo $! > {pids}; yes")
        while not pids.exists() or not pids.read_text():
            await asyncio.sleep(0.01)
        await link.call(op, command_id="c-5")
        await gone(int(pids.read_text()))
        if op == "command.stop":
            stream, _ = await attach(link, "c-5")
            received, told = 0, {}
            async for message in stream:
                if message.tag == wire.JSON:
                    told = message.json()
                    break
                received += len(message.data)
                await stream.send_json({"ack": received})
            assert (told["stopped"], told["signal"]) == (True, 9)
            await link.call("command.forget", command_id="c-5")
        assert "c-5" not in await listed(link)


async def test_a_link_lost_before_all_of_stdin_came_has_started_nothing(
    machine: SupervisorProcess,
) -> None:
    with anyio.fail_after(10):
        async with machine.link() as link:
            stream = link.open("command.start", command_id="c-6", command="touch started; cat")
            await stream.send(b"half")
            await link.call("info")
        async with machine.link() as link:
            assert "c-6" not in await listed(link)
    assert not Path(machine.workspace, "started").exists()


async def test_what_is_not_there_or_there_already_is_refused(link: Link) -> None:
    with anyio.fail_after(10):
        await start(link, "c-7", command="sleep 60")
        with pytest.raises(Conflict):
            await start(link, "c-7", command="true")
        for op in ("command.attach", "command.stop", "command.forget"):
            with pytest.raises(NotFound):
                await link.call(op, command_id="c-none")
        with pytest.raises(InvalidRequest):
            await start(link, "../c", command="true")
        with pytest.raises(InvalidRequest):
            await start(link, "c-8", stdin=bytes(9_000_000), command="true")
        with pytest.raises(InvalidRequest):
            await start(link, "c-8", command="true", argv=["true"])
        await link.call("command.forget", command_id="c-7")
