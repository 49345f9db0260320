"""What is advised about a failure stands as its reason, behind what was known before."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sandbox.errors import NotFound
from sandbox.kernels.evidence import Evidence
from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.policy import load
from sandbox.server.advice import advised
from sandbox.sessions.models import Caller

from ...support.results import result

pytestmark = pytest.mark.anyio

POLICIES = load()
NO_ROOM = ExecutionError(name="OSError", value="[Errno 28] No space left on device", traceback="")


class FakeSession:
    """A session in which somebody can look, unless its kernel is gone."""

    def __init__(self, evidence: Evidence | None) -> None:
        self.kernels = self
        self.looked = 0
        self._evidence = evidence

    def kernel(self, _kernel_id: str) -> FakeSession:
        if self._evidence is None:
            raise NotFound("There is no such kernel.")
        return self

    async def evidence(self) -> Evidence:
        self.looked += 1
        assert self._evidence is not None
        return self._evidence


async def reason(failure: ExecutionResult, session: FakeSession | None = None) -> str | None:
    policy = POLICIES.get("offline")
    found = await advised(failure, cast(Any, session), policy, POLICIES, Caller("somebody"))
    return found.reason


async def test_what_is_seen_in_the_sandbox_decides() -> None:
    session = FakeSession(Evidence.model_validate({"full": {"tmp": "bytes"}}))
    told = await reason(result(status="error", error=NO_ROOM), session)
    assert str(told).startswith("/tmp is full")
    assert session.looked == 1


async def test_where_nobody_can_look_less_is_told() -> None:
    for session in (None, FakeSession(None)):
        told = await reason(result(status="error", error=NO_ROOM), session)
        assert str(told).startswith("A filesystem had no room left")


async def test_a_cell_that_went_well_is_left_alone() -> None:
    session = FakeSession(Evidence())
    assert await reason(result(), session) is None
    assert await reason(result(status="running"), session) is None
    assert session.looked == 0


async def test_the_reason_that_is_known_comes_first() -> None:
    told = await reason(
        result(status="died", state="lost", reason="It was ended by SIGSEGV."), None
    )
    assert str(told).startswith("It was ended by SIGSEGV. That is a crash")


async def test_a_module_that_is_missing_is_told_of_as_a_module() -> None:
    error = ExecutionError(
        name="ModuleNotFoundError", value="No module named 'pandas'", traceback=""
    )
    told = await reason(result(status="error", error=error))
    assert "open_session(policy='datascience')" in str(told)
