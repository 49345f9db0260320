"""A sandbox by itself: made, proved, linked, claimed and removed; the engine is a fake."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from sandbox.container.compiler import compile_spec
from sandbox.container.engine import EngineInfo
from sandbox.container.features import ALL, REPORTABLE
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.sandbox import Sandbox
from sandbox.errors import Conflict, ImageMissing, NotPermitted, PolicyNotEnforced, SessionLost
from sandbox.link.link import Link, Stream
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.base import ContainerInfo
from sandbox.testing import FakeEngine, FakeRuntime

pytestmark = pytest.mark.anyio


class Taker:
    """A claimant that notes what the sandbox does with it."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.served: list[str] = []
        self.calls = 0
        self.attached = anyio.Event()

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        self.calls += 1
        yield

    async def attach(self, link: Link) -> None:
        self.links.append(link)
        self.attached.set()

    async def serve(self, stream: Stream) -> None:
        self.served.append(str(stream.request.get("op")))


ENGINE = EngineInfo(
    *("e", "1", "1", 2, ("runc",), True, "x86_64", 8 * 1024**3, 2),
    enforces=ALL,
    reports=REPORTABLE,
)


def make(engine: FakeEngine, container_id: str | None = None) -> Sandbox:
    """A sandbox of the default policy; nobody's name is anywhere in it."""
    policy = load().get()
    identity = SandboxIdentity(
        sandbox_id=new_sandbox_id(), owner="f" * 32, uid=new_uid(), created_at=time.time()
    )
    spec = compile_spec(policy, identity, engine=ENGINE, image="i", seccomp=seccomp_profile())
    return Sandbox(
        identity,
        policy,
        spec,
        FakeRuntime(engine),
        reports=ENGINE.reports,
        container_id=container_id,
    )


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@asynccontextmanager
async def ready(engine: FakeEngine) -> AsyncIterator[Sandbox]:
    """An open sandbox that nobody has claimed."""
    sandbox = make(engine)
    async with anyio.create_task_group() as tasks:
        await sandbox.open(tasks)
        try:
            yield sandbox
        finally:
            await sandbox.remove()
    assert engine.containers == {}


async def connects(engine: FakeEngine, sandbox: Sandbox) -> bytes:
    """What a program inside is told that asks for a way out."""
    container = engine.containers[sandbox.container_id or ""]
    assert container.supervisor is not None
    return await container.supervisor._connect("example.com:443")


async def test_a_sandbox_is_proved_and_linked_before_anybody_has_claimed_it(
    engine: FakeEngine,
) -> None:
    async with ready(engine) as sandbox:
        assert sandbox.is_open
        assert sandbox.is_up
        assert sandbox.claimant is None
        assert sandbox.proof is not None
        assert sandbox.proof.failed == ()
        assert all(check.ok for check in sandbox.inspected)
        assert sandbox.proved_at == pytest.approx(time.time(), abs=30)
        (container,) = engine.containers.values()
        assert (container.id, container.state) == (sandbox.container_id, "running")
        assert container.spec == sandbox.spec


async def test_nothing_leaves_a_sandbox_that_nobody_has(engine: FakeEngine) -> None:
    async with ready(engine) as sandbox:
        with pytest.raises(NotPermitted):
            await connects(engine, sandbox)


async def test_a_ready_sandbox_is_claimed_over_the_link_that_is_up(engine: FakeEngine) -> None:
    async with ready(engine) as sandbox:
        taker = Taker()
        await sandbox.claim(taker)
        (link,) = taker.links
        assert not link.is_closed
        await sandbox.stats()
        assert taker.calls == 1  # the engine is asked in the claimant's turn from now on
        await connects(engine, sandbox)
        assert taker.served == ["egress"]


async def test_a_sandbox_is_claimed_once(engine: FakeEngine) -> None:
    async with ready(engine) as sandbox:
        first = Taker()
        await sandbox.claim(first)
        with pytest.raises(Conflict):
            await sandbox.claim(Taker())
        assert sandbox.claimant is first


async def test_a_sandbox_is_opened_once(engine: FakeEngine) -> None:
    async with ready(engine) as sandbox, anyio.create_task_group() as tasks:
        with pytest.raises(Conflict):
            await sandbox.open(tasks)
        assert len(engine.containers) == 1


async def test_a_sandbox_is_not_open_while_the_engine_has_not_said_what_it_made(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect, go_on = FakeRuntime.inspect, anyio.Event()

    async def inspect_later(runtime: FakeRuntime, container_id: str) -> ContainerInfo:
        await go_on.wait()
        return await inspect(runtime, container_id)

    monkeypatch.setattr(FakeRuntime, "inspect", inspect_later)
    engine.alter_facts = lambda facts: {**facts, "privileged": True}
    sandbox = make(engine)
    async with anyio.create_task_group() as tasks:

        async def open_it() -> None:
            with pytest.raises(PolicyNotEnforced):
                await sandbox.open(tasks)

        async with anyio.create_task_group() as opening:
            opening.start_soon(open_it)
            with anyio.fail_after(5):
                while not sandbox.is_up:
                    await anyio.sleep(0.01)
            assert not sandbox.is_open
            go_on.set()
        assert not sandbox.is_open
        await sandbox.remove()  # and with it the link
    assert engine.containers == {}


async def test_a_sandbox_that_is_claimed_first_has_its_taker_on_its_first_link(
    engine: FakeEngine,
) -> None:
    sandbox, taker = make(engine), Taker()
    await sandbox.claim(taker)
    async with anyio.create_task_group() as tasks:
        await sandbox.open(tasks)
        assert len(taker.links) == 1
        assert sandbox.proof is not None
        await sandbox.remove()


async def test_a_lost_link_is_made_again_for_the_taker(engine: FakeEngine) -> None:
    async with ready(engine) as sandbox:
        taker = Taker()
        await sandbox.claim(taker)
        taker.attached = anyio.Event()
        engine.cut_links()
        with anyio.fail_after(5):
            await taker.attached.wait()
        assert await sandbox.settled(5)
        assert sandbox.is_up
        assert len(taker.links) == 2


async def test_a_container_that_ends_is_told_with_its_cause(engine: FakeEngine) -> None:
    async with ready(engine) as sandbox:
        await engine.kill(sandbox.container_id or "", oom=True)
        with anyio.fail_after(5), pytest.raises(SessionLost, match="ran out of memory"):
            await sandbox.wait_lost()
        assert sandbox.is_over
        assert await sandbox.ran_out_of_memory()


@pytest.mark.parametrize("weaker", ["inspection", "probe"])
async def test_a_sandbox_that_is_weaker_than_its_policy_does_not_open(
    engine: FakeEngine, weaker: str
) -> None:
    if weaker == "inspection":
        engine.alter_facts = lambda facts: {**facts, "privileged": True}
    else:
        engine.probe = {"no_new_privs": False}
    sandbox = make(engine)
    async with anyio.create_task_group() as tasks:
        with pytest.raises(PolicyNotEnforced):
            await sandbox.open(tasks)
        await sandbox.remove()  # which also lets go of a link that came up meanwhile
    assert engine.containers == {}


async def test_a_sandbox_that_was_never_made_has_nothing_to_remove(engine: FakeEngine) -> None:
    engine.images = frozenset()
    sandbox = make(engine)
    async with anyio.create_task_group() as tasks:
        with pytest.raises(ImageMissing):
            await sandbox.open(tasks)
        await sandbox.remove()
        await sandbox.remove()
    assert sandbox.container_id is None


async def test_an_adopted_sandbox_is_opened_by_its_container_and_shows_its_proof_again(
    engine: FakeEngine,
) -> None:
    before = make(engine)
    async with anyio.create_task_group() as tasks:
        await before.open(tasks)
        tasks.cancel_scope.cancel()  # its controller ends, and the container goes on
    after = Sandbox(
        before.identity,
        before.policy,
        before.spec,
        FakeRuntime(engine),
        reports=ENGINE.reports,
        container_id=before.container_id,
    )
    async with anyio.create_task_group() as tasks:
        await after.open(tasks)
        assert after.is_adopted
        assert after.is_up
        with anyio.fail_after(5):
            while after.proof is None:
                await anyio.sleep(0.01)
        await after.remove()
    assert engine.containers == {}
