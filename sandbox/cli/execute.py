"""`sandbox exec`: a command in a session, with its input, outputs and exit code."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Sequence
from typing import Any

import anyio
from pydantic import ValidationError

from sandbox.cli import exits, logs
from sandbox.cli.outlets import Sink
from sandbox.cli.sessionaccess import Access, heard
from sandbox.cli.signals import SignalEnding, ended_by_signals
from sandbox.cli.targets import ControllerTarget, existing_session
from sandbox.cli.transfers import shown
from sandbox.commands.models import MAX_STDIN_BYTES, CommandResult
from sandbox.config import Settings
from sandbox.errors import FileError, InvalidRequest, ProtocolError
from sandbox.server.channels.channel import TAGS, Channel

OUTPUTS = {tag: name for name, tag in TAGS.items()}
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""Exit codes of what could not be run, as a shell has them."""
PIECE_BYTES = 64 * 1024


def run_command(
    settings: Settings,
    target: ControllerTarget,
    session: str,
    argv: Sequence[str],
    *,
    cwd: str,
    timeout_s: float,
    reads_nothing: bool,
) -> int:
    """Run a command in a session and return its exit code.

    Args:
        reads_nothing: Whether standard input here is left alone.

    Raises:
        SandboxError: It could not be run.
    """
    logs.configure(settings.log_level)
    stdin = None if reads_nothing else _piped()
    return anyio.run(_run, settings, target, session, list(argv), cwd, timeout_s, stdin)


async def _run(
    settings: Settings,
    target: ControllerTarget,
    session: str,
    argv: list[str],
    cwd: str,
    timeout_s: float,
    stdin: bytes | None,
) -> int:
    async with (
        ended_by_signals() as ending,
        existing_session(settings, target, session) as access,
    ):
        try:
            return await run_in(access, argv, ending, cwd=cwd, timeout_s=timeout_s, stdin=stdin)
        except FileError as exc:
            print(f"sandbox: {shown(exc.message)}", file=sys.stderr)
            return NOT_FOUND if exc.reason == "not_found" else NOT_EXECUTABLE
    return ending.exit_code


async def run_in(
    access: Access,
    argv: list[str],
    ending: SignalEnding,
    *,
    cwd: str = "",
    timeout_s: float = 0,
    stdin: bytes | None = None,
    to_stderr: bool = False,
) -> int:
    """Run a command, writing what it writes, and return its exit code; Ctrl-C stops it.

    Args:
        stdin: All that it can read; None for nothing.
        to_stderr: Whether its standard output goes to standard error, too.

    Raises:
        SandboxError: It could not be run.
    """
    request: dict[str, Any] = {"argv": argv, "cwd": cwd, "timeout_s": float(timeout_s)}
    async with access.channel("command") as channel:
        await channel.send({**request, "stdin": stdin is not None})
        if stdin is not None:
            for at in range(0, len(stdin), PIECE_BYTES):
                await channel.send(stdin[at : at + PIECE_BYTES])
            await channel.send({})

        async def stop() -> None:
            await channel.send({})

        ending.interrupt = stop
        sinks = Sink(1), Sink(2)
        try:
            result = await _shown(channel, sinks, to_stderr=to_stderr)
        finally:
            ending.interrupt = None
            for sink in sinks:
                await sink.close()
        return _exit_code(result)


async def _shown(channel: Channel, sinks: tuple[Sink, Sink], *, to_stderr: bool) -> Any:
    """What is told of the end, once all that comes before has been written."""
    while True:
        message = await heard(channel, alive=b"\0")
        if isinstance(message, bytes):
            is_error = to_stderr or OUTPUTS.get(message[:1]) == "stderr"
            await sinks[is_error].write(message[1:])
        elif "result" in message:
            return message["result"]
        elif type(missed := message.get("missed_bytes")) is int:
            print(f"[{missed} bytes of output were left out]", file=sys.stderr)


def _exit_code(told: Any) -> int:
    try:
        result = CommandResult.model_validate(told)
    except ValidationError as exc:
        raise ProtocolError("The server did not say how the command ended.") from exc
    for denial in result.denials:
        where = f"{denial.host}:{denial.port}"
        print(f"[denied {shown(where)}: {shown(denial.reason)}]", file=sys.stderr)
    if result.status == "exited" and result.exit_code is not None:
        return result.exit_code & 0xFF
    reason = f": {shown(result.reason)}" if result.reason else ""
    print(f"[{result.status} after {result.duration_s:.2f} s{reason}]", file=sys.stderr)
    if result.status == "signalled":
        return 128 + ((result.signal or 0) & 0x7F)
    kinds = {"timeout": exits.TIMED_OUT, "stopped": exits.INTERRUPTED}
    return kinds.get(result.status, exits.INFRASTRUCTURE)


def piped_at_once() -> bytes | None:
    """The same of what is there by now, or has ended: a pipe in which nothing comes, as many
    programs leave one to those they start, is waited for by nobody."""
    try:
        is_there = bool(select.select([sys.stdin.fileno()], [], [], 0)[0])
    except (OSError, ValueError):
        return None
    return _piped() if is_there else None


def _piped() -> bytes | None:
    """All of standard input when it is a pipe or a file; None for a terminal or nothing.

    Raises:
        InvalidRequest: It is more than a command can be given.
    """
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return None
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise InvalidRequest(
            f"Standard input is longer than {MAX_STDIN_BYTES:,} bytes, the most for a command.",
            remedy="Copy it with `sandbox cp - SESSION:FILE`, and let the command read that.",
        )
    return data
