from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import anyio
import pytest

from sandbox.errors import FileError, InvalidRequest
from sandbox.link import wire
from sandbox.link.link import Link

from ...support.supervisorprocess import SupervisorProcess, run_command

pytestmark = pytest.mark.anyio


def state(pid: int) -> str:
    """A process's state, as one letter; Z also when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


async def gone(pid: int) -> None:
    """Wait until a process has ended."""
    while state(pid) != "Z":
        await asyncio.sleep(0.01)


@pytest.mark.timed
async def test_a_command_has_stdin_and_separate_outputs_and_an_exit_code(link: Link) -> None:
    with anyio.fail_after(10):
        command = "echo out; echo err >&2; cat; exit 3"
        out, err, ending = await run_command(link, b"typed", command=command)
    assert (out, err) == (b"out\ntyped", b"err\n")
    assert (ending["exit_code"], ending["signal"], ending["timed_out"]) == (3, None, False)
    assert 0 < ending["duration_s"] < 10


async def test_a_list_of_arguments_is_not_interpreted(link: Link) -> None:
    with anyio.fail_after(10):
        out, _, _ = await run_command(link, argv=["echo", "$HOME;", "*"])
    assert out == b"$HOME; *\n"


async def test_the_environment_is_the_containers_and_the_requests(
    link: Link, machine: SupervisorProcess
) -> None:
    with anyio.fail_after(10):
        out, _, _ = await run_command(link, argv=["env"], env={"GIVEN": "a=b"})
    variables = dict(line.split("=", 1) for line in out.decode().splitlines())
    assert variables["GIVEN"] == "a=b"
    assert variables["HOME"] == str(machine.workspace)
    assert "SANDBOX_SUPERVISOR" not in variables


async def test_the_working_directory_is_the_workspace_or_below(
    link: Link, machine: SupervisorProcess
) -> None:
    (machine.workspace / "below").mkdir(exist_ok=True)
    with anyio.fail_after(10):
        assert (await run_command(link, argv=["pwd"]))[0].decode() == f"{machine.workspace}\n"
        out, _, _ = await run_command(link, argv=["pwd"], cwd="below")
        assert out.decode() == f"{machine.workspace}/below\n"
        with pytest.raises(FileError) as refused:
            await run_command(link, argv=["pwd"], cwd="nowhere")
    assert refused.value.reason == "not_found"


async def test_a_program_that_is_not_there_is_named(link: Link) -> None:
    with anyio.fail_after(10), pytest.raises(FileError, match="no-such-program") as refused:
        await run_command(link, argv=["no-such-program"])
    assert refused.value.reason == "not_found"


async def test_a_signal_that_ends_a_command_is_told(link: Link) -> None:
    with anyio.fail_after(10):
        _, _, ending = await run_command(link, command="kill -TERM $$")
    assert (ending["exit_code"], ending["signal"]) == (None, 15)


@pytest.mark.parametrize(
    "command",
    [
        "sleep 1000",
        "trap '' TERM INT HUP; while true; do sleep 1000; done",
        "setsid sleep 1000 & echo $! > pids; sleep 1000",
        "(setsid sh -c 'echo $$ > pids; exec sleep 1000' &); sleep 1000",
        "nohup setsid sh -c 'echo $$ > pids; (sleep 1000; sleep 1000)' & sleep 1000",
    ],
)
async def test_a_time_out_kills_whatever_the_command_started(
    link: Link, machine: SupervisorProcess, command: str
) -> None:
    pids = machine.workspace / "pids"
    pids.unlink(missing_ok=True)
    with anyio.fail_after(10):
        _, _, ending = await run_command(link, command=command, timeout_s=0.4)
        assert (ending["timed_out"], ending["signal"]) == (True, 9)
        if "pids" in command:
            await gone(int(pids.read_text()))


async def test_a_reset_kills_what_runs_also_after_stdin_was_ended(
    link: Link, machine: SupervisorProcess
) -> None:
    pids = machine.workspace / "reset-pids"
    with anyio.fail_after(10):
        stream = link.open("process.run", command=f"echo $$ > {pids}; echo on; sleep 1000")
        stream.end()
        message = await stream.receive()
        assert message is not None
        assert message.data == b"on\n"
        stream.reset()
        await gone(int(pids.read_text()))


async def test_a_lost_link_kills_what_runs(machine: SupervisorProcess) -> None:
    pids = machine.workspace / "lost-pids"
    with anyio.fail_after(10):
        async with machine.link() as link:
            stream = link.open("process.run", command=f"echo $$ > {pids}; echo on; sleep 1000")
            await stream.receive()
        await gone(int(pids.read_text()))


@pytest.mark.timed
async def test_the_end_does_not_wait_for_who_holds_the_output_open(
    link: Link, machine: SupervisorProcess
) -> None:
    pids = machine.workspace / "holder-pids"
    with anyio.fail_after(10):
        started = time.monotonic()
        command = f"sh -c 'sleep 1; echo late; sleep 1000' & echo $! > {pids}; echo done"
        out, _, ending = await run_command(link, command=command)
        assert (out, ending["exit_code"]) == (b"done\n", 0)
        assert time.monotonic() - started < 0.9
        holder = int(pids.read_text())
        await asyncio.sleep(1.2)  # past its write, which must not kill it
        assert state(holder) in "SR"
        os.killpg(os.getpgid(holder), 9)


async def test_a_flood_is_delivered_whole_and_waits_for_a_slow_reader(
    link: Link, machine: SupervisorProcess
) -> None:
    size = 20_000_000
    with anyio.fail_after(30):
        stream = link.open("process.run", command=f"head -c {size} /dev/zero; echo -n end >&2")
        stream.end()
        await asyncio.sleep(0.5)
        received = 0
        async for message in stream:
            if message.tag == wire.BYTES:
                received += len(message.data)
    assert received == size
    assert machine.peak_memory_bytes() < 150 * 1024 * 1024


async def test_a_command_that_does_not_read_its_stdin_still_ends(link: Link) -> None:
    with anyio.fail_after(10):
        stream = link.open("process.run", command="exec 0<&-; sleep 0.2; echo ok")
        for _ in range(40):
            await stream.send(bytes(65_000))
        stream.end()
        parts = [message.data async for message in stream if message.tag == wire.BYTES]
    assert parts == [b"ok\n"]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"command": "x", "argv": ["x"]},
        {"command": 5},
        {"command": "a\0b"},
        {"argv": []},
        {"argv": ["a", 1]},
        {"argv": "ls"},
        {"command": "x", "timeout_s": 0},
        {"command": "x", "timeout_s": "1"},
        {"command": "x", "timeout_s": True},
        {"command": "x", "env": {"A=B": "x"}},
        {"command": "x", "env": {"A": 1}},
        {"command": "x", "env": ["A"]},
    ],
)
async def test_wrong_requests_are_refused(link: Link, fields: dict[str, object]) -> None:
    with anyio.fail_after(10), pytest.raises(InvalidRequest):
        await run_command(link, **fields)
