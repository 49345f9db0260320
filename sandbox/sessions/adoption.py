"""Taking back what an earlier controller of the same slot left on the engine.

The engine says which containers there are, the journal whose each is. A container that a live claim
names becomes that session again, with all that runs in it. One that no claim names is nobody's, and
is removed; so is one that has expired, does not fit its claim or its labels, or was never handed to
a caller. A session whose container is gone is noted as lost. Containers of other owners are not
even listed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import anyio
from pydantic import ValidationError

from sandbox.audit import SessionEntry
from sandbox.bulkheads.shares import Owner
from sandbox.container.compiler import recompile
from sandbox.container.inspection import mismatches
from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX, read_labels
from sandbox.container.sandbox import Sandbox, cause_of_end
from sandbox.errorgroups import one_error
from sandbox.errors import EngineUnavailable, InfrastructureError, PolicyNotEnforced, SandboxError
from sandbox.policy import Policy
from sandbox.runtimes.base import ContainerInfo, EngineInfo
from sandbox.secrets import SessionSecrets
from sandbox.sessions.journal import SessionRow, SessionState
from sandbox.sessions.models import SessionInfo, SessionProof
from sandbox.sessions.services import SessionServices
from sandbox.sessions.session import Session
from sandbox.workspaces.autosave import in_words

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 5.0
REMOVE_TIMEOUT_S = 15.0

logger = logging.getLogger(__name__)


class Adoption:
    """The start of a controller: :meth:`run` once, :meth:`wait_done` for whoever needs the result.
    What is taken back is added, and comes up in its own time."""

    def __init__(self, services: SessionServices, add: Callable[[Session], None]) -> None:
        self._services = services
        self._runtime = services.runtime
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
        engine = await self._services.engine.ask()
        containers = await self._runtime.list({LABEL_OWNER: self._services.owner})
        rows = self._services.journal.not_ended()
        claims = {row.sandbox_id: row for row in rows if row.sandbox_id}
        there = {container.labels.get(LABEL_SANDBOX) for container in containers}
        for row in rows:
            if row.sandbox_id not in there:
                self._gone(row, "lost", "its container was gone when the controller came back")
        async with one_error() as tasks:
            for container in containers:
                if container.id not in self._taken:
                    # Each claim is good for one container, once.
                    row = claims.pop(container.labels.get(LABEL_SANDBOX, ""), None)
                    tasks.start_soon(self._adopt, container, row, engine)

    async def _adopt(
        self, container: ContainerInfo, row: SessionRow | None, engine: EngineInfo
    ) -> None:
        async with self._services.opening.place(Owner(row.principal if row else "")):
            try:
                if row is None:
                    raise InfrastructureError("no session has claimed it")
                session = await self._session(container, row, engine)
            except EngineUnavailable:
                raise
            except SandboxError as exc:
                await self._refuse(container, row, exc)
                return
            except Exception as exc:  # of one container: the others are taken back all the same
                logger.exception("container %.12s cannot be taken back", container.id)
                defect = InfrastructureError(f"it cannot be read: {type(exc).__name__}")
                await self._refuse(container, row, defect)
                return
        self._taken.add(container.id)
        self._add(session)

    async def _refuse(
        self, container: ContainerInfo, row: SessionRow | None, why: SandboxError
    ) -> None:
        """Remove a container that becomes no session; one that stays is left to the sweeper."""
        state: SessionState = "expired" if isinstance(why, _Expired) else "lost"
        logger.warning("container %.12s is removed: %s", container.id, why.message)
        reason = why.message
        try:
            with anyio.fail_after(REMOVE_TIMEOUT_S):
                await self._runtime.remove(container.id)
        except (SandboxError, TimeoutError) as exc:
            logger.error(
                "container %.12s is set aside, it cannot be removed: %s", container.id, exc
            )
            reason = f"{reason}; its container could not be removed yet"
        self._taken.add(container.id)
        if row is not None:
            self._gone(row, state, reason)
        else:
            self._services.audit.record(
                SessionEntry(event="removed", container_id=container.id, reason=reason)
            )

    async def _session(
        self, container: ContainerInfo, row: SessionRow, engine: EngineInfo
    ) -> Session:
        if row.state == "opening":
            raise InfrastructureError("its opening was cut short")
        sandbox = await self._sandbox(container, row, engine)
        workspace = None
        if row.workspace:
            if not sandbox.policy.workspace.persistent:
                raise PolicyNotEnforced("its policy keeps no workspace")
            store = self._services.workspaces
            workspace = store.take(row.principal, row.workspace, row.holder)
        return Session(
            row,
            sandbox,
            self._services,
            secrets=self._secrets(row, sandbox.policy),
            last_used=row.last_activity,
            workspace=workspace,
            tightened=self._services.journal.tightening(row.session_id),
            earlier_proof=_proof(row),
        )

    async def _sandbox(
        self, container: ContainerInfo, row: SessionRow, engine: EngineInfo
    ) -> Sandbox:
        """The sandbox that a row claims, if the container is that one and is as it must be."""
        services = self._services
        info = await self._runtime.inspect(container.id)
        if cause := cause_of_end(info):
            raise InfrastructureError(cause)
        if info.state not in ("running", "paused"):
            raise InfrastructureError("its container was never started")
        identity, policy = read_labels(info)
        if not row.fits(identity, policy):
            raise PolicyNotEnforced("its container's labels are not those of the claimed sandbox")
        if services.clock() >= row.expires_at:
            raise _Expired(f"its lifetime of {policy.limits.lifetime_s:g} s was over")
        spec = recompile(info, identity, policy, engine, services.seccomp, services.roots)
        if wrong := mismatches(spec, info.facts, engine.reports, info.held):
            raise PolicyNotEnforced("its container does not match its policy: " + "; ".join(wrong))
        if info.state == "paused":  # frozen, most often, by the controller that is no more
            await self._runtime.unpause(container.id)
        return Sandbox(
            identity,
            policy,
            spec,
            self._runtime,
            reports=engine.reports,
            roots=services.roots,
            clock=services.clock,
            container_id=container.id,
        )

    def _secrets(self, row: SessionRow, policy: Policy) -> SessionSecrets:
        secrets, missing = self._services.secrets.for_adoption(policy)
        if missing:
            logger.warning(
                "session %s: the secrets %s are gone, so its outputs are not searched for them",
                row.session_id,
                ", ".join(missing),
            )
        return secrets

    def _gone(self, row: SessionRow, state: SessionState, reason: str) -> None:
        journal = self._services.journal
        if row.state == "opening":
            journal.not_opened(row.session_id)
            self._record(row, "not_opened", "", reason)
            return
        if row.workspace:
            kept = self._services.workspaces.kept(row.principal, row.workspace)
            reason = f"{reason}; {in_words(row.workspace, kept)}"
        journal.executions.lose(row.session_id, reason)
        journal.commands.lose(row.session_id, reason)
        journal.ended(row.session_id, state, reason, None, self._services.clock())
        self._record(row, "ended", state, reason)

    def _record(
        self, row: SessionRow, event: Literal["ended", "not_opened"], state: str, reason: str
    ) -> None:
        self._services.audit.record(
            SessionEntry(
                event=event,
                session_id=row.session_id,
                principal=row.principal,
                name=row.name,
                state=state,
                reason=reason,
            )
        )


def _proof(row: SessionRow) -> SessionProof | None:
    """What the earlier controller had proved; its own version may have noted less."""
    try:
        return SessionInfo.model_validate_json(row.info).proof
    except ValidationError:
        return None


class _Expired(SandboxError):
    """The session's time was over before it could be taken back."""
