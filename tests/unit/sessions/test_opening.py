"""Opening a session: who gets which, how many, and what remains when it fails."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from sandbox.errors import (
    EngineUnavailable,
    ImageMissing,
    InvalidRequest,
    NotFound,
    PolicyError,
    PolicyNotEnforced,
    QuotaExceeded,
)
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session
from sandbox.testing import FakeEngine

from ...support.waiting import until
from .controllers import Controllers, run

ALICE = Caller("alice")
MALLORY = Caller("mallory")

pytestmark = pytest.mark.anyio


async def test_an_opened_session_runs_cells_and_keeps_their_variables(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE)
    assert (await run(session, "x = 20 + 1")).status == "ok"
    result = await run(session, "print(x)")
    assert result.outputs[0]["text"] == "21\n"
    assert result.session_id == session.session_id


async def test_what_is_told_of_a_session_is_what_its_policy_says(manager: SessionManager) -> None:
    info = (await manager.open(ALICE, policy="tight", name="work")).info()
    policy = manager.policies.get("tight")
    assert (info.policy, info.name, info.state) == ("tight", "work", "open")
    assert info.limits == policy.limits
    assert info.expires_at == info.created_at + policy.limits.lifetime_s
    assert info.idle_expires_at <= info.expires_at
    assert info.runtime == "runc"
    assert info.image == "sandbox/python:test"
    assert info.checks_passed > 10


async def test_the_default_session_is_opened_on_first_use_and_then_found(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    assert session.policy.name == manager.policies.default
    assert session.info().is_default
    assert await manager.get(ALICE) is session
    assert await manager.get(ALICE, session.session_id) is session
    assert [info.session_id for info in manager.list(ALICE)] == [session.session_id]


async def test_callers_that_come_at_once_get_one_default_session(
    manager: SessionManager, controllers: Controllers
) -> None:
    found: list[Session] = []

    async def get() -> None:
        found.append(await manager.get(ALICE))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(get)
    assert len(set(found)) == 1
    assert len(controllers.container_ids()) == 1


async def test_conversations_of_one_principal_have_default_sessions_of_their_own(
    manager: SessionManager,
) -> None:
    first = await manager.get(Caller("alice", "one"))
    second = await manager.get(Caller("alice", "two"))
    assert first is not second
    assert await manager.open(Caller("alice", "two")) is second
    assert await manager.get(Caller("alice", "two"), first.session_id) is first


async def test_opening_reuses_the_open_session_of_that_policy_unless_told_not_to(
    manager: SessionManager,
) -> None:
    first = await manager.open(ALICE)
    assert await manager.open(ALICE) is first
    assert await manager.get(ALICE) is first
    other = await manager.open(ALICE, reuse=False)
    assert other is not first
    assert await manager.open(ALICE) is first
    tight = await manager.open(ALICE, policy="tight")
    assert tight.policy.name == "tight"
    assert await manager.open(ALICE, policy="tight") is tight


async def test_a_named_session_is_shared_by_the_conversations_of_its_principal_only(
    manager: SessionManager,
) -> None:
    named = await manager.open(Caller("alice", "one"), name="shared")
    assert await manager.open(Caller("alice", "two"), name="shared") is named
    assert await manager.open(Caller("alice", "two"), name="other") is not named
    assert await manager.open(MALLORY, name="shared") is not named
    assert await manager.get(Caller("alice", "one")) is not named


async def test_a_hundred_opens_at_once_never_exceed_the_quota(
    manager: SessionManager, controllers: Controllers
) -> None:
    opened: list[Session] = []
    refused: list[QuotaExceeded] = []

    async def open_one() -> None:
        try:
            opened.append(await manager.open(ALICE, policy="tight", reuse=False))
        except QuotaExceeded as exc:
            refused.append(exc)

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(open_one)
    assert len(opened) == 2
    assert len(refused) == 98
    assert all(exc.remedy for exc in refused)
    assert len(controllers.container_ids()) == 2
    await manager.close(ALICE, opened[0].session_id)
    assert (await manager.open(ALICE, policy="tight", reuse=False)).info().state == "open"


async def test_the_quota_of_one_principal_is_not_anothers(manager: SessionManager) -> None:
    for caller in (ALICE, MALLORY):
        for _ in range(2):
            await manager.open(caller, policy="tight", reuse=False)
    with pytest.raises(QuotaExceeded):
        await manager.open(MALLORY, policy="tight", reuse=False)


async def test_the_controller_has_a_bound_of_its_own(controllers: Controllers) -> None:
    async with controllers.running(max_sessions=2) as manager:
        await manager.open(ALICE)
        await manager.open(MALLORY)
        with pytest.raises(QuotaExceeded, match="controller"):
            await manager.open(Caller("bob"))


async def test_every_session_has_a_uid_of_its_own(manager: SessionManager) -> None:
    uids = {(await manager.open(ALICE, reuse=False)).claim.uid for _ in range(4)}
    assert len(uids) == 4


async def test_a_foreign_and_an_absent_session_look_the_same(manager: SessionManager) -> None:
    hers = await manager.open(ALICE)
    texts: set[str] = set()
    for session_id in (hers.session_id, "s-" + "a" * 26):
        for call in (manager.get, manager.close):
            with pytest.raises(NotFound) as caught:
                await call(MALLORY, session_id)
            texts.add(str(caught.value).replace(session_id, "ID"))
    assert len(texts) == 1
    assert hers.is_usable


@pytest.mark.parametrize("session_id", ["\0", "../../x", "x" * 100_000, "\ud800", "s-'; --"])
async def test_an_odd_session_id_is_simply_not_found(
    manager: SessionManager, session_id: str
) -> None:
    with pytest.raises(NotFound) as caught:
        await manager.get(ALICE, session_id)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("policy", "error"), [("absent", NotFound), ("../../x", PolicyError), ("A", PolicyError)]
)
async def test_a_policy_that_is_not_there_is_refused_before_anything_is_made(
    manager: SessionManager, controllers: Controllers, policy: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await manager.open(ALICE, policy=policy)
    assert controllers.container_ids() == []


@pytest.mark.parametrize("name", ["x" * 65, "a\nb", "\0"])
async def test_a_name_that_cannot_be_shown_is_refused(manager: SessionManager, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await manager.open(ALICE, name=name)


async def test_a_container_that_differs_from_its_spec_is_removed_and_never_given_out(
    manager: SessionManager, engine: FakeEngine, controllers: Controllers
) -> None:
    engine.alter_facts = lambda facts: {**facts, "network": "bridge"}
    with pytest.raises(PolicyNotEnforced, match="network"):
        await manager.open(ALICE)
    assert controllers.container_ids() == []
    assert manager.list(ALICE) == []
    engine.alter_facts = lambda facts: facts
    assert (await manager.get(ALICE)).info().state == "open"


async def test_a_container_whose_probe_finds_less_is_removed_and_never_given_out(
    manager: SessionManager, engine: FakeEngine, controllers: Controllers
) -> None:
    engine.probe = {"interfaces": ["lo", "eth0"]}
    with pytest.raises(PolicyNotEnforced, match="eth0"):
        await manager.open(ALICE)
    assert controllers.container_ids() == []
    assert manager.list(ALICE) == []


async def test_a_missing_image_is_said_and_leaves_nothing(controllers: Controllers) -> None:
    controllers.engine.images = frozenset({"other"})
    async with controllers.running() as manager:
        with pytest.raises(ImageMissing):
            await manager.open(ALICE)
        assert manager.list(ALICE) == []
    assert controllers.container_ids() == []


async def test_with_the_engine_down_opening_fails_clearly_and_works_again_after(
    manager: SessionManager, engine: FakeEngine
) -> None:
    await manager.open(ALICE)
    engine.is_down = True
    with pytest.raises(EngineUnavailable):
        await manager.open(MALLORY)
    engine.is_down = False
    assert (await manager.open(MALLORY)).info().state == "open"


async def test_a_controller_that_starts_with_the_engine_down_says_so_and_recovers(
    controllers: Controllers,
) -> None:
    controllers.engine.is_down = True
    async with controllers.running() as manager:
        with pytest.raises(EngineUnavailable):
            await manager.open(ALICE)
        assert not manager.is_ready
        controllers.engine.is_down = False
        await until(lambda: manager.is_ready)
        assert (await manager.open(ALICE)).info().state == "open"


@pytest.mark.parametrize("rounds", range(0, 60, 3))
async def test_an_opening_given_up_at_any_moment_leaves_nothing(
    manager: SessionManager, controllers: Controllers, rounds: int
) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(manager.get, ALICE)
        for _ in range(rounds):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    opened = manager.list(ALICE)
    assert len(controllers.container_ids()) == len(opened)
    session = await manager.get(ALICE)
    assert (await run(session, "print(1)")).status == "ok"
    assert len(controllers.container_ids()) == 1


async def test_when_the_first_of_two_openers_gives_up_the_second_gets_the_session(
    manager: SessionManager, controllers: Controllers
) -> None:
    found: list[Session] = []

    async def get() -> None:
        found.append(await manager.get(ALICE))

    async with anyio.create_task_group() as second, anyio.create_task_group() as first:
        first.start_soon(manager.get, ALICE)
        await anyio.lowlevel.checkpoint()
        second.start_soon(get)
        await anyio.lowlevel.checkpoint()
        first.cancel_scope.cancel()
    assert len(found) == 1
    assert (await run(found[0], "print(1)")).status == "ok"
    assert len(controllers.container_ids()) == 1


async def test_a_runtime_that_the_policy_does_not_permit_is_refused(
    controllers: Controllers,
) -> None:
    (controllers.policies / "gvisor.yaml").write_text(
        "version: 1\nextends: offline\nruntime: {require: gvisor}\n"
    )
    async with controllers.running() as manager:
        with pytest.raises(PolicyNotEnforced, match="runsc"):
            await manager.open(ALICE, policy="gvisor")
    assert controllers.container_ids() == []


async def test_an_opening_while_the_old_default_is_being_closed_becomes_the_default(
    manager: SessionManager,
) -> None:
    old = await manager.get(ALICE)
    old.begin_end("closed", "it was closed by its caller")
    new = await manager.open(ALICE)
    assert new is not old
    assert await manager.get(ALICE) is new
