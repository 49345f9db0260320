"""Commands over supervisors in memory, real ones and lying ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sandbox.commands.command import LOG_BYTES, Command
from sandbox.commands.commands import Commands
from sandbox.commands.exchange import SPARED_BYTES
from sandbox.commands.models import CommandRequest, CommandResult
from sandbox.commands.report import report
from sandbox.errors import (
    FileError,
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    NotFound,
    QuotaExceeded,
)
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits

from ...support.machines import MemoryCommandJournal, fake_machine, host_machine, scripted, serving
from ...support.waiting import until

pytestmark = pytest.mark.anyio

ENDING = {"exit_code": 0, "signal": None, "timed_out": False, "duration_s": 0.0}
ALL_BYTES = bytes(range(256))


@asynccontextmanager
async def in_memory(limits: Limits | None = None) -> AsyncIterator[Commands]:
    """Commands over a supervisor in memory."""
    async with fake_machine() as (machine, _), serving(await machine.connect(), limits) as commands:
        yield commands


@asynccontextmanager
async def on_the_host(folder: Path, limits: Limits | None = None) -> AsyncIterator[Commands]:
    """Commands over a real supervisor on this host."""
    async with (
        host_machine(folder) as machine,
        serving(await machine.connect(), limits) as commands,
    ):
        yield commands


@asynccontextmanager
async def answered(
    attached: Callable[[Stream], Awaitable[None]], asked: list[str] | None = None
) -> AsyncIterator[Commands]:
    """Commands over a supervisor that starts anything and then says what the test says."""

    async def serve(stream: Stream) -> None:
        op = str(stream.request["op"])
        if asked is not None:
            asked.append(op)
        if op == "command.attach":
            await attached(stream)
        else:
            await stream.send_json({"commands": []})
            stream.end()

    async with scripted(serve) as machine, serving(await machine.connect()) as commands:
        yield commands


async def written(command: Command, position: int = 0) -> tuple[bytes, bytes, int]:
    """All that a command writes to its outputs from a position on, and how much was missed."""
    found = {"stdout": bytearray(), "stderr": bytearray()}
    missed = 0
    async for got in command.follow(position):
        missed += got.missed
        for piece in got.entries:
            found[piece.name] += piece.data
    return bytes(found["stdout"]), bytes(found["stderr"]), missed


async def is_gone(pid: str) -> None:
    await until(lambda: not Path("/proc", pid).exists())


# --- what a command is


async def test_output_and_ending_of_a_command() -> None:
    async with in_memory() as commands:
        good = await commands.run("echo hello")
        bad = await commands.run("warn trouble")
        failed = await commands.run("exit 3")
        fed = await commands.run("cat", stdin=b"x" * 300_000)
        where = await commands.run("pwd", cwd="/tmp")

    assert (good.status, good.exit_code, good.stdout, good.stderr) == ("exited", 0, "hello\n", "")
    assert (bad.stdout, bad.stderr) == ("", "trouble\n")
    assert (failed.status, failed.exit_code) == ("exited", 3)
    assert len(fed.stdout) + fed.truncated_bytes >= 300_000
    assert where.stdout == "/tmp\n"


async def test_real_commands_end_as_they_do(tmp_path: Path) -> None:
    async with on_the_host(tmp_path) as commands:
        both = await commands.run("echo out; echo err >&2; exit 3")
        killed = await commands.run("kill -TERM $$")
        late = await commands.run("echo before; sleep 60 & sleep 60", timeout_s=0.5)
        variables = await commands.run('echo "$A"; cat', env={"A": "b c"}, stdin=b"typed")
        coloured = await commands.run(r"printf '\033[31mred\033[0m\r\n'")

    assert (both.exit_code, both.stdout, both.stderr) == (3, "out\n", "err\n")
    assert (killed.status, killed.exit_code, killed.signal) == ("signalled", None, 15)
    assert (late.status, late.timed_out, late.exit_code) == ("timeout", True, None)
    assert late.stdout == "before\n"
    assert late.duration_s < 20
    assert variables.stdout == "b c\ntyped"
    assert coloured.stdout == "red\n"


async def test_a_list_of_arguments_is_read_by_no_shell(tmp_path: Path) -> None:
    async with on_the_host(tmp_path) as commands:
        words = await commands.run(("printf", "%s\n", "$HOME; *", ""))
        text = await commands.run("printf '%s\n' a{b,c}")
        with pytest.raises(FileError, match="no-such-program"):
            await commands.run(("no-such-program",))
        with pytest.raises(FileError):
            await commands.run("pwd", cwd="nowhere")

    assert words.stdout == "$HOME; *\n\n"
    assert text.stdout == "ab\nac\n"


async def test_bytes_go_in_and_come_out_as_they_are_and_apart(tmp_path: Path) -> None:
    async with on_the_host(tmp_path) as commands:
        command = commands.start(CommandRequest("cat; printf '\\377\\0' >&2", stdin=ALL_BYTES * 9))
        with anyio.fail_after(10):
            assert await written(command) == (ALL_BYTES * 9, b"\xff\0", 0)


async def test_the_values_of_secrets_are_in_nothing_that_is_kept(tmp_path: Path) -> None:
    secret = "a-very-secret-value"
    journal = MemoryCommandJournal()
    async with host_machine(tmp_path) as machine:
        commands = Commands("s-test", Limits(), journal, redactor=Redactor({"KEY": secret}))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commands.serve)
            await commands.attach(await machine.connect())
            halves = f"printf {secret[:9]}; sleep 0.2; echo {secret[9:]}; echo {secret} >&2"
            command = commands.start(CommandRequest(halves))
            with anyio.fail_after(10):
                followed = await written(command)
            tasks.cancel_scope.cancel()
    assert followed == (b"[secret KEY]\n", b"[secret KEY]\n", 0)
    assert journal.results[command.command_id].stdout == "[secret KEY]\n"


async def test_long_output_keeps_head_and_tail_within_the_limit() -> None:
    async with in_memory() as commands:
        result = await commands.run("flood 5000000", output_limit_bytes=10_000)

    assert len(result.stdout) < 10_100
    assert "bytes cut" in result.stdout
    assert result.truncated_bytes == 5_000_000 - 5_000


@pytest.mark.parametrize(
    "given",
    [
        {"command": ""},
        {"command": "  \n"},
        {"command": ()},
        {"command": ("", "x")},
        {"command": "echo \0"},
        {"command": ("echo", "\0")},
        {"command": "echo \ud800"},
        {"command": "x" * 100_000},
        {"command": "\x01" * 20_000},
        {"command": "true", "cwd": "a\0b"},
        {"command": "true", "env": {"A": "\0"}},
        {"command": "cat", "stdin": bytes(9_000_000)},
    ],
)
async def test_a_command_that_cannot_be_is_refused_before_it_is_asked_for(
    given: dict[str, Any],
) -> None:
    async def attached(_stream: Stream) -> None:
        raise AssertionError

    asked: list[str] = []
    async with answered(attached, asked) as commands:
        with pytest.raises(InvalidRequest):
            await commands.run(**given)
    assert asked == ["command.list"]


# --- limits


async def test_a_caller_cannot_have_more_than_the_policy_gives() -> None:
    async with in_memory(Limits(execution_s=1, output_bytes=8192)) as commands:
        late = await commands.run("sleep 60", timeout_s=1000)
        long = await commands.run("flood 100000", output_limit_bytes=10**9)

    assert late.status == "timeout"
    assert len(long.stdout) < 8192


async def test_the_number_of_commands_at_once_is_limited() -> None:
    async with in_memory(Limits(processes=2)) as commands:
        first = commands.start(CommandRequest("sleep 60"))
        commands.start(CommandRequest("sleep 60"))
        with pytest.raises(QuotaExceeded):
            await commands.run("echo no")
        await commands.stop(first)

        assert (await commands.run("echo yes")).stdout == "yes\n"


async def test_of_ended_commands_a_few_are_in_memory_and_the_others_in_the_journal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.commands.commands.MAX_ENDED", 2)
    async with (
        fake_machine() as (machine, supervisor),
        serving(await machine.connect()) as commands,
    ):
        ids = [(await commands.run(f"echo {n}")).command_id for n in range(5)]
        found = [commands.command(command_id) for command_id in ids]
        await until(lambda: not supervisor.commands)
        with pytest.raises(NotFound):
            commands.command("c-none")
    assert [isinstance(each, CommandResult) for each in found] == [True] * 3 + [False] * 2
    assert [each.stdout for each in found if isinstance(each, CommandResult)] == [
        *("0\n", "1\n", "2\n")
    ]


# --- long ones


async def test_a_long_command_is_seen_while_it_runs_and_when_it_has_ended(tmp_path: Path) -> None:
    async with on_the_host(tmp_path) as commands:
        command = commands.start(CommandRequest("echo early; sleep 0.7; echo late"))
        assert not await command.wait(0.2)
        await until(lambda: report(command).stdout == "early\n")
        assert report(command).status == "running"
        assert commands.command(command.command_id) is command
        assert commands.is_busy
        with anyio.fail_after(10):
            assert await command.wait()
        assert report(command).stdout == "early\nlate\n"
        assert not commands.is_busy


async def test_a_stopped_command_ends_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "workspace" / "pids"
    async with on_the_host(tmp_path) as commands:
        command = commands.start(
            CommandRequest("echo on; setsid sleep 60 & echo $$ $! > pids; wait")
        )
        await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
        with anyio.fail_after(10):
            await commands.stop(command)
            await commands.stop(command)
        for pid in pids.read_text().split():
            await is_gone(pid)
        result = report(command)
    assert (result.status, result.exit_code, result.stdout) == ("stopped", None, "on\n")


async def test_a_command_that_is_given_up_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "workspace" / "pids"
    async with on_the_host(tmp_path) as commands:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commands.run, "sleep 60 & echo $$ $! > pids; wait")
            await until(lambda: pids.exists() and len(pids.read_text().split()) == 2)
            tasks.cancel_scope.cancel()
        for pid in pids.read_text().split():
            await is_gone(pid)


async def test_two_followers_each_get_all(tmp_path: Path) -> None:
    line = "0123456789abcdef\n"
    async with on_the_host(tmp_path) as commands:
        command = commands.start(CommandRequest(f"sleep 0.1; yes {line.strip()} | head -n 20000"))
        found: list[bytes] = []

        async def follow() -> None:
            stdout, _, missed = await written(command)
            assert not missed
            found.append(stdout)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                tasks.start_soon(follow)
    assert found == [line.encode() * 20000] * 2


async def test_a_follower_that_comes_late_is_told_what_it_missed() -> None:
    async with in_memory() as commands:
        result = await commands.run("flood 3000000")
        command = commands.command(result.command_id)
        assert isinstance(command, Command)
        stdout, _, missed = await written(command)
        middle, _, nothing = await written(command, 2_900_000)
    assert 0 < len(stdout) <= LOG_BYTES
    assert len(stdout) + missed == 3_000_000
    assert (len(middle), nothing) == (100_000, 0)


# --- links and controllers


async def test_a_link_lost_in_a_flood_costs_nothing(tmp_path: Path) -> None:
    size = 20_000_000
    async with host_machine(tmp_path) as machine:
        link = await machine.connect()
        async with serving(link) as commands:
            command = commands.start(CommandRequest(f"seq 1 100000000 | head -c {size}"))
            digest = f"seq 1 100000000 | head -c {size} | tail -c 1000"
            total = 0

            async def follow() -> None:
                nonlocal total
                async for got in command.follow():
                    total += got.missed + sum(len(piece.data) for piece in got.entries)

            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(follow)
                    for at in (100_000, 5_000_000, 12_000_000):
                        await until(lambda at=at: command.position >= at, 30)
                        await link.aclose()
                        link = await machine.connect()
                        await commands.attach(link)
                await command.wait()
                end = await commands.run(digest)
    result = report(command)
    assert (result.status, result.reason, command.lost_bytes) == ("exited", None, 0)
    assert total == command.position == size
    assert result.stdout[-1000:] == end.stdout


async def test_what_was_acknowledged_is_said_again_over_the_next_link() -> None:
    """It may have been lost with the link; the log inside fills up, and its command stands still,
    when it is not told for long enough."""
    links: list[list[Any]] = []

    async def serve(stream: Stream) -> None:
        op = stream.request["op"]
        if op == "command.attach":
            heard: list[Any] = []
            links.append(heard)
            await stream.send_json({"offset": stream.request["after"]})
            if len(links) == 1:
                for _ in range(2 * SPARED_BYTES // 65_536):
                    await stream.send(bytes(65_536), wire.BYTES)
            async for message in stream:
                heard.append(message.json()["ack"])
                if len(links) == 2:
                    await stream.send_json(ENDING)
                    stream.end()
        else:
            await stream.send_json({"commands": [{"command_id": each} for each in started]})
            stream.end()

    started: list[str] = []
    async with scripted(serve) as machine:
        link = await machine.connect()
        async with serving(link) as commands:
            command = commands.start(CommandRequest("flood"))
            started.append(command.command_id)
            with anyio.fail_after(10):
                await until(lambda: command.acknowledged > 0)
                await link.aclose()
                await commands.attach(await machine.connect())
                await command.wait()
    assert links[1] == [command.acknowledged]


async def test_the_next_controller_goes_on_with_what_runs_and_knows_what_has_ended(
    tmp_path: Path,
) -> None:
    journal = MemoryCommandJournal()
    async with host_machine(tmp_path) as machine:
        first = await machine.connect()
        async with serving(first, journal=journal) as commands:
            ended = await commands.run("echo done")
            running = commands.start(CommandRequest("echo early; sleep 1; echo late"))
            quick = commands.start(CommandRequest("sleep 0.3; echo meanwhile; exit 4"))
            await until(lambda: report(running).stdout == "early\n")
        await first.aclose()
        assert not running.is_over
        await anyio.sleep(0.5)  # no controller is there when the quick one ends
        async with serving(await machine.connect(), journal=journal) as commands:
            again, other = (commands.command(each.command_id) for each in (running, quick))
            assert isinstance(again, Command)
            assert isinstance(other, Command)
            with anyio.fail_after(10):
                await again.wait()
                await other.wait()
            assert commands.command(ended.command_id) == ended
            found = commands.command(running.command_id)
            assert found is again
        assert report(again).stdout == "early\nlate\n"
        assert (report(other).stdout, report(other).exit_code) == ("meanwhile\n", 4)
        assert journal.results[running.command_id].stdout == "early\nlate\n"
        assert not journal.unfinished("s-test")


async def test_an_end_that_the_journal_cannot_take_is_written_later() -> None:
    journal = MemoryCommandJournal()
    finished = journal.finished

    def full(_result: CommandResult) -> None:
        raise InfrastructureError("The journal is full.")

    async with (
        fake_machine() as (machine, _),
        serving(await machine.connect(), journal=journal) as commands,
    ):
        journal.finished = full
        early = await commands.run("echo early")
        await commands.attach(await machine.connect())
        assert not journal.results
        journal.finished = finished
        await commands.attach(await machine.connect())
        assert journal.results[early.command_id].stdout == "early\n"
        journal.finished = full
        late = await commands.run("echo late")
        journal.finished = finished
        commands.lose("The session ended.")
        assert journal.results[late.command_id].stdout == "late\n"


async def test_after_a_long_output_the_next_controller_says_how_much_of_it_is_lost(
    tmp_path: Path,
) -> None:
    size = 6_000_000
    journal = MemoryCommandJournal()
    async with host_machine(tmp_path) as machine:
        first = await machine.connect()
        async with serving(first, journal=journal) as commands:
            command = commands.start(CommandRequest(f"head -c {size} /dev/zero; sleep 0.5; echo x"))
            await until(lambda: command.position == size)
        await first.aclose()
        async with serving(await machine.connect(), journal=journal) as commands:
            again = commands.command(command.command_id)
            assert isinstance(again, Command)
            with anyio.fail_after(10):
                stdout, _, missed = await written(again)
    result = report(again)
    assert 1_000_000 < again.lost_bytes < size - 1_000_000
    assert len(stdout) + missed == size + 2
    assert stdout.endswith(b"x\n")
    assert result.status == "exited"
    assert f"{again.lost_bytes:,} bytes" in (result.reason or "")
    assert result.truncated_bytes >= again.lost_bytes


async def test_what_no_controller_knows_is_ended(tmp_path: Path) -> None:
    async with host_machine(tmp_path) as machine:
        link = await machine.connect()
        async with serving(link) as commands:
            command = commands.start(CommandRequest("echo $$; sleep 60"))
            await until(lambda: command.position > 0)
        async with serving(link):  # with a journal that has nothing
            await is_gone(report(command).stdout.strip())


async def test_a_command_that_was_noted_and_never_got_there_is_lost() -> None:
    journal = MemoryCommandJournal()
    async with fake_machine() as (machine, supervisor):
        async with serving(await machine.connect(), journal=journal) as commands:
            command = commands.start(CommandRequest("sleep 60"))
            await until(lambda: bool(supervisor.commands))
        supervisor.commands.clear()
        async with serving(await machine.connect(), journal=journal) as commands:
            found = commands.command(command.command_id)
            assert isinstance(found, Command)
            assert await found.wait(1)
    assert journal.results[command.command_id].status == "lost"


async def test_a_link_that_is_down_is_told_and_nothing_is_noted() -> None:
    journal = MemoryCommandJournal()
    async with fake_machine() as (machine, _):
        link = await machine.connect()
        async with serving(link, journal=journal) as commands:
            await link.aclose()
            with pytest.raises(LinkLost):
                await commands.run("true")
    assert not journal.records


async def test_a_link_lost_before_the_start_was_answered_has_run_nothing() -> None:
    journal = MemoryCommandJournal()

    async def serve(stream: Stream) -> None:
        if stream.request["op"] == "command.start":
            await anyio.sleep_forever()
        await stream.send_json({"commands": []})
        stream.end()

    async with scripted(serve) as machine:
        link = await machine.connect()
        async with serving(link, journal=journal) as commands:
            command = commands.start(CommandRequest("true"))
            await anyio.wait_all_tasks_blocked()
            await link.aclose()
            await commands.attach(await machine.connect())
            with anyio.fail_after(5), pytest.raises(LinkLost, match="nothing of it ran"):
                await command.wait()
            with pytest.raises(NotFound):
                commands.command(command.command_id)
    assert not journal.records


async def test_a_stop_that_found_no_link_is_done_over_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.commands.commands.STOP_GRACE_S", 0.1)
    async with host_machine(tmp_path) as machine:
        link = await machine.connect()
        async with serving(link) as commands:
            command = commands.start(CommandRequest("echo on; sleep 60"))
            await until(lambda: command.position > 0)
            await link.aclose()
            await commands.stop(command)
            assert not command.is_over
            await commands.attach(await machine.connect())
            with anyio.fail_after(10):
                await command.wait()
    assert report(command).status == "stopped"


async def test_with_the_sandbox_its_commands_are_lost_and_that_is_noted() -> None:
    journal = MemoryCommandJournal()
    async with fake_machine() as (machine, _):
        async with serving(await machine.connect(), journal=journal) as commands:
            command = commands.start(CommandRequest("say on sleep 60"))
            await until(lambda: command.position > 0)
        commands.lose("The session is closed.")
    result = journal.results[command.command_id]
    assert (result.status, result.stdout) == ("lost", "on\n")
    assert result.reason == "The session is closed."


# --- supervisors that lie


@pytest.mark.parametrize(
    "ending",
    [
        {},
        {"exit_code": "0", "signal": [], "timed_out": "yes", "duration_s": float("1e400")},
        {"exit_code": 2**80, "signal": -(2**80), "timed_out": 1, "duration_s": -5},
        {"exit_code": True, "duration_s": 10**9, "stopped": "yes"},
    ],
)
async def test_an_ending_without_sense_is_not_believed(ending: dict[str, Any]) -> None:
    async def attached(stream: Stream) -> None:
        await stream.send_json({"offset": 0})
        await stream.send(json.dumps(ending).replace("Infinity", "1e400").encode(), wire.JSON)
        stream.end()

    async with answered(attached) as commands:
        result = await commands.run("true")

    assert (result.status, result.exit_code, result.signal) == ("lost", None, None)
    assert 0 <= result.duration_s < 60


async def without_an_ending(stream: Stream) -> None:
    await stream.send_json({"offset": 0})
    await stream.send(b"output")
    stream.end()


async def on_the_wrong_channel(stream: Stream) -> None:
    await stream.send_json({"offset": 0})
    await stream.send(b"x", wire.KERNEL)
    await stream.send_json(ENDING)


async def from_nowhere(stream: Stream) -> None:
    await stream.send_json({"offset": -1})
    await stream.send_json(ENDING)


async def with_a_refusal(stream: Stream) -> None:
    raise NotFound("There is no such command.")


@pytest.mark.parametrize(
    "attached", [without_an_ending, on_the_wrong_channel, from_nowhere, with_a_refusal]
)
async def test_a_command_whose_output_makes_no_sense_is_lost_and_ended(
    attached: Callable[[Stream], Awaitable[None]],
) -> None:
    asked: list[str] = []
    async with answered(attached, asked) as commands:
        result = await commands.run("true")
        await until(lambda: asked[-1] == "command.forget")
    assert result.status == "lost"
    assert result.reason


async def test_a_supervisor_that_never_ends_a_command_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.commands.commands.OVERTIME_S", 0.1)

    async def attached(stream: Stream) -> None:
        await stream.send_json({"offset": 0})
        await anyio.sleep_forever()

    async with answered(attached) as commands:
        result = await commands.run("true", timeout_s=0.1)
    assert result.status == "lost"


async def test_a_supervisor_that_never_starts_a_command_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sandbox.commands.exchange.ANSWER_TIMEOUT_S", 0.1)

    async def serve(stream: Stream) -> None:
        if stream.request["op"] == "command.start":
            await anyio.sleep_forever()
        await stream.send_json({"commands": []})
        stream.end()

    async with scripted(serve) as machine, serving(await machine.connect()) as commands:
        with pytest.raises(InfrastructureError):
            await commands.run("true")


def test_the_values_need_no_heavy_package() -> None:
    heavy = ("docker", "jupyter_client", "h11", "pyte", "zmq", "mcp")
    code = f"import sys, sandbox.commands.models; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
