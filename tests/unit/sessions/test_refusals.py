"""Policies that permit another runtime than one that makes less of a sandbox than they say."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from sandbox.container.spec import ContainerSpec
from sandbox.errors import NotPermitted, PolicyNotEnforced
from sandbox.policy import Policy, load
from sandbox.sessions.models import Caller
from sandbox.sessions.notices import noticing
from sandbox.sessions.refusals import FOR_S, Refusals
from sandbox.testing import FakeEngine, FakeRuntime

from ...support.waiting import until
from .controllers import Controllers

ALICE = Caller("alice")
EITHER = "version: 1\nruntime: {prefer: [runsc, runc]}\nlimits: {sessions: 9}\n"
READY = f"{EITHER}pool: {{min: 1, max: 1}}\n"
STRICT = "version: 1\nruntime: {prefer: [runsc, runc], require: gvisor}\n"

pytestmark = pytest.mark.anyio


class Weak(FakeRuntime):
    """Containers under some runtimes have a network that they must not have."""

    weak: frozenset[str]
    forbidden: frozenset[str] = frozenset()
    made: list[str]
    """The runtimes of all containers, in their order."""

    async def create(self, spec: ContainerSpec) -> str:
        if spec.runtime in self.forbidden:
            raise NotPermitted("The broker does not permit that runtime.")
        type(self).made.append(spec.runtime)
        return await super().create(spec)

    async def start(self, container_id: str) -> None:
        runtime = self.fake.containers[container_id].spec.runtime
        self.fake.probe = {"interfaces": ["lo", "eth0"]} if runtime in self.weak else {}
        await super().start(container_id)


@pytest.fixture
def weak(tmp_path: Path) -> Controllers:
    """Controllers of an engine whose gVisor cannot be trusted."""
    folder = tmp_path / "policies"
    folder.mkdir()
    for name, text in (("either", EITHER), ("strict", STRICT)):
        (folder / f"{name}.yaml").write_text(text)
    made = Controllers(FakeEngine(runtimes=("runc", "runsc")), tmp_path / "state", folder)
    Weak.weak, Weak.made = frozenset({"runsc"}), []
    made.make_runtime = Weak
    return made


async def test_the_next_one_that_is_permitted_and_proves_is_taken_and_the_caller_told(
    weak: Controllers,
) -> None:
    async with weak.running() as manager:
        for _ in range(2):
            with noticing() as told:
                session = await manager.open(ALICE, policy="either", reuse=False)
            assert (session.info().state, session.info().runtime) == ("open", "runc")
            (words,) = told
            assert "prefers the runtime runsc, which was refused" in words
            assert "eth0" in words
        assert Weak.made == ["runsc", "runc", "runc"]
        assert len(weak.container_ids()) == 2


async def test_a_policy_that_requires_it_is_refused(weak: Controllers) -> None:
    async with weak.running() as manager:
        for _ in range(2):
            with pytest.raises(PolicyNotEnforced, match="eth0"):
                await manager.open(ALICE, policy="strict")
    assert Weak.made == ["runsc", "runsc"]
    assert weak.container_ids() == []


@pytest.mark.parametrize("runtimes", [("runsc",), ("runc", "runsc")], ids=["absent", "weak, too"])
async def test_where_no_other_will_do_it_is_refused(
    weak: Controllers, runtimes: tuple[str, ...]
) -> None:
    weak.engine.runtimes = runtimes
    Weak.weak = frozenset({"runc", "runsc"})
    async with weak.running() as manager:
        for _ in range(2):
            with anyio.fail_after(10), pytest.raises(PolicyNotEnforced, match="eth0"):
                await manager.open(ALICE, policy="either")
    assert weak.container_ids() == []


async def test_one_that_the_operator_forces_is_not_replaced(weak: Controllers) -> None:
    async with weak.running(runtime="runsc") as manager:
        with pytest.raises(PolicyNotEnforced, match="eth0"):
            await manager.open(ALICE, policy="either")
    async with weak.running(runtime="runc") as manager:
        with pytest.raises(NotPermitted):
            await manager.open(ALICE, policy="strict")
    assert Weak.made == ["runsc"]


async def test_a_refusal_of_the_next_one_says_why_it_was_tried(
    weak: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Weak, "forbidden", frozenset({"runc"}))
    async with weak.running() as manager:
        for _ in range(2):
            with pytest.raises(NotPermitted, match=r"broker .* prefers the runtime runsc.*eth0"):
                await manager.open(ALICE, policy="either")
    assert weak.container_ids() == []


async def test_the_pool_takes_the_next_one_too(weak: Controllers) -> None:
    (weak.policies / "either.yaml").write_text(READY)
    (weak.policies / "strict.yaml").unlink()
    weak.policy_set = lambda: load(weak.policies, default="either")
    async with weak.running(pool=True) as manager:
        await until(lambda: any(info.ready for info in manager.pool.infos()))
        with noticing() as told:
            session = await manager.open(ALICE)
        assert (session.info().was_ready, session.info().runtime) == (True, "runc")
        assert len(told) == 1


def test_it_is_tried_again_when_some_time_has_passed() -> None:
    now = 0.0
    refusals = Refusals(lambda: now)
    policy = Policy.model_validate({"name": "p", "runtime": {"prefer": ["runsc", "runc"]}})
    refusals.note(policy, "runsc", "Too little.")
    assert refusals.reason(policy, "runsc") == "Too little."
    assert "Too little." in refusals.told(policy, "runc")
    now = FOR_S
    assert (refusals.reason(policy, "runsc"), refusals.told(policy, "runc")) == ("", "")


def test_another_policy_is_not_concerned() -> None:
    refusals = Refusals()
    refusals.note(Policy(name="one"), "runc", "Too little.")
    assert refusals.reason(Policy(name="other"), "runc") == ""
