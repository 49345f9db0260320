"""The sessions of one controller: open, find, list and close them.

Every session is a task in the manager's task group. What a controller that was killed left behind
is found again at the start (``sandbox.sessions.adoption``); what ends by itself is noticed by the
sweeper (``sandbox.sessions.sweeper``).
"""

from __future__ import annotations

import builtins
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import replace
from types import TracebackType
from typing import Any

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from sandbox import images
from sandbox.audit import about
from sandbox.config import Settings
from sandbox.egress import Egress, Tightening, machine_egress, outfit
from sandbox.errors import (
    InfrastructureError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    SandboxError,
)
from sandbox.kernels import Execution, ExecutionResult
from sandbox.link import printable
from sandbox.policy import Policy, PolicySet, seccomp_profile
from sandbox.redaction import Redactor
from sandbox.runtimes.base import ContainerRuntime
from sandbox.secretstore import SecretStore
from sandbox.sessions.adoption import Adoption
from sandbox.sessions.belongings import Belongings, ended_info, may_see
from sandbox.sessions.birth import Surroundings
from sandbox.sessions.engine import KnownEngine
from sandbox.sessions.journal import Journal
from sandbox.sessions.ledger import Ledger
from sandbox.sessions.locks import KeyedLocks
from sandbox.sessions.models import Caller, SessionInfo
from sandbox.sessions.opener import Opener
from sandbox.sessions.quotas import Quotas
from sandbox.sessions.record import GatewayRecord, controller_log
from sandbox.sessions.session import Session
from sandbox.sessions.state import Slot
from sandbox.sessions.sweeper import Sweeper
from sandbox.spec import LABEL_SESSION
from sandbox.workspaces import WorkspaceInfo, WorkspaceStore, check_workspace

OPEN_TIMEOUT_S = 60.0
START_WAIT_S = 20.0
OPEN_AT_ONCE = 8
MAX_NAME = 64


class SessionManager:
    """The sessions of one controller; an async context manager.

    Args:
        runtime: Where the containers are.
        policies: What callers may ask for.
        settings: ``runtime``, ``max_sessions``, ``roots``, those of workspaces and of the audit log
            are read here.
        slot: The controller's place in the state directory; released by whoever took it.
        image_for: The engine's reference of an image that a policy names.
        seccomp: The seccomp profile as JSON; empty for the built-in one.
        egress: The way out that policies may open; None for that of this machine.
        keep_sessions: Whether sessions outlive the manager, for the next controller of the slot;
            otherwise leaving the context closes them. None: those of the served slot do.
        clock: Unix time, seconds.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        policies: PolicySet,
        settings: Settings,
        slot: Slot,
        *,
        image_for: Callable[[str], str] = images.reference,
        seccomp: str = "",
        egress: Egress | None = None,
        keep_sessions: bool | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.runtime = runtime
        self.policies = policies
        self._settings = settings
        self._image_for = image_for
        self._slot = slot
        self._seccomp = seccomp or seccomp_profile()
        self._egress = egress or machine_egress(settings, os.environ)
        self._keep_sessions = slot.name == "serve" if keep_sessions is None else keep_sessions
        self._clock = clock
        self._sessions: dict[tuple[str, str], Session] = {}
        self._locks = KeyedLocks()
        self._workspaces = WorkspaceStore(
            slot.root / "workspaces",
            quota_bytes=settings.workspace_quota_bytes,
            most=settings.max_workspaces,
        )
        self._engine = KnownEngine(runtime)
        self._closing = False
        self._housekeeping = anyio.CancelScope()
        self._housekeeping_over = anyio.Event()

    # --- life

    async def __aenter__(self) -> SessionManager:
        async with AsyncExitStack() as undo:
            self.audit = undo.enter_context(
                controller_log(self._slot, self._settings, self.policies, self._clock)
            )
            self._journal = Journal(self._slot.journal)
            undo.callback(self._journal.close)
            self._whose = Belongings(self._sessions, self._journal)
            ledger = undo.enter_context(closing(Ledger(self._slot.usage, self._clock)))
            quotas = Quotas(self._settings, ledger, self._clock)
            egress = replace(
                self._egress, charge=quotas.charge_egress, record=GatewayRecord(self.audit)
            )
            around = Surroundings(
                self.runtime,
                self._engine,
                self._journal,
                self.audit,
                anyio.CapacityLimiter(OPEN_AT_ONCE),
                anyio.CapacityLimiter(OPEN_AT_ONCE),
                egress,
                quotas,
                SecretStore(self._settings.secrets_dir),
                self._clock,
                self._workspaces,
                self._settings.roots,
            )
            self._adoption = Adoption(
                around,
                owner=self._slot.owner,
                seccomp=self._seccomp,
                keep=self._keep_sessions,
                add=self._add,
            )
            self._opener = Opener(
                around,
                self._settings,
                owner=self._slot.owner,
                image_for=self._image_for,
                seccomp=self._seccomp,
                keep=self._keep_sessions,
            )
            self._sweeper = Sweeper(around, self._slot, self._sessions.values)
            self._tasks: TaskGroup = await undo.enter_async_context(anyio.create_task_group())
            self._tasks.start_soon(self._keep_house)
            self._undo = undo.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        with anyio.CancelScope(shield=True):
            # First the sweeper: to it, a container whose session is no longer here is an orphan.
            self._housekeeping.cancel()
            await self._housekeeping_over.wait()
            ending = ("kept", "") if self._keep_sessions else ("closed", "the controller ended")
            async with anyio.create_task_group() as endings:
                for session in tuple(self._sessions.values()):
                    endings.start_soon(session.end, *ending)
        self._tasks.cancel_scope.cancel()
        # Without the error of the block: a task group would hand it on inside an ExceptionGroup.
        await self._undo.__aexit__(None, None, None)

    async def _keep_house(self) -> None:
        try:
            with self._housekeeping:
                await self._adoption.run()
                await self._sweeper.run()
        finally:
            self._housekeeping_over.set()

    @property
    def owner(self) -> str:
        """The id that labels this controller's containers."""
        return self._slot.owner

    @property
    def is_ready(self) -> bool:
        """Whether every container of an earlier controller has been claimed or removed.

        Claimed sessions come up in their own time; calls to them wait for that.
        """
        return self._adoption.is_done

    def _add(self, session: Session) -> None:
        """Take an adopted session; it comes up in its own time."""
        self._sessions[session.key] = session
        self._tasks.start_soon(self._run, session)

    async def _run(
        self, session: Session, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED
    ) -> None:
        try:
            await session.run(task_status=task_status)
        finally:
            self._sessions.pop(session.key, None)

    # --- what callers do

    async def open(
        self,
        caller: Caller,
        *,
        policy: str = "",
        name: str = "",
        workspace: str = "",
        reuse: bool = True,
    ) -> Session:
        """Open a session, or find the one that is open.

        Without a name, what is found or opened belongs to this caller's conversation (its
        ``default_key``), and is opened as its default session if it has none; a name is known to
        all conversations of the principal, and so is a workspace. A session with a workspace is
        nobody's default: whoever means it says its id.

        Args:
            caller: Whose it is to be.
            policy: What it may; empty for the default policy.
            name: The caller's word for it; empty for none.
            workspace: The name of the workspace whose files it begins with, and which keeps them;
                empty for none.
            reuse: Return an open one of that policy (and name, and workspace) if there is one.

        Raises:
            NotFound: There is no such policy.
            Conflict: Another session has the workspace.
            NotPermitted: The caller may not name that policy.
            QuotaExceeded: The caller, or the controller, has as many sessions as may be.
            SandboxError: It could not be opened; nothing is left of it.
        """
        wanted = self._policy(caller, policy)
        _check_name(name)
        if workspace:
            check_workspace(workspace)
            if not wanted.workspace.persistent:
                raise NotPermitted(
                    f"The policy {wanted.name!r} keeps no files: a session under it has no named "
                    "workspace.",
                    remedy="Leave the workspace out, or name a policy with workspace: "
                    "{persistent: true}.",
                )
        if self._closing:
            raise InfrastructureError("The controller is stopping; it opens no more sessions.")
        await self._adoption.wait_done(START_WAIT_S)
        if not reuse:
            return _noted(await self._open(caller, wanted, name, workspace, as_default=False))
        key = ("name", caller.principal, name) if name else _default_lock(caller)
        if workspace:
            key = ("workspace", caller.principal, workspace)
        async with self._locks.hold(key):
            if found := self._whose.reusable(caller, wanted, name, workspace):
                await found.ready()
                found.touch()
                return _noted(found)
            default = self._whose.default(caller)
            as_default = not (name or workspace) and (default is None or default.is_ending)
            session = await self._open(caller, wanted, name, workspace, as_default=as_default)
            return _noted(session)

    async def get(self, caller: Caller, session_id: str = "") -> Session:
        """The session of that id, or the caller's default one, opened on first use.

        When the default session has ended other than by a close, the next call raises
        ``SessionLost`` once, so that nobody takes an empty session for the one that was; the call
        after it opens a new one.

        Raises:
            NotFound: The caller has no such session.
            SessionLost: The session has ended.
            SandboxError: The default session could not be opened.
        """
        await self._adoption.wait_done(START_WAIT_S)
        return _noted(await self._get(caller, session_id))

    async def _get(self, caller: Caller, session_id: str) -> Session:
        if session_id:
            session = self._whose.find(caller, session_id)
            await session.ready()
            return session
        session = self._whose.default(caller)
        if session is not None and session.is_usable:
            return session
        async with self._locks.hold(_default_lock(caller)):
            session = self._whose.default(caller)
            if session is not None and not session.is_ending:
                await session.ready()
                return session
            if session is not None:
                await session.wait_over()
            self._whose.tell_end(caller)
            return await self._open(caller, self._policy(caller, ""), as_default=True)

    def list(self, caller: Caller) -> builtins.list[SessionInfo]:
        """The caller's open sessions, oldest first."""
        infos = [
            s.info()
            for s in self._whose.mine(caller)
            if s.is_usable or (s.is_adopted and not s.is_ending)
        ]
        return sorted(infos, key=lambda info: info.created_at)

    async def close(self, caller: Caller, session_id: str = "") -> SessionInfo:
        """Close a session, or the caller's default one: remove its container and all in it.

        Closing one that has ended already answers what it was.

        Raises:
            NotFound: The caller has no such session.
        """
        await self._adoption.wait_done(START_WAIT_S)
        if session_id:
            session = self._whose.of(caller, session_id)
            if session is None:
                return ended_info(self._whose.ended(caller, session_id))
        else:
            session = self._whose.default(caller)
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
        """Close a session whosesoever it is.

        Args:
            session_id: Which.
            by: Who closes it, for its owner to read.

        Raises:
            NotFound: There is no such session.
        """
        await self._adoption.wait_done(START_WAIT_S)
        for session in tuple(self._sessions.values()):
            if session.session_id == session_id:
                await _noted(session).end("closed", f"it was closed by {by}, who looks after this")
                return session.info()
        raise NotFound(f"There is no session {printable(session_id, 80)!r}.")

    async def tighten(self, caller: Caller, session_id: str, more: Tightening) -> SessionInfo:
        """Take something from a session's network, for good and at once.

        Args:
            caller: Whose session it is.
            session_id: Which; empty for the caller's default session.
            more: What is taken.

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
        return self._workspaces.list(caller.principal)

    async def delete_workspace(self, caller: Caller, name: str) -> None:
        """Delete a named workspace with all that was kept of it.

        Raises:
            NotFound: The caller has no such workspace.
            Conflict: A session has it.
        """
        await self._adoption.wait_done(START_WAIT_S)
        check_workspace(name)
        await self._forget_dead_holder(caller, name)
        self._workspaces.delete(caller.principal, name)

    async def execution(self, caller: Caller, execution_id: str) -> Execution | ExecutionResult:
        """An execution of one of the caller's sessions, also some time after the session's end.

        Returns:
            The execution to wait for, or how it ended if its session, or the controller that ran
            it, has ended since.

        Raises:
            NotFound: The caller has no such execution, or it ended too long ago.
        """
        await self._adoption.wait_done(START_WAIT_S)
        for session in tuple(self._whose.mine(caller)):
            if session.is_usable:
                with suppress(NotFound):
                    return session.kernels.execution(execution_id)
        row = self._journal.session_of(caller.principal, execution_id)
        if row is not None and may_see(caller, row):
            session = self._whose.of(caller, row.session_id)
            if session is not None and not session.is_ending:  # it is being taken back
                await session.ready()
                return session.kernels.execution(execution_id)
            result = self._journal.result(row.session_id, execution_id)
            if result is not None:
                return result
        raise NotFound(
            f"There is no execution {printable(execution_id, 80)!r} of yours.",
            remedy="Results are kept for a day after their session's end.",
        )

    def may_ask(self, caller: Caller) -> bool:
        """Whether a call of this caller's can come to a question for a person."""
        policies = [session.policy for session in self._whose.mine(caller)]
        with suppress(SandboxError):
            policies.append(self.policies.get(""))
        return any(policy.asks for policy in policies)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something in a task of its own; what it raises ends the controller."""
        self._tasks.start_soon(work)

    def redactor(self, principal: str, session_id: str) -> Redactor:
        """What knows the secrets of a session, to be taken out of an answer about it."""
        session = self._sessions.get((principal, session_id))
        return Redactor() if session is None else session.redactor

    async def sweep(self) -> None:
        """Do the housekeeping now instead of when it is due.

        Raises:
            SandboxError: The engine or the journal cannot be used.
        """
        await self._adoption.wait_done(START_WAIT_S)
        await self._sweeper.sweep()

    # --- inside

    def _policy(self, caller: Caller, name: str) -> Policy:
        """The policy that a caller asks for; an empty name is the caller's default.

        Raises:
            NotFound: There is no such policy.
            NotPermitted: The caller may not name it, whether there is one or not.
        """
        if caller.policies is not None and not name and not caller.may_use(self.policies.default):
            name = caller.policies[0] if caller.policies else name
        if not caller.may_use(name or self.policies.default):
            raise NotPermitted(
                f"Your token may not name the policy {printable(name, 80)!r}.",
                remedy=f"It may name: {', '.join(caller.policies or ()) or 'none'}.",
            )
        return self.policies.get(name)

    async def _open(
        self,
        caller: Caller,
        policy: Policy,
        name: str = "",
        workspace: str = "",
        *,
        as_default: bool,
    ) -> Session:
        self.audit.require()
        if workspace:
            await self._forget_dead_holder(caller, workspace)
        engine = await self._engine.get()
        given = await outfit(self._egress, policy)
        # No await from the count to the entry: opens that come at once see each other.
        session = self._opener.session(
            caller,
            policy,
            name,
            engine,
            given,
            self._sessions.values(),
            as_default=as_default,
            workspace=workspace,
        )
        self._sessions[session.key] = session
        try:
            with anyio.fail_after(OPEN_TIMEOUT_S):
                await self._tasks.start(self._run, session)
        except TimeoutError as exc:
            raise InfrastructureError(
                f"The session was not ready within {OPEN_TIMEOUT_S:g} s; it was removed.",
                remedy="The engine may be overloaded: try again later.",
            ) from exc
        session.hand_over()
        return session

    async def _forget_dead_holder(self, caller: Caller, workspace: str) -> None:
        """Free a workspace whose session is gone; containers are the truth of which there are.

        Raises:
            Conflict: A controller has it.
        """
        holder = self._workspaces.holder(caller.principal, workspace)
        session = self._sessions.get((caller.principal, holder))
        if session is not None and session.is_ending:
            await session.wait_over()  # it is being saved
            return
        if holder and not await self.runtime.list({LABEL_SESSION: holder}):
            self._workspaces.forget(caller.principal, workspace, holder)


def _noted(session: Session) -> Session:
    """A session that a call is about; its record will say so."""
    about(session.session_id, session.policy.name, session.policy.digest)
    return session


def _default_lock(caller: Caller) -> tuple[str, str, str]:
    return ("default", caller.principal, caller.default_key)


def _check_name(name: str) -> None:
    if len(name) > MAX_NAME or not name.isprintable():
        raise InvalidRequest(
            f"A session's name has at most {MAX_NAME} printable characters.",
            remedy="Choose a shorter name, or none.",
        )
