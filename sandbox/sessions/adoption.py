"""Taking back what an earlier controller of the same slot left on the engine.

The engine's containers are the truth. A live session's container becomes a session again, with all
that runs in it; one that has expired, does not match its labels, or was never handed to a caller is
removed; a session whose container is gone is noted as lost. Containers of other owners are not even
listed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import anyio
from pydantic import ValidationError

from sandbox.audit import SessionEntry
from sandbox.egress import Tightening
from sandbox.errors import EngineUnavailable, InfrastructureError, PolicyNotEnforced, SandboxError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.runtimes.base import ContainerInfo, EngineInfo
from sandbox.sessions.birth import Birth, Surroundings
from sandbox.sessions.endings import cause_of_end
from sandbox.sessions.groups import one_error
from sandbox.sessions.journal import Journal, SessionRow, SessionState
from sandbox.sessions.keeping import in_words
from sandbox.sessions.labels import read_labels, recompile
from sandbox.sessions.models import SessionInfo, SessionProof
from sandbox.sessions.session import Session
from sandbox.spec import LABEL_OWNER, LABEL_SESSION, mismatches

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 5.0

logger = logging.getLogger(__name__)


class Adoption:
    """The start of a controller: :meth:`run` once, :meth:`wait_done` for whoever needs the result.

    Args:
        around: What all sessions share.
        owner: The id that labels this slot's containers.
        seccomp: The seccomp profile as JSON.
        keep: Whether sessions outlive this controller.
        add: Called with each session that is taken back; it comes up in its own time.
    """

    def __init__(
        self,
        around: Surroundings,
        *,
        owner: str,
        seccomp: str,
        keep: bool,
        add: Callable[[Session], None],
    ) -> None:
        self._around = around
        self._runtime = around.runtime
        self._owner = owner
        self._seccomp = seccomp
        self._keep = keep
        self._add = add
        self._taken: set[str] = set()
        self._error: SandboxError | None = None
        self._done = anyio.Event()
        self._answered = anyio.Event()

    @property
    def is_done(self) -> bool:
        """Whether every container of this owner has been looked at."""
        return self._done.is_set()

    async def wait_done(self, timeout_s: float) -> None:
        """Wait until every container of this owner has been looked at.

        Raises:
            InfrastructureError: It was not done in time; most often the engine does not answer.
        """
        if self._done.is_set():
            return
        with anyio.move_on_after(timeout_s):
            await self._answered.wait()
        if not self._done.is_set():
            raise self._error or InfrastructureError(
                "The controller is still starting.", remedy="Try again in a moment."
            )

    async def run(self) -> None:
        """Look at every container of this owner, again and again while the engine is away."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                await self._adopt_all()
                break
            except SandboxError as exc:
                if self._error is None:
                    logger.error("The sessions of before cannot be taken back yet: %s", exc)
                self._error = exc
                self._answered.set()
            await anyio.sleep(delay_s)
            delay_s = min(delay_s * 2, LONGEST_RETRY_S)
        self._error = None
        self._done.set()
        self._answered.set()

    async def _adopt_all(self) -> None:
        engine = await self._around.engine.ask()
        containers = await self._runtime.list({LABEL_OWNER: self._owner})
        rows = {row.session_id: row for row in self._around.journal.not_ended()}
        there = {container.labels.get(LABEL_SESSION) for container in containers}
        for row in rows.values():
            if row.session_id not in there:
                self._gone(row, "lost", "its container was gone when the controller came back")
        async with one_error() as tasks:
            for container in containers:
                if container.id not in self._taken:
                    row = rows.get(container.labels.get(LABEL_SESSION, ""))
                    tasks.start_soon(self._adopt, container, row, engine)

    async def _adopt(
        self, container: ContainerInfo, row: SessionRow | None, engine: EngineInfo
    ) -> None:
        async with self._around.connecting:
            try:
                birth = await self._birth(container, row, engine)
            except EngineUnavailable:
                raise
            except SandboxError as exc:
                state: SessionState = "expired" if isinstance(exc, _Expired) else "lost"
                logger.warning("container %.12s is removed: %s", container.id, exc.message)
                await self._runtime.remove(container.id)
                if row is not None:
                    self._gone(row, state, exc.message)
                else:
                    removed = SessionEntry(
                        event="removed", container_id=container.id, reason=exc.message
                    )
                    self._around.audit.record(removed)
                return
            if row is None:
                session_id = birth.identity.session_id
                self._around.journal.adopted(
                    session_id, birth.identity.principal, birth.last_activity
                )
                self._around.journal.tightened(session_id, birth.tightened)
        self._taken.add(container.id)
        self._add(Session(birth, self._around, keep=self._keep))

    async def _birth(
        self, container: ContainerInfo, row: SessionRow | None, engine: EngineInfo
    ) -> Birth:
        if row is not None and row.state == "opening":
            raise InfrastructureError("its opening was cut short")
        info = await self._runtime.inspect(container.id)
        if cause := cause_of_end(info):
            raise InfrastructureError(cause)
        if info.state != "running":
            raise InfrastructureError("its container was never started")
        identity, policy = read_labels(info)
        if row is not None and row.principal != identity.principal:
            raise PolicyNotEnforced("its container is labelled with another principal")
        if self._around.clock() >= identity.expires_at:
            raise _Expired(f"its lifetime of {policy.limits.lifetime_s:g} s was over")
        spec = recompile(info, identity, policy, engine, self._seccomp, self._around.roots)
        if wrong := mismatches(spec, info.facts):
            raise PolicyNotEnforced("its container does not match its policy: " + "; ".join(wrong))
        secrets, missing = self._around.secrets.for_adoption(policy)
        if missing:
            logger.warning(
                "session %s: the secrets %s are gone, so its outputs are not searched for them",
                identity.session_id,
                ", ".join(missing),
            )
        workspace = None
        if identity.workspace:
            store = self._around.workspaces
            workspace = store.take(identity.principal, identity.workspace, identity.session_id)
        return Birth(
            identity=identity,
            policy=policy,
            spec=spec,
            name=row.name if row else "",
            opener_key=row.opener_key if row else "",
            default_key=row.default_key if row else None,
            last_activity=row.last_activity if row else self._around.clock(),
            container_id=container.id,
            # What was taken from the network of a session that the journal does not know is not
            # known either, so all of it is.
            tightened=self._around.journal.tightening(row.session_id)
            if row is not None
            else Tightening(is_off=not policy.network.is_none),
            secrets=secrets,
            workspace=workspace,
            is_proved=row is not None,
            proof=_proof(row),
        )

    def _gone(self, row: SessionRow, state: SessionState, reason: str) -> None:
        if row.state == "opening":
            self._around.journal.not_opened(row.session_id)
            self._record(row, "not_opened", "", reason)
            return
        if name := workspace_of(row):
            store = self._around.workspaces
            reason = f"{reason}; {in_words(name, store.kept(row.principal, name))}"
        note_lost_executions(self._around.journal, row.session_id, reason)
        self._around.journal.ended(row.session_id, state, reason, None, self._around.clock())
        self._record(row, "ended", state, reason)

    def _record(
        self, row: SessionRow, event: Literal["ended", "not_opened"], state: str, reason: str
    ) -> None:
        self._around.audit.record(
            SessionEntry(
                event=event,
                session_id=row.session_id,
                principal=row.principal,
                name=row.name,
                state=state,
                reason=reason,
            )
        )


def _proof(row: SessionRow | None) -> SessionProof | None:
    """What the earlier controller had proved; its own version may have noted less."""
    if row is None or not row.info:
        return None
    try:
        return SessionInfo.model_validate_json(row.info).proof
    except ValidationError:
        return None


def workspace_of(row: SessionRow) -> str:
    """The name of the workspace that a session had; empty for none."""
    try:
        return SessionInfo.model_validate_json(row.info).workspace_name
    except ValueError:
        return ""


class _Expired(SandboxError):
    """The session's time was over before it could be taken back."""


def note_lost_executions(journal: Journal, session_id: str, reason: str) -> None:
    """Let the executions of a session that is gone end, with the outputs they had."""
    for record in journal.unfinished(session_id):
        journal.finished(record.execution_id, _lost(record, reason), record.seq)


def _lost(record: ExecutionRecord, reason: str) -> ExecutionResult:
    told = f"The session ended before it did: {reason}."
    if record.snapshot is not None:
        return record.snapshot.model_copy(
            update={"status": "lost", "state": "lost", "reason": told}
        )
    return ExecutionResult(
        execution_id=record.execution_id,
        session_id=record.session_id,
        kernel_id=record.kernel_id,
        status="lost",
        state="lost",
        reason=told,
    )
