"""What nobody asks for and must happen all the same: expiry, lost containers, orphans, pruning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress

import anyio
import anyio.lowlevel

from sandbox.audit import SessionEntry
from sandbox.errors import SandboxError
from sandbox.runtimes.base import ContainerInfo
from sandbox.sessions.birth import Surroundings
from sandbox.sessions.endings import cause_of_end
from sandbox.sessions.neighbours import tidy_neighbours
from sandbox.sessions.session import Session
from sandbox.sessions.state import Slot
from sandbox.spec import LABEL_OWNER, LABEL_SESSION

EXPIRE_EVERY_S = 2.0
COMPARE_EVERY = 5
"""Turns between two looks at the engine's containers."""
TIDY_EVERY = 30
"""Turns between two tidyings of the journal and of slots whose controllers are dead."""

logger = logging.getLogger(__name__)


class Sweeper:
    """The housekeeping of one controller.

    Args:
        around: What all sessions share.
        slot: The controller's own slot.
        sessions: The sessions there are now.
    """

    def __init__(
        self, around: Surroundings, slot: Slot, sessions: Callable[[], Iterable[Session]]
    ) -> None:
        self._around = around
        self._slot = slot
        self._sessions = sessions
        self._is_failing = False

    async def run(self) -> None:
        """Sweep until cancelled."""
        turn = 0
        while True:
            turn += 1
            await anyio.sleep(EXPIRE_EVERY_S)
            try:
                await self.sweep(compare=turn % COMPARE_EVERY == 0, tidy=turn % TIDY_EVERY == 0)
                self._is_failing = False
            except SandboxError as exc:
                if not self._is_failing:  # said once, not every other second
                    logger.error("housekeeping: %s", exc)
                self._is_failing = True

    async def sweep(self, *, compare: bool = True, tidy: bool = True) -> None:
        """Do all of it once.

        Args:
            compare: Compare the sessions with the engine's containers.
            tidy: Tidy the journal and the slots of dead controllers.

        Raises:
            SandboxError: The engine or the journal cannot be used; the rest has been done.
        """
        self._around.audit.tidy()
        async with anyio.create_task_group() as endings:
            for session in tuple(self._sessions()):
                if session.is_usable and (reason := session.expiry()):
                    logger.info("session %s is closed: %s", session.session_id, reason)
                    if session.workspace_name:  # saved first, for which nobody else waits
                        session.begin_end("expired", reason)
                    else:
                        endings.start_soon(session.end, "expired", reason)
        if compare:
            await self._meter()
            await self._compare()
        journal = self._around.journal
        for session in tuple(self._sessions()):
            if session.is_usable:
                session.note_activity()
        if tidy:
            await self._around.engine.ask()
            while journal.prune(self._around.clock()):
                await anyio.lowlevel.checkpoint()
            around = self._around
            await tidy_neighbours(around.runtime, self._slot, around.audit, around.clock())

    async def _meter(self) -> None:
        """Count the processor time of every session, and write down what was counted."""

        async def meter(session: Session) -> None:
            with suppress(SandboxError):  # its end is noticed elsewhere
                await session.meter()

        quotas = self._around.quotas
        if quotas.meters_cpu:
            async with anyio.create_task_group() as measuring:
                for session in tuple(self._sessions()):
                    if session.is_usable:
                        measuring.start_soon(meter, session)
        quotas.tidy()

    async def _compare(self) -> None:
        """End sessions whose containers are gone, and remove containers that are no session's."""
        runtime = self._around.runtime
        open_before = [session for session in self._sessions() if session.is_usable]
        listed = await runtime.list({LABEL_OWNER: self._slot.owner})
        containers = {container.id: container for container in listed}
        for session in open_before:
            container_id = session.container_id or ""
            missing = ContainerInfo(container_id, "", "missing", {})
            if cause := cause_of_end(containers.get(container_id, missing)):
                session.begin_end("lost", cause)
        known = {session.session_id for session in self._sessions()}
        for container in listed:
            if container.labels.get(LABEL_SESSION) not in known:
                logger.warning("container %.12s is no session's: removed", container.id)
                await runtime.remove(container.id)
                reason = "it was no session's"
                self._around.audit.record(
                    SessionEntry(event="removed", container_id=container.id, reason=reason)
                )
