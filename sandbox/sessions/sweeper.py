"""What nobody asks for and must happen all the same: expiry, lost containers, orphans, pruning."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from sandbox.audit import SessionEntry
from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX
from sandbox.container.sandbox import cause_of_end
from sandbox.errors import SandboxError
from sandbox.sessions.deadslots import tidy_neighbours
from sandbox.sessions.services import SessionServices
from sandbox.sessions.session import Session
from sandbox.sessions.slots import Slot

EXPIRE_EVERY_S = 2.0
FREEZE_EVERY_S = 5.0
COMPARE_EVERY_S = 10.0
TIDY_EVERY_S = 60.0
DUTY_TIMEOUT_S = 60.0
REMOVE_TIMEOUT_S = 30.0

logger = logging.getLogger(__name__)


class _Late(SandboxError):
    """A duty took too long."""


@dataclass(frozen=True)
class _Duty:
    """Something to be done again and again; it fails on its own."""

    what: str
    every_s: float
    do: Callable[[], Awaitable[None]]

    async def once(self) -> None:
        """Do it.

        Raises:
            SandboxError: It failed, or took too long.
        """
        try:
            with anyio.fail_after(DUTY_TIMEOUT_S):
                await self.do()
        except TimeoutError as exc:
            raise _Late(f"{self.what}: not done within {DUTY_TIMEOUT_S:g} s") from exc


class Sweeper:
    """The housekeeping of one controller."""

    def __init__(
        self,
        services: SessionServices,
        slot: Slot,
        sessions: Callable[[], Iterable[Session]],
        is_left: Callable[[Session], bool],
        is_waiting: Callable[[str], bool],
    ) -> None:
        self._services = services
        self._is_waiting = is_waiting
        self._is_left = is_left
        self._slot = slot
        self._sessions = sessions
        self._stuck: set[str] = set()
        """Containers that could not be removed; said once of each."""
        self._duties = (
            _Duty("expiry", EXPIRE_EVERY_S, self._expire),
            _Duty("the journal", EXPIRE_EVERY_S, self._write_down),
            _Duty("the audit log", EXPIRE_EVERY_S, self._tidy_audit),
            _Duty("freezing", FREEZE_EVERY_S, self._freeze),
            _Duty("processor time", COMPARE_EVERY_S, self._meter),
            _Duty("containers", COMPARE_EVERY_S, self._compare),
            _Duty("the engine", TIDY_EVERY_S, self._ask_engine),
            _Duty("what is to be forgotten", TIDY_EVERY_S, self._prune),
            _Duty("slots of dead controllers", TIDY_EVERY_S, self._tidy_neighbours),
        )

    async def run(self) -> None:
        """Sweep until cancelled; no duty waits for another one."""
        async with anyio.create_task_group() as tasks:
            for duty in self._duties:
                tasks.start_soon(self._repeat, duty)

    async def _repeat(self, duty: _Duty) -> None:
        is_failing = False
        while True:
            await anyio.sleep(duty.every_s)
            try:
                await duty.once()
                is_failing = False
            except SandboxError as exc:
                if not is_failing:  # said once, not every other second
                    logger.error("housekeeping, %s: %s", duty.what, exc)
                is_failing = True
            except Exception:  # the outermost edge of a duty
                if not is_failing:
                    logger.exception("housekeeping, %s", duty.what)
                is_failing = True

    async def sweep(self) -> None:
        """Do all of it once.

        Raises:
            SandboxError: What a duty failed with first; the others have been done.
        """
        failed: list[SandboxError] = []
        for duty in self._duties:
            try:
                await duty.once()
            except SandboxError as exc:
                failed.append(exc)
        if failed:
            raise failed[0]

    # --- the duties

    async def _expire(self) -> None:
        """End the sessions whose time is over."""
        async with anyio.create_task_group() as endings:
            for session in tuple(self._sessions()):
                if self._is_left(session):
                    session.lease.leave()
                if session.is_usable and (reason := session.lease.expiry()):
                    logger.info("session %s is closed: %s", session.session_id, reason)
                    if session.claim.workspace:  # saved first, for which nobody else waits
                        session.begin_end("expired", reason)
                    else:
                        endings.start_soon(session.end, "expired", reason)

    async def _freeze(self) -> None:
        """Freeze the sessions in which nothing goes on."""
        async with anyio.create_task_group() as freezing:
            for session in tuple(self._sessions()):
                if session.is_usable and session.idleness.is_due:
                    freezing.start_soon(session.idleness.freeze)

    async def _write_down(self) -> None:
        """Note which sessions have ended when that could not be noted, and when each was used."""
        self._services.journal.settle()
        for session in tuple(self._sessions()):
            if session.is_usable:
                session.note_activity()

    async def _tidy_audit(self) -> None:
        self._services.audit.tidy()

    async def _ask_engine(self) -> None:
        await self._services.engine.ask()

    async def _prune(self) -> None:
        for _ in self._services.journal.prune(self._services.clock()):
            await anyio.lowlevel.checkpoint()

    async def _tidy_neighbours(self) -> None:
        services = self._services
        await tidy_neighbours(services.runtime, self._slot, services.audit, services.clock())

    async def _meter(self) -> None:
        """Count the processor time of every session, and write down what was counted."""

        async def meter(session: Session) -> None:
            with suppress(SandboxError):  # its end is noticed elsewhere
                await session.meter()

        quotas = self._services.quotas
        if quotas.meters_cpu:
            async with anyio.create_task_group() as measuring:
                for session in tuple(self._sessions()):
                    if session.is_usable and session.idleness.frozen_since is None:
                        measuring.start_soon(meter, session)
        quotas.tidy()

    async def _compare(self) -> None:
        """End sessions whose containers are gone, and remove containers that are no session's."""
        runtime = self._services.runtime
        open_before = [session for session in self._sessions() if session.is_usable]
        listed = await runtime.list({LABEL_OWNER: self._slot.owner})
        running = {each.id for each in listed if each.state in ("running", "paused")}
        for session in open_before:
            container_id = session.container_id or ""
            if container_id in running:
                continue
            # A listing does not tell how a container has ended.
            if cause := cause_of_end(await runtime.inspect(container_id)):
                session.begin_end("lost", cause)
        known = {session.claim.sandbox_id for session in self._sessions()}
        async with anyio.create_task_group() as removals:
            for container in listed:
                sandbox_id = container.labels.get(LABEL_SANDBOX, "")
                if sandbox_id not in known and not self._is_waiting(sandbox_id):
                    removals.start_soon(self._remove, container.id)

    async def _remove(self, container_id: str) -> None:
        """Remove a container that is no session's; one that stays is tried again next time."""
        try:
            with anyio.fail_after(REMOVE_TIMEOUT_S):
                await self._services.runtime.remove(container_id)
        except (SandboxError, TimeoutError) as exc:
            if container_id not in self._stuck:
                logger.error("container %.12s cannot be removed: %s", container_id, exc)
            self._stuck.add(container_id)
            return
        self._stuck.discard(container_id)
        logger.warning("container %.12s is no session's: removed", container_id)
        reason = "it was no session's"
        self._services.audit.record(
            SessionEntry(event="removed", container_id=container_id, reason=reason)
        )
