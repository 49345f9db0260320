"""Quotas of a principal, over all its sessions: of sessions, executions, processor time, bytes.

A policy bounds one session; these bound a caller that opens one after the other. Each check and
its count are one step without an await, so of calls that come at once exactly as many get through
as may. Zero means no quota.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from sandbox.config import Settings
from sandbox.errors import InfrastructureError, QuotaExceeded
from sandbox.policy.units import format_duration, format_size
from sandbox.sessions.usage import Usage

MINUTE_S = 60.0
USE_OR_CLOSE = (
    "Give the session_id of one to the tools to go on with it, or close one with "
    "close_session(session_id=...)."
)


class Quotas:
    """The quotas of a controller's principals."""

    def __init__(self, settings: Settings, usage: Usage, clock: Callable[[], float]) -> None:
        self._settings = settings
        self.usage = usage
        self._clock = clock
        self._recent: dict[str, deque[float]] = {}

    @property
    def meters_cpu(self) -> bool:
        """Whether processor time counts at all, so that it must be measured."""
        return self._settings.cpu_seconds_per_day > 0

    def admit_session(self, principal: str, count: int, opened: str) -> None:
        """Refuse a session to a principal that has enough, or no processor time left.

        Args:
            count: How many it has, those that are being opened or closed among them.
            opened: What they are, in words.

        Raises:
            QuotaExceeded: It may not have another one now.
        """
        limit = self._settings.max_sessions_per_principal
        if limit and count >= limit:
            raise QuotaExceeded(
                f"You have {count} sessions, and may have {limit} in all{opened}.",
                remedy=USE_OR_CLOSE,
            )
        self.admit_work(principal)

    def admit_execution(self, principal: str) -> None:
        """Count a cell or a command that is about to be run.

        Raises:
            QuotaExceeded: There were too many in the last minute, or no processor time is left.
        """
        self.admit_work(principal)
        limit = self._settings.executions_per_minute
        if not limit:
            return
        now = self._clock()
        recent = self._recent.setdefault(principal, deque())
        while recent and recent[0] <= now - MINUTE_S:
            recent.popleft()
        if len(recent) >= limit:
            raise QuotaExceeded(
                f"You have run {limit} cells and commands within a minute, which is as many as "
                "you may. Nothing was run; your sessions are as they were.",
                remedy=f"Try again in {max(recent[0] + MINUTE_S - now, 0.1):.1f} s.",
            )
        recent.append(now)

    def admit_work(self, principal: str) -> None:
        """Refuse whatever makes processors work when the day's time is used up.

        Raises:
            QuotaExceeded: It is.
        """
        limit_s = self._settings.cpu_seconds_per_day
        if limit_s and self.usage.cpu_s(principal) >= limit_s:
            raise QuotaExceeded(
                f"Your sessions have used up the {limit_s} s of processor time that you have in a "
                "day. Nothing was run; variables and files are kept.",
                remedy=f"There is time again at 00:00 UTC, in {self._until_tomorrow()}.",
            )

    def charge_egress(self, principal: str, size_bytes: int) -> str:
        """Count bytes that are about to pass between a principal's sessions and the network.

        Returns:
            Why they may not pass, and are not counted; empty when they may.
        """
        limit = self._settings.egress_bytes_per_day
        if not limit:
            return ""
        try:
            if self.usage.egress_bytes(principal) + size_bytes > limit:
                return (
                    f"the {format_size(limit)} that you may exchange with the network in a day are "
                    f"used up; there is room again at 00:00 UTC, in {self._until_tomorrow()}"
                )
            self.usage.add_egress(principal, size_bytes)
        except InfrastructureError as exc:
            return exc.message
        return ""

    def tidy(self) -> None:
        """Write what was counted, and forget who has run nothing lately.

        Raises:
            InfrastructureError: It cannot be written; to be tried again.
        """
        before = self._clock() - MINUTE_S
        for principal, recent in tuple(self._recent.items()):
            if not recent or recent[-1] <= before:
                del self._recent[principal]
        self.usage.flush()

    def _until_tomorrow(self) -> str:
        return format_duration(int(self.usage.left_s) // 60 * 60 + 60)
