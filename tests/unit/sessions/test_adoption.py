"""One controller after another in the same slot, and several side by side."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from sandbox.commands.command import Command
from sandbox.commands.models import CommandRequest, CommandResult
from sandbox.commands.report import report
from sandbox.container.labels import LABEL_SANDBOX
from sandbox.container.spec import ContainerSpec
from sandbox.errors import LinkLost, NotFound, SessionLost
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.link.link import ByteStream
from sandbox.link.memory import pipe
from sandbox.sessions.journal import Journal
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.testing import FakeRuntime

from ...support.waiting import until
from .controllers import Controllers, run

ALICE = Caller("alice")
LABELS = "io.sandbox."

pytestmark = pytest.mark.anyio


def relabel(controllers: Controllers, container_id: str, **labels: str) -> None:
    """Change labels, or annotations of these names, behind the controller's back."""
    container: Any = controllers.engine.containers[container_id]
    changed = {LABELS + name.replace("_", "-"): value for name, value in labels.items()}
    kinds = ("labels", "annotations")
    told = {kind: getattr(container.spec, kind) for kind in kinds}
    assert changed.keys() <= {**told["labels"], **told["annotations"]}.keys()
    container.spec = container.spec.model_copy(
        update={
            kind: {name: changed.get(name, text) for name, text in told[kind].items()}
            for kind in kinds
        }
    )


@contextmanager
def noted(controllers: Controllers) -> Iterator[Journal]:
    """The journal of the served slot, also while a controller has it."""
    journal = Journal(controllers.state / "controllers/serve/state.db")
    try:
        yield journal
    finally:
        journal.close()


def removed(controllers: Controllers) -> list[tuple[str, str]]:
    """The containers that were removed because they were nobody's, and why, as on record."""
    lines = [
        json.loads(line)
        for path in (controllers.state / "controllers/serve/audit").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    return [
        (line["container_id"], line["reason"]) for line in lines if line.get("event") == "removed"
    ]


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


async def test_commands_go_on_from_one_controller_to_the_next(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        async with session.use():
            running = session.commands.start(CommandRequest("say on sleep 0.6"))
            endless = session.commands.start(CommandRequest("sleep 600"))
            done = await session.commands.run("echo done")
            await until(lambda: running.position)
    async with controllers.running(keep=True) as second:
        found = await second.command(ALICE, running.command_id)
        assert isinstance(found, Command)
        with anyio.fail_after(10):
            await found.wait()
        told = report(found)
        assert (told.status, told.stdout) == ("exited", "on\n")
        assert await second.command(ALICE, done.command_id) == done
        with pytest.raises(NotFound):
            await second.command(Caller("bob"), running.command_id)
        assert (await second.get(ALICE)).lease.last_used == pytest.approx(time.time(), abs=5)
        controllers.ahead_s = 60
        assert (await second.get(ALICE)).lease.last_used > time.time() + 50  # one still runs
        await second.close(ALICE)
        gone = await second.command(ALICE, endless.command_id)
        assert isinstance(gone, CommandResult)
        assert gone.status == "lost"
        assert "closed" in (gone.reason or "")


async def test_commands_of_a_container_that_is_gone_are_lost(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        async with session.use():
            running = session.commands.start(CommandRequest("sleep 600"))
            await until(lambda: running.is_started)
    controllers.engine.containers.clear()
    async with controllers.running(keep=True) as second:
        gone = await second.command(ALICE, running.command_id)
        assert isinstance(gone, CommandResult)
        assert gone.status == "lost"


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


async def test_an_edited_policy_file_does_not_touch_live_sessions(controllers: Controllers) -> None:
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
        {"created_at": "nan"},
        {"uid": "0"},
        {"uid": "300000"},
        {"sandbox": "sb-00000000000000000000000000000000"},
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
    controllers.engine.alter_facts = lambda facts: {**facts, "init": False}
    async with controllers.running(keep=True) as second:
        with pytest.raises(SessionLost, match="init"):
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
    with noted(controllers) as journal:
        journal._db.write("UPDATE sessions SET state = 'opening'")
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert controllers.container_ids() == []
        with pytest.raises(NotFound):
            await second.get(ALICE, session.session_id)


async def test_with_the_journal_gone_containers_are_nobodys_and_are_removed(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
    for path in (controllers.state / "controllers/serve").glob("state.db*"):
        path.unlink()
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert controllers.container_ids() == []
        with pytest.raises(NotFound):
            await second.get(ALICE, session.session_id)
    assert removed(controllers) == [(session.container_id, "no session has claimed it")]


async def test_a_container_that_no_claim_names_is_removed_and_the_others_are_taken_back(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        kept = await first.get(ALICE)
        nobodys = await first.get(Caller("bob"))
    with noted(controllers) as journal:
        journal.not_opened(nobodys.session_id)
    async with controllers.running(keep=True) as second:
        assert (await second.get(ALICE)).session_id == kept.session_id
        assert controllers.container_ids() == [kept.container_id]
        with pytest.raises(NotFound):
            await second.get(Caller("bob"), nobodys.session_id)


async def test_a_claim_is_good_for_one_container(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        spec = session.sandbox.spec.model_copy(update={"name": "another"})
        await first.runtime.start(await first.runtime.create(spec))
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert len(controllers.container_ids()) == 1
        assert (await second.get(ALICE)).session_id == session.session_id


@pytest.mark.parametrize(
    "claimed", [{"uid": 300_000}, {"policy_digest": "0" * 64}, {"sandbox_id": "sb-other"}]
)
async def test_a_claim_that_does_not_fit_the_containers_labels_is_not_believed(
    controllers: Controllers, claimed: dict[str, Any]
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
    with noted(controllers) as journal:
        for column, value in claimed.items():
            journal._db.write(f"UPDATE sessions SET {column} = ?", value)  # noqa: S608  # above
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert controllers.container_ids() == []
        with pytest.raises(SessionLost):
            await second.get(ALICE, session.session_id)


async def test_the_claim_is_in_the_journal_before_there_is_a_container(
    controllers: Controllers,
) -> None:
    before: list[tuple[str, str, str]] = []

    class Watched(FakeRuntime):
        async def create(self, spec: ContainerSpec) -> str:
            with noted(controllers) as journal:
                before.extend((r.sandbox_id, r.principal, r.state) for r in journal.not_ended())
            assert [spec.labels[LABEL_SANDBOX]] == [sandbox_id for sandbox_id, *_ in before]
            return await super().create(spec)

    controllers.make_runtime = Watched
    async with controllers.running() as manager:
        session = await manager.get(ALICE)
        assert before == [(session.claim.sandbox_id, "alice", "opening")]


@pytest.mark.parametrize("call", ["create", "start", "inspect", "connect"])
async def test_a_controller_that_dies_during_an_open_leaves_nothing(
    controllers: Controllers, call: str
) -> None:
    """Killed there: the next one finds the journal and the engine as they are at that moment."""
    reached = anyio.Event()

    class Dying(FakeRuntime):
        def __getattribute__(self, name: str) -> Any:
            method = super().__getattribute__(name)
            if name != call:
                return method

            async def hang(*arguments: Any) -> Any:
                await method(*arguments)
                reached.set()
                with anyio.CancelScope(shield=True):
                    await dead.wait()

            return hang

    controllers.make_runtime = Dying
    dead = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def open_and_die() -> None:
            async with controllers.running(keep=True) as manager:
                await manager.get(ALICE)

        tasks.start_soon(open_and_die)
        await reached.wait()
        # A copy of its state directory is what a killed controller leaves there.
        state = controllers.state.with_name("left")
        shutil.copytree(controllers.state, state)
        controllers.state, died = state, controllers.state
        controllers.make_runtime = FakeRuntime
        async with controllers.running() as second:
            await until(lambda: second.is_ready)
            assert controllers.container_ids() == []
            assert second.list(ALICE) == []
            with noted(controllers) as journal:
                assert journal.not_ended() == []
        controllers.state = died
        dead.set()
        tasks.cancel_scope.cancel()


async def test_a_session_of_before_the_claims_is_lost_and_its_container_is_removed(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as first:
        session = await first.get(ALICE)
        other = await first.get(Caller("bob"))
    with noted(controllers) as journal:
        journal._db.write("UPDATE sessions SET sandbox_id = '', uid = 0, policy_digest = ''")
    for each in (session, other):
        container: Any = controllers.engine.containers[each.container_id or ""]
        labels = dict(container.spec.labels)
        del labels[LABEL_SANDBOX]
        container.spec = container.spec.model_copy(update={"labels": labels})
    async with controllers.running(keep=True) as second:
        await until(lambda: second.is_ready)
        assert controllers.container_ids() == []
        for caller, lost in ((ALICE, session), (Caller("bob"), other)):
            with pytest.raises(SessionLost, match="container was gone"):
                await second.get(caller, lost.session_id)


async def test_labels_hold_no_principal_no_session_and_nothing_else_of_whose_it_is(
    controllers: Controllers,
) -> None:
    caller = Caller("alice-the-principal", "key-of-the-conversation")
    async with controllers.running() as manager:
        session = await manager.open(caller, name="name-of-hers")
        spec = controllers.engine.containers[session.container_id or ""].spec
        told = spec.model_dump_json()
        for whose in (caller.principal, caller.default_key, "name-of-hers", session.session_id):
            assert whose not in told
        assert session.session_id.removeprefix("s-")[:12] not in told
        assert repr(session.claim.expires_at) not in told


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
    async with controllers.running("stdio") as next_one:
        with pytest.raises(SessionLost, match="is expired: its time was over"):
            await next_one.get(ALICE)
        assert (await next_one.get(ALICE)).session_id != session.session_id


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


@pytest.mark.timed
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
    monkeypatch.setattr("sandbox.container.connection.READY_TIMEOUT_S", 0.2)
    monkeypatch.setattr("sandbox.container.connection.MAX_FAILURES", 3)
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
