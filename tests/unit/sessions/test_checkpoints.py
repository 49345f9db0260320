"""Sessions that make a checkpoint before each cell: when asked, by policy, and taken back."""

from __future__ import annotations

import pytest

from sandbox.errors import NotPermitted
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from .controllers import Controllers, run

ALICE = Caller("alice")

pytestmark = pytest.mark.anyio

KEEPING = """\
version: 1
description: Goes back a cell.
extends: offline
checkpoint: auto
"""
FORGETFUL = """\
version: 1
description: Never goes back.
extends: offline
limits: {auto_checkpoints: 0}
"""


async def names(session: Session) -> list[str]:
    async with session.use():
        return [each.name for each in (await session.kernels.branches.checkpoints())[1]]


async def test_a_session_makes_checkpoints_where_its_opener_asks(manager: SessionManager) -> None:
    session = await manager.open(ALICE, checkpoint="auto")
    assert session.info().checkpoint == "auto"
    assert (await run(session, "x = 1")).checkpoint == "auto-1"
    assert (await run(session, "x = 2")).checkpoint == "auto-2"
    assert await names(session) == ["auto-1", "auto-2"]


async def test_a_session_makes_none_unasked(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    assert session.info().checkpoint == ""
    assert (await run(session, "x = 1")).checkpoint == ""
    assert await names(session) == []


async def test_an_open_session_begins_to_when_it_is_opened_so_again(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE)
    await run(session, "x = 1")
    assert await manager.open(ALICE, checkpoint="auto") is session
    assert (await run(session, "x = 2")).checkpoint == "auto-2"
    assert await manager.open(ALICE) is session
    assert session.info().checkpoint == "auto"


async def test_a_policy_says_it_for_all_its_sessions(controllers: Controllers) -> None:
    (controllers.policies / "keeping.yaml").write_text(KEEPING)
    async with controllers.running() as manager:
        session = await manager.open(ALICE, policy="keeping")
        assert (await run(session, "x = 1")).checkpoint == "auto-1"


async def test_a_policy_without_room_for_them_refuses_and_makes_none(
    controllers: Controllers,
) -> None:
    (controllers.policies / "forgetful.yaml").write_text(FORGETFUL)
    async with controllers.running() as manager:
        with pytest.raises(NotPermitted, match="checkpoints"):
            await manager.open(ALICE, policy="forgetful", checkpoint="auto")
        assert not controllers.container_ids()
        session = await manager.open(ALICE, policy="forgetful")
        assert session.info().checkpoint == ""
        assert (await run(session, "x = 1")).reason is None


async def test_the_next_controller_goes_on_making_them(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(ALICE)
        await manager.open(ALICE, checkpoint="auto")
        for _ in range(2):
            await run(session, "x = 1")
    async with controllers.running(keep=True) as manager:
        again = await manager.get(ALICE, session.session_id)
        assert again.info().checkpoint == "auto"
        assert (await run(again, "x = 2")).checkpoint == "auto-3"
