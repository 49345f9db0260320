"""The log as the rest of the controller sees it: nothing is done that cannot be recorded.

Whoever acts for a caller first asks with :meth:`AuditLog.require` and records the outcome when it
is there. While the log cannot be written, ``require`` refuses; what was under way is kept in memory
and written, in order, as soon as that works again.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from sandbox.audit.chain import Head
from sandbox.audit.entries import DenialEntry, EgressEntry, Entry, RepairEntry
from sandbox.audit.floods import Floods
from sandbox.audit.writer import Writer
from sandbox.errors import ConfigError, InfrastructureError

MAX_BYTES = 256 * 1024 * 1024
MAX_AGE_S = 90 * 24 * 3600.0
MAX_WAITING = 10_000
"""Entries that are kept in memory while the log cannot be written."""
LOOK_EVERY_S = 30.0
"""The least time between two looks at what is too old or too much."""

logger = logging.getLogger(__name__)


class AuditLog:
    """The audit log of one controller; for its event loop's thread alone.

    Raises:
        ConfigError: The folder cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        slot: str,
        *,
        max_bytes: int = MAX_BYTES,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._clock = clock
        try:
            self._writer = Writer(
                folder, slot, max_bytes=max_bytes, max_age_s=max_age_s, clock=clock
            )
        except OSError as exc:
            raise ConfigError(
                f"The audit log {folder} cannot be used: {exc.strerror}.",
                remedy="Nothing runs without it: make room, or make the folder writable.",
            ) from exc
        for repair in self._writer.repairs:
            logger.warning("audit log %s: %s", folder, repair.values()["reason"])
        self._waiting: deque[tuple[float, Entry]] = deque()
        self._lost = 0
        self._error: OSError | None = None
        self._floods = Floods(clock, self._add)
        self._looked_at = float("-inf")
        self._is_closed = False

    @property
    def head(self) -> Head:
        """The end of the log: its last line's number and hash."""
        return self._writer.head

    def record(self, entry: Entry) -> None:
        """Record what has happened; never raises.

        What untrusted code can repeat at will is summed up (``sandbox.audit.floods``).
        """
        if isinstance(entry, EgressEntry):
            self._floods.take(entry)
        else:
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            logger.error("audit log %s: not recorded: %s", self.folder, entry)
            return
        self._waiting.append((self._clock(), entry))
        self._flush()

    def require(self) -> None:
        """Make sure that what is about to be done can be recorded.

        Raises:
            InfrastructureError: The log cannot be written, so it must not be done.
        """
        if self._error is not None or self._is_closed:
            self._flush()
        if self._error is not None or self._is_closed:
            why = self._error.strerror if self._error else "it is closed"
            raise InfrastructureError(
                f"The audit log cannot be written ({why}), so nothing was done.",
                remedy="Sessions can still be listed and closed. Whoever runs the controller must "
                "make room on its disk.",
            )

    def deny(self, reason: str, client: str) -> None:
        """Count a request that was turned away at the gate, for a reason in a few words of ours."""
        self._floods.take(DenialEntry(reason=reason, client=client))

    def tidy(self) -> None:
        """Do what is due: sum up what came again, remove what is too old; never raises."""
        now = self._clock()
        self._floods.sum_up()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._looked_at = now
            self._flush()
            self._retain()

    def close(self) -> None:
        """Write what is left and close the files; harmless when done already."""
        if self._is_closed:
            return
        self._floods.sum_up(at_once=True)
        self._flush()
        self._is_closed = True
        for _, entry in self._waiting:
            logger.error("audit log %s: not recorded: %s", self.folder, entry)
        try:
            self._writer.close()
        except OSError as exc:
            logger.error("audit log %s: %s", self.folder, exc)

    def _flush(self) -> None:
        """Write what is waiting."""
        if self._is_closed:
            return
        try:
            while self._waiting:
                moment, entry = self._waiting[0]
                self._writer.append(entry, moment)
                self._waiting.popleft()
            if self._lost:
                reason = f"{self._lost} entries were lost while the log could not be written"
                self._writer.append(RepairEntry(reason=reason), self._clock())
                self._lost = 0
        except OSError as exc:
            if self._error is None:
                logger.error("audit log %s cannot be written: %s", self.folder, exc)
            self._error = exc
        else:
            if self._error is not None:
                logger.warning("audit log %s can be written again", self.folder)
            self._error = None

    def _retain(self) -> None:
        if self._error is not None:
            return
        try:
            entry = self._writer.retention()
            if entry is not None:
                self._writer.append(entry, self._clock())
                self._writer.remove(entry)
        except OSError as exc:
            logger.error("audit log %s: old lines are not removed: %s", self.folder, exc)
