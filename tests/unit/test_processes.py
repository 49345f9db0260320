"""Commands over supervisors in memory, real ones and lying ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox import wire
from sandbox.errors import (
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    ProtocolError,
    QuotaExceeded,
)
from sandbox.policy.models import Limits
from sandbox.processes import Processes
from sandbox.stream import Stream

from .machines import Machine, fake_machine, host_machine, scripted, until

pytestmark = pytest.mark.anyio

ENDING = {"exit_code": 0, "signal": None, "timed_out": False, "duration_s": 0.0}


async def processes_of(machine: Machine, limits: Limits | None = None) -> Processes:
    processes = Processes(limits or Limits())
    await processes.attach(await machine.connect())
    return processes


@asynccontextmanager
async def answered(
    answer: Callable[[Stream], Coroutine[Any, Any, None]], limits: Limits | None = None
) -> AsyncIterator[Processes]:
    async with scripted(answer) as machine:
        yield await processes_of(machine, limits)


async def test_output_and_ending_of_a_command() -> None:
    async with fake_machine() as (machine, _):
        processes = await processes_of(machine)
        good = await processes.run("echo hello")
        bad = await processes.run("warn trouble")
        failed = await processes.run("exit 3")
        fed = await processes.run("cat", stdin=b"x" * 300_000)
        where = await processes.run("pwd", cwd="/tmp")

    assert (good.exit_code, good.stdout, good.stderr) == (0, "hello\n", "")
    assert (bad.stdout, bad.stderr) == ("", "trouble\n")
    assert failed.exit_code == 3
    assert len(fed.stdout) + fed.truncated_bytes >= 300_000
    assert where.stdout == "/tmp\n"


async def test_real_commands_end_as_they_do(tmp_path: Path) -> None:
    async with host_machine(tmp_path) as machine:
        processes = await processes_of(machine)
        both = await processes.run("echo out; echo err >&2; exit 3")
        killed = await processes.run("kill -TERM $$")
        late = await processes.run("echo before; sleep 60 & sleep 60", timeout_s=0.5)
        variables = await processes.run('echo "$A"; cat', env={"A": "b c"}, stdin=b"typed")
        coloured = await processes.run(r"printf '\033[31mred\033[0m\r\n'")

    assert (both.exit_code, both.stdout, both.stderr) == (3, "out\n", "err\n")
    assert (killed.exit_code, killed.signal) == (None, 15)
    assert (late.timed_out, late.exit_code, late.stdout) == (True, None, "before\n")
    assert late.duration_s < 20
    assert variables.stdout == "b c\ntyped"
    assert coloured.stdout == "red\n"


async def test_long_output_keeps_head_and_tail_within_the_limit() -> None:
    async with fake_machine() as (machine, _):
        result = await (await processes_of(machine)).run("flood 5000000", output_limit_bytes=10_000)

    assert len(result.stdout) < 10_100
    assert "bytes cut" in result.stdout
    assert result.truncated_bytes == 5_000_000 - 5_000


async def test_a_caller_cannot_have_more_than_the_policy_gives() -> None:
    limits = Limits(execution_s=1, output_bytes=8192)
    async with fake_machine() as (machine, _):
        processes = await processes_of(machine, limits)
        late = await processes.run("sleep 60", timeout_s=1000)
        long = await processes.run("flood 100000", output_limit_bytes=10**9)

    assert late.timed_out
    assert len(long.stdout) < 8192


async def test_the_number_of_commands_at_once_is_limited() -> None:
    async with fake_machine() as (machine, _):
        processes = await processes_of(machine, Limits(processes=2))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(processes.run, "sleep 60")
            tasks.start_soon(processes.run, "sleep 60")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(QuotaExceeded):
                await processes.run("echo no")
            tasks.cancel_scope.cancel()

        assert (await processes.run("echo yes")).stdout == "yes\n"


async def test_a_command_that_is_given_up_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "workspace" / "pids"
    async with host_machine(tmp_path) as machine:
        processes = await processes_of(machine)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(processes.run, "sleep 60 & echo $$ $! > pids; wait")
            await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
            tasks.cancel_scope.cancel()
        for pid in pids.read_text().split():
            await until(lambda pid=pid: not Path("/proc", pid).exists())


@pytest.mark.parametrize(
    "given",
    [
        {"command": ""},
        {"command": "  \n"},
        {"command": "echo \0"},
        {"command": "echo \ud800"},
        {"command": "x" * 100_000},
        {"command": "\x01" * 20_000},
        {"command": "true", "cwd": "a\0b"},
        {"command": "true", "env": {"A": "\0"}},
    ],
)
async def test_a_command_that_cannot_be_is_refused_before_it_runs(given: dict[str, Any]) -> None:
    async def serve(_stream: Stream) -> None:
        raise AssertionError("nothing should be asked of the supervisor")

    async with answered(serve) as processes:
        with pytest.raises(InvalidRequest):
            await processes.run(**given)


@pytest.mark.parametrize(
    "ending",
    [
        {},
        {"exit_code": "0", "signal": [], "timed_out": "yes", "duration_s": float("1e400")},
        {"exit_code": 2**80, "signal": -(2**80), "timed_out": 1, "duration_s": -5},
        {"exit_code": True, "duration_s": 10**9},
    ],
)
async def test_an_ending_without_sense_is_not_believed(ending: dict[str, Any]) -> None:
    async def serve(stream: Stream) -> None:
        await stream.send(json.dumps(ending).replace("Infinity", "1e400").encode(), wire.JSON)
        stream.end()

    async with answered(serve) as processes:
        result = await processes.run("true")

    assert (result.exit_code, result.signal, result.timed_out) == (None, None, False)
    assert 0 <= result.duration_s < 60


async def test_a_stream_that_ends_without_an_ending_is_a_broken_protocol() -> None:
    async def serve(stream: Stream) -> None:
        await stream.send(b"output")
        stream.end()

    async with answered(serve) as processes:
        with pytest.raises(ProtocolError):
            await processes.run("true")


async def test_a_supervisor_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.processes.OVERTIME_S", 0.1)

    async def serve(_stream: Stream) -> None:
        await anyio.sleep_forever()

    async with answered(serve) as processes:
        with pytest.raises(InfrastructureError):
            await processes.run("true", timeout_s=0.1)


async def test_output_on_the_wrong_channel_is_a_broken_protocol() -> None:
    async def serve(stream: Stream) -> None:
        await stream.send(b"x", wire.KERNEL)
        await stream.send_json(ENDING)

    async with answered(serve) as processes:
        with pytest.raises(ProtocolError):
            await processes.run("true")


async def test_the_end_of_the_link_is_told() -> None:
    async with fake_machine() as (machine, _):
        processes = Processes(Limits())
        with pytest.raises(LinkLost):
            await processes.run("true")
        link = await machine.connect()
        await processes.attach(link)
        async with anyio.create_task_group() as tasks:

            async def cut() -> None:
                await anyio.wait_all_tasks_blocked()
                await link.aclose()

            tasks.start_soon(cut)
            with pytest.raises(LinkLost):
                await processes.run("sleep 60")
