"""What a desk asks a session manager for, of the one session that a Jupyter Server is."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from anyio.abc import TaskGroup

from sandbox.audit import AuditLog, about
from sandbox.errors import NotFound
from sandbox.jupyter.session import SESSION_ID, JupyterSession
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy
from sandbox.sessions.conversations import Conversations
from sandbox.sessions.models import Caller, ExecutionSummary

MAX_EXECUTIONS = 25
MAX_CODE = 120


class NoPolicies:
    """The policies that a caller may choose: none."""

    def names(self) -> Sequence[str]:
        """Their names."""
        return ()


class JupyterSessions:
    """Finds the session for every caller: who may do what, the server's authorizer has said."""

    def __init__(self, session: JupyterSession, audit: AuditLog, tasks: TaskGroup) -> None:
        self.audit = audit
        self.conversations = Conversations()
        self.policies = NoPolicies()
        self.ownership = self.history = self
        self._session = session
        self._tasks = tasks

    async def ready(self) -> None:
        """It is, as long as the extension is."""

    async def get(self, caller: Caller, session_id: str = "") -> JupyterSession:
        """The session.

        Raises:
            NotFound: Another one is named.
        """
        self.policy_of(caller, session_id)
        return self._session

    def policy_of(self, caller: Caller, session_id: str) -> Policy:
        """What bounds the answers of the tools.

        Raises:
            NotFound: Another session is named.
        """
        del caller
        if session_id not in ("", SESSION_ID):
            raise NotFound(
                f"There is no session {session_id!r:.80}: a Jupyter Server is one.",
                remedy="Leave session_id out.",
            )
        policy = self._session.policy
        about(SESSION_ID, policy.name, policy.digest)
        return policy

    def mine(self, caller: Caller) -> Sequence[JupyterSession]:
        """The session."""
        del caller
        return (self._session,)

    def may_ask(self, caller: Caller) -> bool:
        """Whether anything of the caller's may want a person's answer: nothing does."""
        del caller
        return False

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something for as long as it needs, or the extension."""
        self._tasks.start_soon(work)

    def redactor(self, principal: str, session_id: str) -> Redactor:
        """Nothing is secret here: the server holds no secrets of ours."""
        del principal, session_id
        return self._session.redactor

    async def execution(self, caller: Caller, execution_id: str) -> Execution | ExecutionResult:
        """An execution by its id.

        Raises:
            NotFound: There is none, or it is too long ago.
        """
        del caller
        return self._session.kernels.execution(execution_id)

    async def executions(
        self, caller: Caller, session_id: str, allows: Callable[[Policy], bool]
    ) -> list[ExecutionSummary]:
        """What was asked for last, newest first."""
        del caller, session_id, allows
        return [self._summary(each) for each in self._session.journal.latest(MAX_EXECUTIONS)]

    def _summary(self, record: ExecutionRecord) -> ExecutionSummary:
        found: ExecutionResult | None = record.snapshot
        with suppress(NotFound):
            found = self._session.kernels.execution(record.execution_id).snapshot()
        line = record.code.lstrip().partition("\n")[0].rstrip()
        return ExecutionSummary(
            execution_id=record.execution_id,
            session_id=SESSION_ID,
            kernel_id=record.kernel_id,
            status=found.status if found else "lost",
            state=found.state if found else "kept",
            age_s=round(max(time.time() - record.submitted_at, 0.0), 1),
            duration_s=round(found.duration_s, 3) if found else 0.0,
            code=line if len(line) <= MAX_CODE else f"{line[:MAX_CODE]}…",
        )
