"""The sessions of one controller: open, find, list and close them.

Every session is a task in the manager's task group. What a controller that was killed left behind
is found again at the start (``sandbox.sessions.adoption``); what ends by itself is noticed by the
sweeper (``sandbox.sessions.sweeper``).
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.to_thread
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from sandbox.audit import about
from sandbox.commands.command import Command
from sandbox.commands.models import CommandResult
from sandbox.config import Settings
from sandbox.egress.models import Tightening
from sandbox.errors import InfrastructureError, NotFound
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.link.link import printable
from sandbox.outputs.redaction import Redactor
from sandbox.policy import PolicySet
from sandbox.sessions.adoption import Adoption
from sandbox.sessions.conversations import Conversations
from sandbox.sessions.forking import Forks
from sandbox.sessions.history import History
from sandbox.sessions.inheritance import Inheritance
from sandbox.sessions.locks import KeyedLocks
from sandbox.sessions.making import Maker
from sandbox.sessions.models import Caller, SessionInfo
from sandbox.sessions.mountwatch import search_folders
from sandbox.sessions.opener import Opener, check_wanted
from sandbox.sessions.ownership import Ownership, ended_info
from sandbox.sessions.pool import Pool
from sandbox.sessions.services import SessionServices
from sandbox.sessions.session import Session
from sandbox.sessions.slots import Slot
from sandbox.sessions.starter import Starter
from sandbox.sessions.sweeper import Sweeper
from sandbox.workspaces.models import WorkspaceInfo, check_workspace

START_WAIT_S = 20.0

logger = logging.getLogger(__name__)


class SessionManager:
    """The sessions of one controller; an async context manager.

    Whoever made the services and took the slot closes and releases them.
    """

    def __init__(
        self, services: SessionServices, policies: PolicySet, settings: Settings, slot: Slot
    ) -> None:
        self._services = services
        self.runtime, self.audit, self.owner = services.runtime, services.audit, services.owner
        self.policies = policies
        self._sessions: dict[tuple[str, str], Session] = {}
        self._locks = KeyedLocks()
        self.ownership = Ownership(self._sessions, services.journal, policies)
        self.conversations = Conversations()
        self._inheritance = Inheritance(
            self.ownership, services.journal, self.conversations, services.left_s
        )
        self.history = History(self.ownership, services.journal, services.clock)
        self._adoption = Adoption(services, self._add)
        maker = Maker(services, settings, self._has_uid)
        self.pool = Pool(services, maker, policies)
        self._opener = Opener(services, settings, self._sessions, maker, self.pool)
        self._starter = Starter(self._opener, maker, self._begin)
        self.forks = Forks(self._opener, self.ownership, settings, self.get, self._starter.start)
        self._sweeper = Sweeper(
            services, slot, self._sessions.values, self._inheritance.is_left, self.pool.has
        )
        self._tasks: TaskGroup = anyio.create_task_group()
        self._closing = False
        self._housekeeping = anyio.CancelScope()
        self._housekeeping_over = anyio.Event()

    # --- life

    async def __aenter__(self) -> SessionManager:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._keep_house)
        self._tasks.start_soon(search_folders, self._sessions.values)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._closing = True
        with anyio.CancelScope(shield=True):
            # First the sweeper: to it, a container whose session is no longer here is an orphan.
            self._housekeeping.cancel()
            await self._housekeeping_over.wait()
            await self.end_all()
        self._tasks.cancel_scope.cancel()
        # Without the error of the block: a task group would hand it on inside an ExceptionGroup.
        await self._tasks.__aexit__(None, None, None)

    async def end_all(self) -> None:
        """End this controller's part in every session: the next one goes on with it, or nobody."""
        ending = ("kept", "") if self._services.keep else ("closed", "the controller ended")
        async with anyio.create_task_group() as endings:
            for session in tuple(self._sessions.values()):
                endings.start_soon(session.end, *ending)

    async def _keep_house(self) -> None:
        try:
            with self._housekeeping:
                await self._adoption.run()
                self._tasks.start_soon(self.pool.run)
                await self._sweeper.run()
        finally:
            self._housekeeping_over.set()

    @property
    def is_ready(self) -> bool:
        """Whether every container of an earlier controller has been taken back or removed; the
        sessions come up in their own time, and calls to them wait for that."""
        return self._adoption.is_done

    async def ready(self) -> None:
        """Wait until :attr:`is_ready`.

        Raises:
            InfrastructureError: It is not within a bound; most often the engine does not answer.
        """
        await self._adoption.wait_done(START_WAIT_S)

    def _add(self, session: Session) -> None:
        """Take an adopted session; it comes up in its own time."""
        self._sessions[session.principal, session.session_id] = session
        self._tasks.start_soon(self._run, session)

    def _has_uid(self, uid: int) -> bool:
        return self.pool.has_uid(uid) or any(
            session.claim.uid == uid for session in self._sessions.values()
        )

    async def _begin(self, session: Session) -> Exception | None:
        return await self._tasks.start(self._run, session)

    async def _run(
        self, session: Session, *, task_status: TaskStatus[Exception | None] = TASK_STATUS_IGNORED
    ) -> None:
        """A session's whole life. Nothing that happens in it is raised: the others live on.

        Who waits for its start is given None, or why it could not be opened.
        """
        try:
            await session.run(task_status=task_status)
        except Exception as exc:
            if session.was_opened:
                logger.error("session %s: its end failed", session.session_id, exc_info=exc)
            else:
                task_status.started(exc)
        finally:
            self._sessions.pop((session.principal, session.session_id), None)

    # --- what callers do

    async def open(
        self,
        caller: Caller,
        *,
        policy: str = "",
        name: str = "",
        workspace: str = "",
        reuse: bool = True,
        checkpoint: str = "",
    ) -> Session:
        """Open a session, or find the one that is open.

        Without a name, what is found or opened belongs to this caller's conversation (its
        ``default_key``), and is opened as its default session if it has none; a name is known to
        all conversations of the principal, and so is a workspace. A session with a workspace is
        nobody's default: whoever means it says its id.

        Args:
            policy: What it may; empty for the default policy.
            workspace: The name of the workspace whose files it begins with, and which keeps them;
                empty for none.
            reuse: Return an open one of that policy (and name, and workspace) if there is one.
            checkpoint: ``auto`` for a checkpoint before each cell, of one that is open from then
                on; empty for what its policy, or whoever opened it, has said.

        Raises:
            NotFound: There is no such policy.
            Conflict: Another session has the workspace.
            NotPermitted: The caller may not name that policy.
            QuotaExceeded: The caller, or the controller, has as many sessions as may be.
            SandboxError: It could not be opened; nothing is left of it.
        """
        self.conversations.called(caller.default_key)
        wanted = self.ownership.policy(caller, policy)
        check_wanted(wanted, name, workspace, checkpoint)
        if self._closing:
            raise InfrastructureError("The controller is stopping; it opens no more sessions.")
        await self.ready()
        asked = (caller, wanted, name, workspace, checkpoint)
        if not reuse:
            return _noted(await self._starter.open(*asked, as_default=False))
        key = ("name", caller.principal, name) if name else caller.default_lock
        if workspace:
            key = ("workspace", caller.principal, workspace)
        async with self._locks.hold(key):
            if not (name or workspace) and self.ownership.default(caller) is None:
                await self._inheritance.inherit(caller)
            if found := self.ownership.reusable(caller, wanted, name, workspace):
                await found.ready()
                found.lease.touch()
                self._opener.keep_checkpoints(found, checkpoint)
                return _noted(found)
            default = self.ownership.default(caller)
            as_default = not (name or workspace) and (default is None or default.is_ending)
            return _noted(await self._starter.open(*asked, as_default=as_default))

    async def get(self, caller: Caller, session_id: str = "") -> Session:
        """The session of that id, or the caller's default one, opened on first use.

        When the default session has ended other than by a close, the next call raises
        ``SessionLost`` once, so that nobody takes an empty session for the one that was; the call
        after it opens a new one. A conversation without one takes over what an earlier one left.

        Raises:
            NotFound: The caller has no such session.
            SessionLost: The session has ended.
            Conflict: Several sessions of before a restart still run, or a newer conversation has
                taken the caller's over; each is said once.
            SandboxError: The default session could not be opened.
        """
        await self.ready()
        return _noted(await self._get(caller, session_id))

    async def _get(self, caller: Caller, session_id: str) -> Session:
        self.conversations.called(caller.default_key)
        if session_id:
            session = self.ownership.find(caller, session_id)
            self._inheritance.come_for(caller, session)
            await session.ready()
            return session
        session = self.ownership.default(caller)
        if session is not None and session.is_usable:
            self._inheritance.tell_kept(session)
            return session
        async with self._locks.hold(caller.default_lock):
            session = self.ownership.default(caller)
            if session is not None and not session.is_ending:
                await session.ready()
                self._inheritance.tell_kept(session)
                return session
            if session is not None:
                await session.wait_over()
            self.ownership.tell_end(caller)
            self._inheritance.tell_taken(caller)
            if session := await self._inheritance.inherit(caller):
                return session
            self._inheritance.tell_left_behind(caller)
            self._inheritance.tell_end(caller)
            return await self._starter.open(
                caller, self.ownership.policy(caller, ""), as_default=True
            )

    def list(self, caller: Caller) -> builtins.list[SessionInfo]:
        """The caller's open sessions, oldest first."""
        infos = [
            s.info()
            for s in self.ownership.mine(caller)
            if s.is_usable or (s.sandbox.is_adopted and not s.is_ending)
        ]
        return sorted(infos, key=lambda info: info.created_at)

    async def close(self, caller: Caller, session_id: str = "") -> SessionInfo:
        """Close a session, or the caller's default one: remove its container and all in it.

        Closing one that has ended already answers what it was.

        Raises:
            NotFound: The caller has no such session.
        """
        await self.ready()
        if session_id:
            session = self.ownership.of(caller, session_id)
            if session is None:
                return ended_info(self.ownership.ended(caller, session_id))
        else:
            session = self.ownership.default(caller) or self._inheritance.take_over(caller)
            if session is None:
                raise NotFound("You have no default session open; nothing was closed.")
        await _noted(session).end("closed", "it was closed by its caller")
        return session.info()

    def everybodys(self) -> builtins.list[tuple[str, SessionInfo]]:
        """The open sessions of all principals, oldest first, each with whose it is: for whoever
        looks after the controller, never for a caller as such."""
        found = [(s.principal, s.info()) for s in self._sessions.values() if not s.is_ending]
        return sorted(found, key=lambda each: each[1].created_at)

    async def close_anybodys(self, session_id: str, by: str) -> SessionInfo:
        """Close a session whosesoever it is; its owner reads by whom.

        Raises:
            NotFound: There is no such session.
        """
        await self.ready()
        for session in tuple(self._sessions.values()):
            if session.session_id == session_id:
                await _noted(session).end("closed", f"it was closed by {by}, who looks after this")
                return session.info()
        raise NotFound(f"There is no session {printable(session_id, 80)!r}.")

    async def tighten(self, caller: Caller, session_id: str, more: Tightening) -> SessionInfo:
        """Take something from a session's network, or the default one's, for good and at once.

        Raises:
            NotFound: The caller has no such session.
            SandboxError: It cannot be done; nothing was changed.
        """
        self.audit.require()
        session = await self.get(caller, session_id)
        session.tighten(more)
        return session.info()

    def workspaces(self, caller: Caller) -> builtins.list[WorkspaceInfo]:
        """The caller's named workspaces, by name."""
        return self._services.workspaces.list(caller.principal)

    async def execution(self, caller: Caller, execution_id: str) -> Execution | ExecutionResult:
        """An execution of one of the caller's sessions: see :meth:`Ownership.execution`."""
        await self.ready()
        return await self.ownership.execution(caller, execution_id)

    async def command(self, caller: Caller, command_id: str) -> Command | CommandResult:
        """A command of one of the caller's sessions: see :meth:`Ownership.command`."""
        await self.ready()
        return await self.ownership.command(caller, command_id)

    async def delete_workspace(self, caller: Caller, name: str) -> None:
        """Delete a named workspace with all that was kept of it.

        Raises:
            NotFound: The caller has no such workspace.
            Conflict: A session has it.
        """
        await self.ready()
        check_workspace(name)
        await self._opener.forget_dead_holder(caller.principal, name)
        await anyio.to_thread.run_sync(self._services.workspaces.delete, caller.principal, name)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something in a task of its own; what it raises is logged."""

        async def run() -> None:
            try:
                await work()
            except Exception:  # the outermost edge of that task
                logger.exception("a task of the controller failed")

        self._tasks.start_soon(run)

    def redactor(self, principal: str, session_id: str) -> Redactor:
        """What knows the secrets of a session, to be taken out of an answer about it."""
        session = self._sessions.get((principal, session_id))
        return Redactor() if session is None else session.redactor

    async def sweep(self) -> None:
        """Do the housekeeping now instead of when it is due.

        Raises:
            SandboxError: The engine or the journal cannot be used.
        """
        await self.ready()
        await self._sweeper.sweep()


def _noted(session: Session) -> Session:
    """A session that a call is about; its record will say so."""
    about(session.session_id, session.policy.name, session.claim.policy_digest)
    return session
