"""The values that commands take and give, and where they outlive the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from pydantic import BaseModel

from sandbox.errors import InvalidRequest
from sandbox.link import wire
from sandbox.outputs.denials import Denial

CommandStatus = Literal["running", "exited", "signalled", "timeout", "stopped", "lost"]
OutputName = Literal["stdout", "stderr"]

MAX_COMMAND_BYTES = 60 * 1024
"""The command, its directory and its environment travel in one frame, as JSON."""
MAX_STDIN_BYTES = 8 * 1024 * 1024
KEPT_BYTES = 192 * 1024
"""What the journal keeps of a command's output, and one message can hold, however escaped."""


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A process to be run.

    Args:
        command: A text for ``bash -c``, or a program and its arguments, which no shell reads.
        cwd: Where it runs, relative to the workspace; the workspace when empty.
        stdin: All that it can read from its standard input.
        env: Variables beside those that every command gets.
        timeout_s: Seconds after which it is killed; the policy's limit when None, never more.
    """

    command: str | tuple[str, ...]
    cwd: str = ""
    stdin: bytes = b""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    timeout_s: float | None = None

    def check(self) -> None:
        """Refuse what cannot be run before anything is noted of it.

        Raises:
            InvalidRequest: It is empty, too long, or nothing that a process can be given.
        """
        words = (self.command,) if isinstance(self.command, str) else self.command
        if not words or not words[0].strip():
            raise InvalidRequest("The command is empty.", remedy="Say what is to be run.")
        texts = (*words, self.cwd, *self.env, *self.env.values())
        if any("\0" in text for text in texts):
            raise InvalidRequest("A command, directory or variable holds a NUL character.")
        try:
            size = len(wire.encode_json({"": texts}))
        except ValueError as exc:
            raise InvalidRequest("The command holds characters that UTF-8 cannot express.") from exc
        if size > MAX_COMMAND_BYTES or len(self.stdin) > MAX_STDIN_BYTES:
            raise InvalidRequest(
                f"The command takes {size:,} bytes and its stdin {len(self.stdin):,}; "
                f"{MAX_COMMAND_BYTES:,} and {MAX_STDIN_BYTES:,} are the most.",
                remedy="Write it into a file, and run or read that.",
            )


class Piece(NamedTuple):
    """Bytes of one of a command's outputs, as it wrote them, but for the values of secrets."""

    name: OutputName
    data: bytes


class CommandResult(BaseModel, frozen=True):
    """A command as it is now, or how it ended, with what it wrote as plain text."""

    command_id: str
    session_id: str
    status: CommandStatus
    """``exited`` by itself, ``signalled`` by somebody inside, ``timeout`` and ``stopped`` with all
    that it had started, ``lost`` for the ``reason``."""
    exit_code: int | None = None
    """None unless it exited."""
    signal: int | None = None
    """The number of the signal that ended it, if one did."""
    stdout: str = ""
    """Without escape sequences; head and tail when it was long."""
    stderr: str = ""
    truncated_bytes: int = 0
    """The bytes of output that are not in ``stdout`` and ``stderr``."""
    duration_s: float = 0.0
    timed_out: bool = False
    """Whether the status is ``timeout``."""
    reason: str | None = None
    """What else there is to say, in words; None for nothing."""
    denials: tuple[Denial, ...] = ()
    """What the session's network policy refused meanwhile; what runs at the same time in the
    session shares it."""


class CommandRecord(BaseModel, frozen=True):
    """What the journal keeps of a command, so that another controller can go on with it."""

    command_id: str
    session_id: str
    command: str | tuple[str, ...]
    cwd: str = ""
    """Where it runs, relative to the workspace."""
    started_at: float
    """Unix time."""
    timeout_s: float


def lost(record: CommandRecord, reason: str) -> CommandResult:
    """The end of a command of which nothing is left but what the journal knew."""
    return CommandResult(
        command_id=record.command_id, session_id=record.session_id, status="lost", reason=reason
    )


class CommandJournal(Protocol):
    """Where commands outlive the controller. Every method is synchronous and quick."""

    def started(self, record: CommandRecord) -> None:
        """Keep a command that is about to be started."""
        ...

    def refused(self, command_id: str) -> None:
        """Forget a command that could not be started."""
        ...

    def finished(self, result: CommandResult) -> None:
        """Keep how a command ended."""
        ...

    def unfinished(self, session_id: str) -> list[CommandRecord]:
        """The session's commands that have no end yet, oldest first."""
        ...

    def result(self, session_id: str, command_id: str) -> CommandResult | None:
        """How a command of this session ended; None when that is not known."""
        ...
