"""What is shown of a command: its state, and what it wrote as plain text."""

from __future__ import annotations

from sandbox.commands.command import Command
from sandbox.commands.models import CommandResult
from sandbox.errors import TooMuchWork
from sandbox.outputs.plain import plain

SET_ASIDE = "Its output was set aside: showing it took the controller too long."


def report(command: Command, limit_bytes: int | None = None) -> CommandResult:
    """A command as it is now, or how it ended; of stdout and stderr together no more than
    ``limit_bytes`` are shown, nor than is kept."""
    kept = [output.kept for output in command.outputs.values()]
    if limit_bytes is not None:
        kept = [each.within(limit_bytes // 2) for each in kept]
    reason = command.reason
    try:
        with command.overruns.section("a command's output"):
            texts = [command.redactor.text(plain(each.text())) for each in kept]
        truncated = sum(each.cut_bytes for each in kept)
    except TooMuchWork as exc:
        command.overruns.note(exc)
        texts = ["", ""]
        truncated = sum(each.cut_bytes + each.size for each in kept)
        reason = " ".join(filter(None, (reason, SET_ASIDE)))
    return CommandResult(
        command_id=command.command_id,
        session_id=command.record.session_id,
        status=command.status,
        exit_code=command.exit_code,
        signal=command.signal,
        stdout=texts[0],
        stderr=texts[1],
        truncated_bytes=truncated + command.lost_bytes,
        duration_s=command.duration_s,
        timed_out=command.status == "timeout",
        reason=reason,
        denials=command.denials,
    )
