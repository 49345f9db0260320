"""What ran in a caller's sessions, also with an earlier controller and after a session's end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import anyio.lowlevel

from sandbox.errors import NotFound, SandboxError
from sandbox.kernels.models import ExecutionRecord, ExecutionResult
from sandbox.notebooks.models import Notebook
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy
from sandbox.sessions.export import export_of
from sandbox.sessions.journal import Journal
from sandbox.sessions.models import Caller, ExecutionSummary
from sandbox.sessions.ownership import Ownership
from sandbox.sessions.session import Session

MAX_EXECUTIONS = 25
MAX_SESSIONS = 50
"""That are looked at when none is named, those opened last."""
MAX_CODE = 120


class History:
    """The executions that the journal and the live kernels know of."""

    def __init__(self, ownership: Ownership, journal: Journal, clock: Callable[[], float]) -> None:
        self._ownership = ownership
        self._journal = journal
        self._clock = clock

    async def executions(
        self, caller: Caller, session_id: str, allows: Callable[[Policy], bool]
    ) -> list[ExecutionSummary]:
        """What was asked for last, newest first, at most :data:`MAX_EXECUTIONS`.

        Args:
            session_id: In which session; empty for all whose policy ``allows`` it.

        Raises:
            NotFound: The caller has no such session.
            NotPermitted: It has ended, and what its policy allowed is no longer known.
        """
        if session_id:
            self._ownership.policy_of(caller, session_id)
            ids = [session_id]
        else:
            ids = self._session_ids(caller, allows)
        found: list[tuple[float, ExecutionSummary]] = []
        for execution_id in self._journal.executions.recent(ids, MAX_EXECUTIONS):
            if (noted := self._journal.executions.noted(execution_id)) is not None:
                session = self._ownership.of(caller, noted[0].session_id)
                found.append((noted[0].submitted_at, self._summary(session, *noted)))
            await anyio.lowlevel.checkpoint()  # a row may be long
        # A cell is noted when its kernel is there, which may be out of turn.
        return [summary for _, summary in sorted(found, key=lambda each: -each[0])]

    async def notebook(self, caller: Caller, session_id: str, redactor: Redactor) -> Notebook:
        """What a session has run as a notebook that runs again, without these secrets; of the
        default session without an id.

        Raises:
            NotFound: The caller has no such session.
        """
        info = self._ownership.info(caller, session_id)
        return await export_of(self._journal, info, redactor)

    def _session_ids(self, caller: Caller, allows: Callable[[Policy], bool]) -> list[str]:
        found: list[str] = []
        for row in self._journal.latest(caller.principal, MAX_SESSIONS):
            with suppress(SandboxError):  # it is not the caller's to see, or not any more
                if allows(self._ownership.policy_of(caller, row.session_id)):
                    found.append(row.session_id)
        return found

    def _summary(
        self, session: Session | None, record: ExecutionRecord, ended: ExecutionResult | None
    ) -> ExecutionSummary:
        now = self._clock()
        if ended is None and session is not None:
            with suppress(NotFound):
                ended = session.kernels.execution(record.execution_id).snapshot()
        if ended is None:  # its session is still being taken back
            begun = now if record.started_at is None else record.started_at
            ended = ExecutionResult(
                execution_id=record.execution_id,
                session_id=record.session_id,
                kernel_id=record.kernel_id,
                status="running",
                state="kept",
                duration_s=max(now - begun, 0.0),
            )
        return ExecutionSummary(
            execution_id=record.execution_id,
            session_id=record.session_id,
            kernel_id=record.kernel_id,
            status=ended.status,
            state=ended.state,
            age_s=round(max(now - record.submitted_at, 0.0), 1),
            duration_s=round(ended.duration_s, 3),
            code=_first_line(record.code, session.redactor if session else Redactor()),
        )


def _first_line(code: str, redactor: Redactor) -> str:
    """The first line that is not blank; secrets are taken out before it is cut."""
    line = redactor.text(code.lstrip().partition("\n")[0])
    shown = next(iter(line[: MAX_CODE + 1].splitlines()), "").rstrip()
    return shown if len(shown) <= MAX_CODE else f"{shown[:MAX_CODE]}…"
