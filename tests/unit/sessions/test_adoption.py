"""One controller after another in the same slot, and several side by side."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sandbox.errors import LinkLost, NotFound, SessionLost
from sandbox.kernels import Execution, ExecutionResult
from sandbox.link import ByteStream
from sandbox.runtimes.fake import FakeRuntime, pipe
from sandbox.sessions import Caller, SessionManager
from sandbox.sessions.journal import Journal
from sandbox.sessions.state import take_slot

from .controllers import Controllers, run, until

ALICE = Caller("alice")
LABELS = "io.sandbox."

pytestmark = pytest.mark.anyio


def relabel(controllers: Controllers, container_id: str, **labels: str) -> None:
    """Change labels behind the controller's back."""
    container: Any = controllers.engine.containers[container_id]
    changed = {LABELS + name.replace("_", "-"): value for name, value in labels.items()}
    container.spec = container.spec.model_copy(
        update={"labels": {**container.spec.labels, **changed}}
    )


async def test_the_next_controller_takes_sessions_back_with_all_that_is_in_them(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        default = await first.get(ALICE)
        named = await first.open(ALICE, name="work", policy="tight")
        await run(default, "x = 41 + 1")
        before = named.info()
    async with controllers.running(keep=True) as second:
        again = await second.get(ALICE)
        assert again.session_id == default.session_id
        assert (await run(again, "print(x)")).outputs[0]["text"] == "42\n"
        after = (await second.open(ALICE, name="work", policy="tight")).info()
        for field in ("session_id", "name", "policy", "created_at", "expires_at", "image"):
            assert getattr(after, field) == getattr(before, field)
        assert len(second.list(ALICE)) == 2
        await until(lambda: second.is_ready)


async def test_an_execution_goes_on_from_one_controller_to_the_next(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        async with session.use():
            execution = await session.kernels.execute("print(1)\nsleep(0.5)\nprint(2)")
        finished = await run(await first.open(ALICE, reuse=False), "print(3)")
    async with controllers.running(keep=True) as second:
        found = await second.execution(ALICE, execution.execution_id)
        assert isinstance(found, Execution)
        with anyio.fail_after(10):
            result = await found.wait(None)
        assert result.status == "ok"
        assert "".join(output["text"] for output in result.outputs) == "1\n2\n"
        kept = await second.execution(ALICE, finished.execution_id)
        result = kept if isinstance(kept, ExecutionResult) else await kept.wait(1)
        assert result.outputs == finished.outputs


async def test_an_edited_policy_file_does_not_touch_live_sessions(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.open(ALICE, policy="tight")
    tight = controllers.policies / "tight.yaml"
    tight.write_text(tight.read_text().replace("sessions: 2", "sessions: 1"))
    async with controllers.running(keep=True) as second:
        again = await second.get(ALICE, session.session_id)
        assert again.policy.limits.sessions_per_principal == 2
        assert second.policies.get("tight").limits.sessions_per_principal == 1


@pytest.mark.parametrize(
    "labels",
    [
        {"policy_digest": "0" * 64},
        {"policy_json": "{}"},
        {"expires_at": "9999999999.0"},
        {"expires_at": "nan"},
        {"uid": "0"},
        {"principal": "mallory"},
    ],
)
async def test_a_container_that_does_not_match_its_labels_is_removed(
    controllers: Controllers, labels: dict[str, str]
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
    relabel(controllers, session.container_id or "", **labels)
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert session.container_id not in controllers.container_ids()
        with pytest.raises(SessionLost):
            await second.get(ALICE)


async def test_a_container_that_does_not_match_its_policy_any_more_is_removed(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
    controllers.engine.alter_facts = lambda facts: {**facts, "privileged": True}
    async with controllers.running(keep=True) as second:
        with pytest.raises(SessionLost, match="privileged"):
            await second.get(ALICE, session.session_id)
    assert controllers.container_ids() == []


async def test_expiry_counts_while_no_controller_runs(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        idle = await first.open(ALICE, reuse=False)
        lifetime_s, idle_s = session.policy.limits.lifetime_s, idle.policy.limits.idle_s
    controllers.ahead_s = idle_s + 5
    async with controllers.running(keep=True) as second:
        await until(lambda: not controllers.container_ids())
        with pytest.raises(SessionLost, match="not used"):
            await second.get(ALICE, idle.session_id)
        with pytest.raises(SessionLost):
            await second.get(ALICE)
        await second.get(ALICE)
    controllers.ahead_s += lifetime_s + 5
    async with controllers.running(keep=True) as third:
        await until(lambda: third.is_ready)
        assert controllers.container_ids() == []
        with pytest.raises(SessionLost, match="lifetime"):
            await third.get(ALICE)


async def test_a_session_whose_container_is_gone_is_said_to_be_lost_with_its_executions(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        async with session.use():
            execution = await session.kernels.execute("print(5)\nsleep(60)")
        await until(lambda: execution.snapshot().outputs)
    await controllers.engine.kill(session.container_id or "")
    async with controllers.running(keep=True) as second:
        found = await second.execution(ALICE, execution.execution_id)
        assert isinstance(found, ExecutionResult)
        assert (found.status, found.state) == ("lost", "lost")
        with pytest.raises(SessionLost):
            await second.get(ALICE)
        assert (await second.get(ALICE)).session_id != session.session_id


async def test_what_was_never_handed_to_a_caller_is_removed(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
    with take_slot(controllers.state, "serve") as slot:
        journal = Journal(slot.journal)
        journal._db.execute("UPDATE sessions SET state = 'opening'")
        journal.close()
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert controllers.container_ids() == []
        with pytest.raises(NotFound):
            await second.get(ALICE, session.session_id)


async def test_with_the_journal_gone_sessions_are_found_by_their_containers(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        await run(session, "x = 3")
    for path in (controllers.state / "controllers/serve").glob("state.db*"):
        path.unlink()
    async with controllers.running(keep=True) as second:
        again = await second.get(ALICE, session.session_id)
        assert (await run(again, "print(x)")).outputs[0]["text"] == "3\n"
        assert again.info().checks_passed > 10


async def test_controllers_on_one_engine_do_not_touch_each_others_sessions(
    controllers: Controllers,
) -> None:
    async with (
        controllers.running("serve", keep=True) as served,
        controllers.running("stdio") as desktop,
    ):
        theirs = await served.get(ALICE)
        ours = await desktop.get(ALICE)
        assert theirs.session_id != ours.session_id
        for manager in (served, desktop):
            await manager.sweep()
            assert len(manager.list(ALICE)) == 1
        with pytest.raises(NotFound):
            await desktop.get(ALICE, theirs.session_id)
        assert len(controllers.container_ids()) == 2
    assert controllers.container_ids() == [theirs.container_id]


async def test_sessions_of_a_dead_desktop_controller_are_removed_when_their_time_is_over(
    controllers: Controllers,
) -> None:
    async with controllers.running("stdio", keep=True) as dead:
        session = await dead.get(ALICE)
    async with controllers.running("serve") as living:
        await living.sweep()
        assert controllers.container_ids() == [session.container_id]
        controllers.ahead_s += session.policy.limits.idle_s + 5
        await living.sweep()
        assert controllers.container_ids() == []


async def test_a_cancelled_controller_that_keeps_its_sessions_keeps_them(
    controllers: Controllers,
) -> None:
    found: list[SessionManager] = []
    async with anyio.create_task_group() as tasks, controllers.running(keep=True) as manager:
        session = await manager.get(ALICE)
        found.append(manager)
        tasks.cancel_scope.cancel()
        await anyio.sleep(1)
    async with controllers.running() as second:
        assert (await second.get(ALICE)).session_id == session.session_id


async def test_many_sessions_come_back_at_once(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as first:
        ids = [(await first.open(Caller(f"p{n}"))).session_id for n in range(30)]
    async with controllers.running() as second:
        for number, session_id in enumerate(ids):
            assert (await second.get(Caller(f"p{number}"))).session_id == session_id
    assert controllers.container_ids() == []


async def test_a_supervisor_that_is_silent_delays_nobody_else_and_is_given_up(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controllers.running(keep=True) as first:
        silent = [await first.get(Caller(f"silent-{n}")) for n in range(10)]
        talking = await first.get(ALICE)
    connect = FakeRuntime.connect
    mute = {session.container_id for session in silent}

    async def connect_or_not(runtime: FakeRuntime, container_id: str) -> ByteStream:
        return pipe()[0] if container_id in mute else await connect(runtime, container_id)

    monkeypatch.setattr(FakeRuntime, "connect", connect_or_not)
    monkeypatch.setattr("sandbox.sessions.connection.READY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("sandbox.sessions.connection.MAX_FAILURES", 3)
    async with controllers.running(keep=True) as second:
        with anyio.fail_after(2):
            assert (await second.get(ALICE)).session_id == talking.session_id
            assert (await second.open(Caller("new"))).is_usable
        await until(lambda: not mute & set(controllers.container_ids()))
        with pytest.raises(SessionLost, match="could not be reached"):
            await second.get(Caller("silent-0"))


async def test_a_session_whose_first_link_fails_after_a_restart_is_tried_again(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        await run(session, "x = 1")
    connect = FakeRuntime.connect
    failures = iter([LinkLost("once"), LinkLost("twice")])

    async def connect_in_the_end(runtime: FakeRuntime, container_id: str) -> ByteStream:
        for failure in failures:
            raise failure
        return await connect(runtime, container_id)

    monkeypatch.setattr(FakeRuntime, "connect", connect_in_the_end)
    async with controllers.running(keep=True) as second:
        assert (await run(await second.get(ALICE), "print(x)")).outputs[0]["text"] == "1\n"
