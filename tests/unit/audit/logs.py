"""Logs for tests, on a clock that tests move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sandbox.audit import AuditLog, CallEntry, Verification, verify
from sandbox.audit.chain import Line, read_line
from sandbox.audit.logfiles import lines, segments

SLOT = "serve"


class Logs:
    """Opens a log again and again in one folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = 1_000_000.0

    def open(self, **settings: Any) -> AuditLog:
        """The log, as the next controller opens it."""
        return AuditLog(self.folder, SLOT, clock=lambda: self.now, **settings)

    def write(self, count: int, **settings: Any) -> None:
        """Add calls to the log and close it."""
        log = self.open(**settings)
        for number in range(count):
            log.record(call(tool=f"tool_{number}"))
        log.close()

    def verify(self) -> Verification:
        """Check the log."""
        return verify(self.folder, SLOT)

    def lines(self) -> list[Line]:
        """The lines of the log, all of which must be right."""
        return [read_line(data) for path in segments(self.folder) for data in lines(path)]

    @property
    def newest(self) -> Path:
        """The newest segment."""
        return segments(self.folder)[-1]


def call(**values: Any) -> CallEntry:
    """A call that ended well."""
    told: dict[str, Any] = {
        "principal": "local",
        "tool": "execute_code",
        "arguments": "0" * 64,
        "outcome": "ok",
        "transport": "http",
    }
    return CallEntry(**{**told, **values})
