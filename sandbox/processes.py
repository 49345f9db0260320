"""Commands in the container: each runs to its end, with its output bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from anyio import create_task_group
from pydantic import BaseModel, ConfigDict

from sandbox import wire
from sandbox.denials import Denial, DenialLog
from sandbox.errors import (
    InfrastructureError,
    InvalidRequest,
    LinkLost,
    ProtocolError,
    QuotaExceeded,
    SandboxError,
)
from sandbox.headtail import HeadTail
from sandbox.link import Link, Stream
from sandbox.outputs import plain
from sandbox.policy.models import Limits
from sandbox.redaction import Pieces, Redactor

STDIN_PIECE_BYTES = 64 * 1024
OVERTIME_S = 30.0
"""After its time a command is the supervisor's to kill; beyond this nobody waits for it."""
MAX_COMMAND_BYTES = 48 * 1024
"""The command, its directory and its environment travel in one frame."""


class CommandResult(BaseModel):
    """How a command ended and what it wrote."""

    model_config = ConfigDict(frozen=True)

    exit_code: int | None
    """None when a signal ended it."""
    signal: int | None
    """The number of the signal that ended it; None when it exited."""
    stdout: str
    """Plain text: without escape sequences, head and tail when it was long."""
    stderr: str
    timed_out: bool
    """Whether it was killed, with its process group, because its time was over."""
    duration_s: float
    truncated_bytes: int
    """The bytes of output that are not in ``stdout`` and ``stderr``."""
    denials: tuple[Denial, ...] = ()
    """What the session's network policy refused meanwhile; what runs at the same time in the
    session shares it."""


class Processes:
    """The commands of one session.

    Args:
        limits: The policy's; how many may run at once, how long, and how much output is kept.
        denials: What the session's network policy refuses.
        admit: Called before a command is run; raises when its caller has run enough.
        redactor: Knows the session's secrets, which no output shows.
    """

    def __init__(
        self,
        limits: Limits,
        denials: DenialLog | None = None,
        *,
        admit: Callable[[], None] = lambda: None,
        redactor: Redactor | None = None,
    ) -> None:
        self._admit = admit
        self._limits = limits
        self._denials = denials or DenialLog()
        self._redactor = redactor or Redactor()
        self._link: Link | None = None
        self._running = 0

    async def attach(self, link: Link) -> None:
        """Use this link from now on; commands of an earlier one have ended with it."""
        self._link = link

    async def run(
        self,
        command: str,
        *,
        timeout_s: float | None = None,
        cwd: str = "",
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        output_limit_bytes: int | None = None,
    ) -> CommandResult:
        """Run a command of ``bash -c`` to its end; cancelling it kills its process group.

        Args:
            command: The text for the shell.
            timeout_s: Seconds after which it is killed; the policy's limit when None.
            cwd: Where it runs, relative to the workspace; the workspace when empty.
            stdin: What it reads from its standard input.
            env: Variables beside those that every command gets.
            output_limit_bytes: What is kept of stdout and stderr together; the policy's limit
                when None, and never more.

        Raises:
            InvalidRequest: The command is empty, too long or not a text for a shell.
            QuotaExceeded: The policy lets no more commands run at once, or a quota of the caller's
                is used up.
            LinkLost: The link ended, and the command with it.
        """
        limits = self._limits
        timeout_s = min(timeout_s or limits.execution_s, limits.execution_s)
        kept = min(output_limit_bytes or limits.output_bytes, limits.output_bytes)
        _check(command, cwd, env or {})
        if self._link is None:
            raise LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
        if self._running >= limits.processes:
            raise QuotaExceeded(
                f"{self._running} commands are running, which is as many as the policy allows.",
                remedy="Wait until one has ended.",
            )
        self._admit()
        fields = {"command": command, "cwd": cwd or None, "env": dict(env) if env else None}
        request = {name: value for name, value in fields.items() if value is not None}
        self._running += 1
        denied_before = self._denials.mark()
        try:
            stream = self._link.open("process.run", timeout_s=timeout_s, **request)
            try:
                async with asyncio.timeout(timeout_s + OVERTIME_S):
                    result = await _run(stream, stdin, kept, self._redactor)
                return result.model_copy(update={"denials": self._denials.since(denied_before)})
            except TimeoutError as exc:
                raise InfrastructureError(
                    f"The supervisor did not end the command after {timeout_s:g} s."
                ) from exc
            finally:
                stream.reset()
        finally:
            self._running -= 1


def _check(command: str, cwd: str, env: Mapping[str, str]) -> None:
    if not command.strip():
        raise InvalidRequest("The command is empty.", remedy="Give a shell command.")
    texts = (command, cwd, *env, *env.values())
    if any("\0" in text for text in texts):
        raise InvalidRequest("A command, directory or variable holds a NUL character.")
    try:
        size = sum(len(text.encode("utf-8")) for text in texts)
    except UnicodeEncodeError as exc:
        raise InvalidRequest("The command holds characters that UTF-8 cannot express.") from exc
    if size > MAX_COMMAND_BYTES:
        raise InvalidRequest(
            f"The command is {size:,} bytes long; {MAX_COMMAND_BYTES:,} is the most.",
            remedy="Write it into a file and run that.",
        )


async def _run(stream: Stream, stdin: bytes, limit_bytes: int, redactor: Redactor) -> CommandResult:
    started = time.monotonic()
    stdout, stderr = HeadTail(limit_bytes // 2), HeadTail(limit_bytes // 2)
    shown, shown_stderr = Pieces(redactor), Pieces(redactor)  # before anything is cut
    ending: dict[str, Any] | None = None
    failure: SandboxError | None = None

    async def write_stdin() -> None:
        try:
            for at in range(0, len(stdin), STDIN_PIECE_BYTES):
                await stream.send(stdin[at : at + STDIN_PIECE_BYTES])
            stream.end()
        except SandboxError:
            return  # whoever reads the stream sees the same error

    async with create_task_group() as tasks:
        tasks.start_soon(write_stdin)
        try:
            async for message in stream:
                if message.tag == wire.BYTES:
                    stdout.add(shown.feed(message.data))
                elif message.tag == wire.STDERR:
                    stderr.add(shown_stderr.feed(message.data))
                else:
                    ending = message.json()
                    break
        except SandboxError as exc:
            failure = exc
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if ending is None:
        raise ProtocolError("The supervisor did not say how the command ended.")
    stdout.add(shown.last())
    stderr.add(shown_stderr.last())
    return CommandResult(
        exit_code=_number(ending.get("exit_code")),
        signal=_number(ending.get("signal")),
        stdout=redactor.text(plain(stdout.text())),
        stderr=redactor.text(plain(stderr.text())),
        timed_out=ending.get("timed_out") is True,
        duration_s=_seconds(ending.get("duration_s"), time.monotonic() - started),
        truncated_bytes=stdout.cut_bytes + stderr.cut_bytes,
    )


def _seconds(value: Any, measured: float) -> float:
    """What the supervisor measured, if it can be true, else what we did."""
    return float(value) if isinstance(value, int | float) and 0 <= value <= measured else measured


def _number(value: Any) -> int | None:
    return value if type(value) is int and -(2**31) <= value < 2**31 else None
