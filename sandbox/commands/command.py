"""One command: a process of the sandbox, what it has written, and how it ended."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio

from sandbox.bulkheads.overruns import Overruns
from sandbox.commands.models import CommandRecord, CommandRequest, CommandStatus, OutputName, Piece
from sandbox.commands.output import Output
from sandbox.errors import ProtocolError, SandboxError
from sandbox.link import wire
from sandbox.outputs.denials import Denial, DenialLog
from sandbox.outputs.eventlog import EventLog, Read
from sandbox.outputs.redaction import Redactor

LOG_BYTES = 1024 * 1024
"""What a follower may be behind."""
_NAMES: dict[int, OutputName] = {wire.BYTES: "stdout", wire.STDERR: "stderr"}


class Command:
    """A command that runs or has ended. Made by :class:`sandbox.commands.commands.Commands`.

    Args:
        request: What is to be run; None for what an earlier controller has started.
        limit_bytes: What is kept of both outputs together for whoever comes late.
    """

    def __init__(
        self,
        record: CommandRecord,
        request: CommandRequest | None,
        *,
        limit_bytes: int,
        denials: DenialLog,
        redactor: Redactor,
        overruns: Overruns,
    ) -> None:
        self.record = record
        self.command_id = record.command_id
        self.request = request
        self.is_started = request is None
        """Whether the supervisor knows it."""
        self.is_stop_asked = False
        self.is_noted = False
        """Whether the journal has its end."""
        self.status: CommandStatus = "running"
        self.exit_code: int | None = None
        self.signal: int | None = None
        self.reason: str | None = None
        self.refusal: SandboxError | None = None
        """Why it could not be started."""
        self.lost_bytes = 0
        """The bytes of both outputs that never got here."""
        self.position = 0
        """The bytes of both outputs that have come, lost ones too."""
        self.acknowledged = self.spared_from = self.unspared = 0
        """From where the supervisor keeps what was read, and about how much came since then."""
        self.redactor, self.overruns = redactor, overruns
        self.outputs: dict[OutputName, Output] = {
            name: Output(limit_bytes // 2, redactor, overruns) for name in _NAMES.values()
        }
        self._log: EventLog[Piece] = EventLog(
            LOG_BYTES,
            lambda piece: len(piece.data),
            width=lambda piece: len(piece.data),
            cut=lambda piece, size: piece._replace(data=piece.data[size:]),
        )
        self._denials = denials
        self._denied_before = denials.mark()
        self._denied: tuple[Denial, ...] | None = None
        self._began = time.monotonic() - max(0.0, time.time() - record.started_at)
        self._duration_s: float | None = None
        self._over = anyio.Event()

    # --- for callers

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self._over.is_set()

    @property
    def duration_s(self) -> float:
        """How long it has run, or ran."""
        return time.monotonic() - self._began if self._duration_s is None else self._duration_s

    @property
    def denials(self) -> tuple[Denial, ...]:
        """What the session's network policy has refused from its start, or did to its end."""
        return self._denials.since(self._denied_before) if self._denied is None else self._denied

    @property
    def size_bytes(self) -> int:
        """What is kept of it in memory."""
        return self._log.size_bytes + sum(output.kept.size for output in self.outputs.values())

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; whether it has come.

        Raises:
            SandboxError: It could not be started.
        """
        with anyio.move_on_after(timeout_s):
            await self._over.wait()
        if self.refusal is not None:
            raise self.refusal
        return self.is_over

    def follow(self, position: int = 0) -> AsyncGenerator[Read[Piece]]:
        """What it writes from a position on, as it comes, until it has ended.

        A position counts the bytes of both outputs. Any number of callers may follow, each at its
        own pace; one that falls too far behind is told how many bytes it missed.
        """
        return self._log.follow(position)

    # --- for whoever reads what the supervisor says

    def take(self, tag: int, data: bytes) -> None:
        """Take a piece of output.

        Raises:
            ProtocolError: Commands have no output of that kind.
        """
        if (name := _NAMES.get(tag)) is None:
            raise ProtocolError(f"A command's output came with a message of tag {tag}.")
        self.position += len(data)
        shown = self.outputs[name].feed(data)
        if shown is None:
            self._log.skip(len(data))
        elif shown:
            self._log.append(Piece(name, shown))

    def resume(self, offset: int) -> None:
        """The output comes from an offset on; what lies before it and has not come is lost.

        Raises:
            ProtocolError: That is not where it can go on.
        """
        if offset < self.position:
            raise ProtocolError("A command's output came again.")
        if lost := offset - self.position:
            self.position = offset
            self.lost_bytes += lost
            self._log.skip(lost)

    def conclude(self, ending: Mapping[str, Any]) -> None:
        """End it as the supervisor says."""
        exit_code, signal = _number(ending.get("exit_code")), _number(ending.get("signal"))
        told = ending.get("duration_s")
        if isinstance(told, int | float) and 0 <= told <= self.duration_s:
            self._duration_s = float(told)
        reason = None
        status: CommandStatus = "exited" if exit_code is not None else "signalled"
        if ending.get("timed_out") is True:
            status, reason = "timeout", f"It ran longer than {self.record.timeout_s:g} s."
        elif exit_code is None and ending.get("stopped") is True:
            status, reason = "stopped", "It was stopped on request."
        elif exit_code is None and signal is None:
            status, reason = "lost", "The supervisor did not say how it ended."
        elif ending.get("oom") is True:
            reason = "It was killed because the sandbox ran out of memory."
        self.exit_code, self.signal = exit_code, signal
        self.end(status, reason)

    def refuse(self, error: SandboxError) -> None:
        """End it because it could not be started."""
        self.refusal = error
        self.end("lost", error.message)

    def end(self, status: CommandStatus, reason: str | None = None) -> None:
        """End it, once and for all."""
        if self.is_over:
            return
        self.status = status
        lost = f"{self.lost_bytes:,} bytes of its output were lost." if self.lost_bytes else None
        reason = " ".join(filter(None, (reason, lost)))
        self.reason = self.redactor.text(reason) or None  # it may come from inside
        self._duration_s, self._denied = self.duration_s, self.denials
        self.request = None
        for name, output in self.outputs.items():
            if shown := output.last():
                self._log.append(Piece(name, shown))
        self._log.finish()
        self._over.set()


def _number(value: Any) -> int | None:
    return value if type(value) is int and -(2**31) <= value < 2**31 else None
