"""Sessions that claim sandboxes which were ready long before; the engine is a fake."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from sandbox.container.sandbox import Sandbox
from sandbox.egress.machine import Outfit
from sandbox.errors import InfrastructureError
from sandbox.secrets import SessionSecrets
from sandbox.sessions.claims import Claim, new_session_id
from sandbox.sessions.making import Surroundings
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.session import Session

from .controllers import Controllers, run

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def stock(manager: SessionManager) -> AsyncIterator[Sandbox]:
    """A sandbox that is ready, and nobody's."""
    services = manager._services
    policy = manager.policies.get()
    around = Surroundings(await services.engine.get(), Outfit())
    sandbox = manager._opener._maker.sandbox(policy, around)
    async with anyio.create_task_group() as tasks:
        await sandbox.open(tasks)
        try:
            yield sandbox
        finally:
            await sandbox.remove()


def claiming(manager: SessionManager, sandbox: Sandbox, principal: str = "alice") -> Session:
    """A session that is to claim it."""
    now = manager._services.clock()
    claim = Claim(
        session_id=new_session_id(),
        principal=principal,
        sandbox_id=sandbox.identity.sandbox_id,
        uid=sandbox.identity.uid,
        policy_digest=sandbox.policy.digest,
        name="",
        opener_key="",
        default_key=None,
        workspace="",
        created_at=now,
        expires_at=now + sandbox.policy.limits.lifetime_s,
    )
    return Session(claim, sandbox, manager._services, secrets=SessionSecrets(), last_used=now)


async def test_a_session_can_claim_a_sandbox_that_has_long_been_ready(
    manager: SessionManager, controllers: Controllers
) -> None:
    async with stock(manager) as sandbox, anyio.create_task_group() as tasks:
        assert sandbox.claimant is None
        controllers.ahead_s += 3600.0  # far beyond the age at which a container may be made
        session = claiming(manager, sandbox)
        await tasks.start(session.run)
        assert (await run(session, "print(6 * 7)")).outputs[0]["text"] == "42\n"
        info = session.info()
        assert info.created_at - sandbox.identity.created_at >= 3600.0
        assert info.expires_at == info.created_at + sandbox.policy.limits.lifetime_s
        assert info.checks_passed > 10
        await session.end("closed", "it was closed by its caller")
        assert controllers.container_ids() == []  # it served one session, once


async def test_a_second_session_is_not_opened_in_a_claimed_sandbox_and_does_not_end_it(
    manager: SessionManager, controllers: Controllers
) -> None:
    async with stock(manager) as sandbox, anyio.create_task_group() as tasks:
        first = claiming(manager, sandbox)
        await tasks.start(first.run)
        with pytest.raises(InfrastructureError):
            await claiming(manager, sandbox, "mallory").run()
        assert (await run(first, "print(1)")).outputs[0]["text"] == "1\n"
        assert controllers.container_ids() == [sandbox.container_id]
        assert manager._services.journal.of_sandbox(first.claim.sandbox_id) is not None
        await first.end("closed", "it was closed by its caller")


async def test_a_claim_that_cannot_be_written_leaves_the_sandbox_unclaimed(
    manager: SessionManager,
) -> None:
    database = manager._services.journal._db
    async with stock(manager) as sandbox:
        database.write("PRAGMA query_only = ON")
        with pytest.raises(InfrastructureError):
            await claiming(manager, sandbox).run()
        database.write("PRAGMA query_only = OFF")
        assert sandbox.claimant is None
        assert sandbox.is_up


async def test_a_claim_fits_the_sandbox_that_it_names_and_no_other(manager: SessionManager) -> None:
    async with stock(manager) as sandbox:
        claim = claiming(manager, sandbox).claim
        assert claim.fits(sandbox.identity, sandbox.policy)
        assert not replace(claim, uid=claim.uid + 1).fits(sandbox.identity, sandbox.policy)
        other = sandbox.identity.model_copy(update={"sandbox_id": "sb-other"})
        assert not claim.fits(other, sandbox.policy)
        assert not claim.fits(sandbox.identity, manager.policies.get("tight"))


def test_session_ids_are_long_plain_and_never_twice() -> None:
    made = {new_session_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"s-[a-z2-7]{26}", each) for each in made)
