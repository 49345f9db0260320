"""Recording a call at the edge where it comes in: once, at its end, whatever that is.

What a call turns out to be about becomes known further in: whoever finds the session says so with
:func:`about`, and the record of the call that the task serves has it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import anyio

from sandbox.audit.entries import CallEntry, Outcome, digest_of
from sandbox.audit.log import AuditLog
from sandbox.errors import (
    Conflict,
    FileError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    PolicyError,
    QuotaExceeded,
    SandboxError,
)

REFUSALS = frozenset(
    kind.code
    for kind in (InvalidRequest, PolicyError, NotFound, NotPermitted, QuotaExceeded, Conflict)
)
"""The codes of errors that mean that nothing was done."""
DEFECT = "defect"
"""The code of a call that failed by a mistake of ours."""


@dataclass(slots=True)
class Call:
    """What is known of a call while it runs."""

    arguments: Any
    session_id: str = ""
    policy: str = ""
    policy_digest: str = ""
    outcome: Outcome = "ok"
    code: str = ""
    """The code of an error, or the status of an execution."""

    def ended(self, outcome: Outcome, code: str = "") -> None:
        """Say how it ended."""
        self.outcome, self.code = outcome, code

    def raised(self, error: SandboxError) -> None:
        """Say that it ended with an error of ours."""
        self.failed(error.code, error.reason if isinstance(error, FileError) else "")

    def failed(self, code: str, reason: str = "") -> None:
        """Say that it ended with an error of this code, and of a file error the reason."""
        outcome: Outcome = "refused" if code in REFUSALS else "failed"
        self.ended(outcome, f"{code}.{reason}" if reason else code)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def about(session_id: str, policy: str, policy_digest: str) -> None:
    """Say which session the call is about that this task serves, if it serves one."""
    if call := _current.get():
        call.session_id, call.policy, call.policy_digest = session_id, policy, policy_digest


@contextmanager
def recorded(
    log: AuditLog,
    transport: Literal["http", "rest", "websocket", "stdio", "cli"],
    tool: str,
    arguments: Any,
    principal: str,
    token_id: str = "",
) -> Generator[Call]:
    """Record a call when the block ends; an exception of it is recorded and goes on.

    The block begins with the log's ``require()``, unless the call is served in any case.

    Args:
        arguments: A JSON value; only its digest is kept.
        token_id: The public id of the token that the call came with; empty without one.
    """
    call = Call(arguments)
    started = time.perf_counter()
    token = _current.set(call)
    try:
        yield call
    except SandboxError as exc:
        call.raised(exc)
        raise
    except anyio.get_cancelled_exc_class():
        call.ended("cancelled")
        raise
    except BaseException:
        if call.outcome == "ok":
            call.ended("failed", DEFECT)
        raise
    finally:
        _current.reset(token)
        log.record(
            CallEntry(
                principal=principal,
                token_id=token_id,
                tool=tool,
                arguments=digest_of(call.arguments),
                outcome=call.outcome,
                code=call.code,
                session_id=call.session_id,
                policy=call.policy,
                policy_digest=call.policy_digest,
                duration_s=time.perf_counter() - started,
                transport=transport,
            )
        )
