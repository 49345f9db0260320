"""Branches and checkpoints of kernels: what goes on where, and what is refused."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sandbox.errors import (
    Conflict,
    InvalidRequest,
    LinkLost,
    NotFound,
    ProtocolError,
    QuotaExceeded,
)
from sandbox.kernels import branches
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, Kernels
from sandbox.kernels.models import ExecutionResult
from sandbox.link.link import Stream
from sandbox.policy.models import Limits
from sandbox.testing.kernel import FakeKernel

from ...support.waiting import until
from .conftest import Bench

pytestmark = pytest.mark.anyio


async def run(kernels: Kernels, code: str, kernel_id: str = "") -> ExecutionResult:
    execution = await kernels.execute(code, kernel_id=kernel_id)
    with anyio.fail_after(10):
        return await execution.wait()


async def shown(kernels: Kernels, code: str, kernel_id: str = "") -> str:
    (output,) = (await run(kernels, code, kernel_id)).outputs
    return output["text"]


async def names(kernels: Kernels, kernel_id: str = "") -> list[str]:
    _, found = await kernels.branches.checkpoints(kernel_id)
    return [each.name for each in found]


# --- branches


async def test_a_branch_has_all_that_its_kernel_has_and_each_goes_its_own_way(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        branch = await kernels.branches.branch()
        await run(kernels, "x = x + 10", branch.kernel_id)
        own = await shown(kernels, "print(x)")
        theirs = await run(kernels, "print(x)", branch.kernel_id)

    assert branch.branch_of == DEFAULT_KERNEL_ID
    assert (branch.state, branch.execution_count) == ("idle", 1)
    assert own == "1\n"
    assert theirs.outputs[0]["text"] == "11\n"
    assert theirs.execution_count == 3, "its count goes on"


async def test_a_branch_of_a_branch_says_whose_it_is(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        first = await kernels.branches.branch()
        second = await kernels.branches.branch(first.kernel_id)
        await kernels.stop(first.kernel_id)

        assert second.branch_of == first.kernel_id
        assert await shown(kernels, "print(x)", second.kernel_id) == "1\n"


async def test_branches_count_as_kernels_of_the_policy(bench: Bench) -> None:
    async with bench.controller(Limits(kernels=2)) as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.branch()
        with pytest.raises(QuotaExceeded, match="2 kernels"):
            await kernels.branches.branch()
        assert len(kernels.infos) == len(bench.supervisor.kernels) == 2


async def test_what_cannot_be_copied_is_named_and_nothing_is_left_of_the_branch(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1\nblock(\"the thread 'loader'\")")
        with pytest.raises(Conflict, match="the thread 'loader'"):
            await kernels.branches.branch()
        with pytest.raises(Conflict, match="the thread 'loader'"):
            await kernels.branches.checkpoint("a")

        assert [each.kernel_id for each in kernels.infos] == [DEFAULT_KERNEL_ID]
        assert await names(kernels) == []
        assert await shown(kernels, "print(x)") == "1\n"


async def test_a_copy_waits_a_little_for_the_cell_that_runs(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(0.05); x = 1")
        await until(lambda: execution.was_seen)
        kept = await kernels.branches.checkpoint("a")
        assert (execution.snapshot().status, kept.name) == ("ok", "a")


async def test_a_branch_is_asked_nothing_before_its_first_cell(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        branch = await kernels.branches.branch()
        made = kernels.kernel(branch.kernel_id)
        assert made.self_description == kernels.kernel().self_description
        assert made.self_description is not None
        assert "kernel_info_request" not in bench.supervisor.kernels[branch.kernel_id].asked
        assert await shown(kernels, "print(x)", branch.kernel_id) == "1\n"


async def test_what_of_the_files_is_not_kept_or_back_as_it_was_is_told_within_bounds(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        told = bench.supervisor.checkpoints.told_of_files
        told |= {"changing": ["log"] * 10, "changing_count": 12, "left_out": ["a" * 4000]}
        told |= {"left_out_count": 1, "lost": ["fifo\x1b"], "lost_count": 1}
        kept = await kernels.branches.checkpoint("a", files=True)
        back = await kernels.branches.roll_back("a")
        without = await kernels.branches.checkpoint("b")
        told |= {"changing": ["log"] * 11}
        with pytest.raises(ProtocolError):
            await kernels.branches.checkpoint("c", files=True)

    assert ["12 are neither" in kept.notes[0], "log, …" in kept.notes[0]] == [True, True]
    assert "1 is not kept" in kept.notes[1]
    assert len(kept.notes[1]) < 400
    (lost,) = back.notes
    assert "1 is gone" in lost
    assert "\x1b" not in lost
    assert without.notes == ()


async def test_a_busy_kernel_is_not_copied_and_says_what_it_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "BUSY_WAIT_S", 0.01)
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)")
        await until(lambda: execution.was_seen)
        for copy in (kernels.branches.branch(), kernels.branches.checkpoint("a")):
            with pytest.raises(Conflict, match=execution.execution_id):
                await copy
        await execution.cancel()
        assert (await execution.wait(10)).status == "interrupted"


async def test_no_cell_begins_while_its_kernel_is_copied(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        kernel = kernels.kernel()
        with kernel.cells.at_rest():
            execution = await kernels.execute("x = 2")
            await anyio.wait_all_tasks_blocked()
            assert not execution.was_seen
            assert bench.supervisor.kernels[DEFAULT_KERNEL_ID].variables == {"x": 1}
        assert (await execution.wait(10)).status == "ok"


async def test_a_kernel_of_another_language_is_refused_by_name(bench: Bench) -> None:
    async with bench.controller() as kernels:
        bash = await kernels.start("bash")
        for copy in (
            kernels.branches.branch(bash.kernel_id),
            kernels.branches.checkpoint("a", bash.kernel_id),
            kernels.branches.roll_back("a", bash.kernel_id),
        ):
            with pytest.raises(Conflict, match="bash"):
                await copy
        assert await names(kernels, bash.kernel_id) == []


async def test_a_dead_kernel_is_not_branched(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "die(3)")
        with pytest.raises(Conflict, match="exited with code 3"):
            await kernels.branches.branch()


# --- checkpoints


async def test_a_kernel_is_rolled_back_again_and_again(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        kept = await kernels.branches.checkpoint("clean")
        for _ in range(2):
            await run(kernels, "x = x + 1")
            back = await kernels.branches.roll_back("clean")
            assert (back.kernel.kernel_id, back.kernel.state, back.kernel.execution_count) == (
                *(DEFAULT_KERNEL_ID, "idle"),
                1,
            )
            assert back.ended == []
            assert await shown(kernels, "print(x)") == "1\n"

    assert (kept.name, kept.files, kept.alive) == ("clean", False, True)
    assert kept.memory_bytes > 0


async def test_a_rollback_ends_what_runs_and_what_waits_as_interrupted(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        running = await kernels.execute("x = 2\nsleep(30)")
        behind = await kernels.execute("x = 3")
        await until(lambda: running.was_seen)
        back = await kernels.branches.roll_back("a")
        results = [await each.wait(10) for each in (running, behind)]

        assert back.ended == [running.execution_id, behind.execution_id]
        assert [(r.status, r.state) for r in results] == [("interrupted", "rolled_back")] * 2
        assert "'a'" in (results[0].reason or "")
        assert "nothing of it was executed" in (results[1].reason or "")
        assert await shown(kernels, "print(x)") == "1\n"


@pytest.mark.parametrize("code", ["die('oom')", "die(0)"])
async def test_a_dead_kernel_is_brought_back(bench: Bench, code: str) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        await run(kernels, f"x = 2\n{code}")
        with pytest.raises(Conflict) as refused:
            await kernels.execute("x")
        back = await kernels.branches.roll_back("a")

        assert "'a'" in refused.value.remedy
        assert back.kernel.state == "idle"
        assert await shown(kernels, "print(x)") == "1\n"


async def test_checkpoints_outlive_a_restart_of_their_kernel(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        await kernels.restart()
        assert (await run(kernels, "x")).status == "error"
        await kernels.branches.roll_back("a")
        assert await shown(kernels, "print(x)") == "1\n"


async def test_a_checkpoint_that_is_not_there_or_is_lost_changes_nothing(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        bench.supervisor.checkpoints.frozen[DEFAULT_KERNEL_ID]["a"].alive = False
        running = await kernels.execute("sleep(30)")
        with pytest.raises(NotFound, match="'b'"):
            await kernels.branches.roll_back("b")
        with pytest.raises(NotFound, match="'b'"):
            await kernels.branches.drop("b")
        with pytest.raises(Conflict, match="lost"):
            await kernels.branches.roll_back("a")
        _, (told,) = await kernels.branches.checkpoints()

        assert not told.alive
        assert not running.is_over
        await running.cancel()
        await kernels.branches.drop("a")
        assert await names(kernels) == []


async def test_a_rollback_that_the_supervisor_refuses_leaves_the_kernel_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise Conflict("There is no memory for it.")

    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        running = await kernels.execute("sleep(0.2)\nx = 2")
        monkeypatch.setattr(FakeKernel, "roll_back", refuse)
        with pytest.raises(Conflict, match="no memory"):
            await kernels.branches.roll_back("a")
        assert (await running.wait(10)).status == "ok"
        assert await shown(kernels, "print(x)") == "2\n"


async def test_files_come_back_with_a_checkpoint_that_has_them(bench: Bench) -> None:
    files = bench.supervisor.files
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        kept = await kernels.branches.checkpoint("a", files=True)
        assert bench.link is not None
        await bench.link.call("file.mkdir", path="new")
        assert list(files.copied()) == ["/workspace/new"]
        await kernels.branches.roll_back("a")
        assert kept.files
        assert files.copied() == {}


@pytest.mark.parametrize("name", ["", "auto-1", "a b", "../a", "a" * 65, "ä", "-a", "a\n"])
async def test_a_name_that_cannot_be_one_is_refused(bench: Bench, name: str) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "1")
        with pytest.raises(InvalidRequest):
            await kernels.branches.checkpoint(name)
        assert not bench.supervisor.checkpoints.frozen.get(DEFAULT_KERNEL_ID)


async def test_a_name_is_of_one_checkpoint_of_a_kernel(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        branch = await kernels.branches.branch()
        await kernels.branches.checkpoint("a")
        await kernels.branches.checkpoint("a", branch.kernel_id)
        with pytest.raises(Conflict, match="'a'"):
            await kernels.branches.checkpoint("a")


async def test_a_session_has_no_more_checkpoints_than_its_policy_allows(bench: Bench) -> None:
    async with bench.controller(Limits(checkpoints=2)) as kernels:
        await run(kernels, "x = 1")
        branch = await kernels.branches.branch()
        await kernels.branches.checkpoint("a")
        await kernels.branches.checkpoint("b", branch.kernel_id)
        with pytest.raises(QuotaExceeded, match="2 checkpoints"):
            await kernels.branches.checkpoint("c")
        await kernels.branches.drop("b", branch.kernel_id)
        await kernels.branches.checkpoint("c")
        assert await names(kernels) == ["a", "c"]


async def test_calls_at_once_do_not_pass_the_bound_together(bench: Bench) -> None:
    async with bench.controller(Limits(checkpoints=1)) as kernels:
        await run(kernels, "x = 1")
        refused: list[QuotaExceeded] = []

        async def checkpoint(name: str) -> None:
            try:
                await kernels.branches.checkpoint(name)
            except QuotaExceeded as exc:
                refused.append(exc)

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(checkpoint, name)
        assert len(refused) == 2
        assert len(await names(kernels)) == 1


async def test_the_checkpoints_of_a_stopped_kernel_are_gone_with_it(bench: Bench) -> None:
    async with bench.controller(Limits(checkpoints=1)) as kernels:
        await run(kernels, "x = 1")
        branch = await kernels.branches.branch()
        await kernels.branches.checkpoint("a", branch.kernel_id)
        await kernels.stop(branch.kernel_id)
        await kernels.branches.checkpoint("b")


# --- before each cell


async def test_a_checkpoint_before_each_cell_undoes_it(bench: Bench) -> None:
    async with bench.controller() as kernels:
        kernels.branches.is_auto = True
        results = [await run(kernels, code) for code in ("x = 1", "x = 2", "x = 3")]
        back = await kernels.branches.roll_back(results[1].checkpoint)

        assert [each.checkpoint for each in results] == ["auto-1", "auto-2", "auto-3"]
        assert back.kernel.execution_count == 1
        assert await shown(kernels, "print(x)") == "1\n"


async def test_the_last_few_are_kept_of_those_before_cells(bench: Bench) -> None:
    async with bench.controller(Limits(auto_checkpoints=2)) as kernels:
        kernels.branches.is_auto = True
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("mine")
        for _ in range(3):
            await run(kernels, "x = x + 1")
        assert await names(kernels) == ["mine", "auto-3", "auto-4"]


async def test_after_a_rollback_the_numbers_go_on_from_there(bench: Bench) -> None:
    async with bench.controller() as kernels:
        kernels.branches.is_auto = True
        for code in ("x = 1", "x = 2", "x = 3"):
            await run(kernels, code)
        await kernels.branches.roll_back("auto-2")
        again = await run(kernels, "x = 20")
        await kernels.branches.roll_back(again.checkpoint)

        assert (again.checkpoint, again.execution_count) == ("auto-2", 2)
        assert await shown(kernels, "print(x)") == "1\n"


async def test_those_before_cells_make_room_for_others_and_never_the_other_way_round(
    bench: Bench,
) -> None:
    async with bench.controller(Limits(checkpoints=2)) as kernels:
        kernels.branches.is_auto = True
        await run(kernels, "x = 1")
        await run(kernels, "x = 2")
        await kernels.branches.checkpoint("a")
        assert await names(kernels) == ["auto-2", "a"]
        await kernels.branches.checkpoint("b")
        assert await names(kernels) == ["a", "b"]

        result = await run(kernels, "x = 3")
        assert (result.status, result.checkpoint) == ("ok", "")
        assert "2 checkpoints" in (result.reason or "")
        assert await names(kernels) == ["a", "b"]


async def test_a_cell_without_a_checkpoint_runs_all_the_same_and_says_why(bench: Bench) -> None:
    async with bench.controller() as kernels:
        kernels.branches.is_auto = True
        await run(kernels, "block(\"the thread 'loader'\")")
        result = await run(kernels, "print(1)")

        assert (result.status, result.checkpoint) == ("ok", "")
        assert "the thread 'loader'" in (result.reason or "")
        assert result.outputs[0]["text"] == "1\n"
        assert result.truncated_bytes == 0


async def test_one_that_the_supervisor_lets_go_for_want_of_memory_is_told_and_counts_no_more(
    bench: Bench,
) -> None:
    async with bench.controller(Limits(checkpoints=1)) as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        kernel = kernels.kernel()
        del bench.supervisor.checkpoints.frozen[DEFAULT_KERNEL_ID]["a"]
        bench.supervisor.kernels[DEFAULT_KERNEL_ID].tell({"event": "checkpoint_lost", "name": "a"})
        await until(lambda: kernel.checkpoints.is_doubted)
        assert await names(kernels) == []
        await kernels.branches.checkpoint("a")


async def test_those_before_cells_that_are_gone_already_are_let_go_in_silence(
    bench: Bench,
) -> None:
    async with bench.controller(Limits(auto_checkpoints=1)) as kernels:
        kernels.branches.is_auto = True
        await run(kernels, "x = 1")
        bench.supervisor.checkpoints.frozen[DEFAULT_KERNEL_ID].clear()
        result = await run(kernels, "x = 2")
        assert (result.checkpoint, result.reason) == ("auto-2", None)
        assert await names(kernels) == ["auto-2"]


async def test_a_list_of_checkpoints_that_makes_no_sense_is_not_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[dict[str, Any]] = [
        {"checkpoints": [{"name": "../x", "created_at": 1.0, "memory_bytes": 1}]},
        {"checkpoints": [{"name": "x", "created_at": float("1e300"), "memory_bytes": 1}]},
        {"checkpoints": [{"name": "x", "created_at": 1.0, "memory_bytes": -1}]},
        {
            "checkpoints": [
                {"name": f"n{n}", "created_at": 1, "memory_bytes": 1} for n in range(300)
            ]
        },
        {"checkpoints": "none"},
    ]

    async def lie(stream: Stream, *_: object) -> None:
        await stream.send_json(answers[0])

    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        monkeypatch.setattr(bench.supervisor.checkpoints, "serve", lie)
        while answers:
            with pytest.raises(ProtocolError):
                await kernels.branches.checkpoints()
            with pytest.raises(ProtocolError):
                await kernels.branches.checkpoint("a")
            answers.pop(0)
        assert await shown(kernels, "print(x)") == "1\n"


async def test_a_supervisor_that_makes_no_checkpoint_holds_no_cell_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object) -> None:
        await anyio.sleep_forever()

    monkeypatch.setattr("sandbox.kernels.branches.AUTO_TIMEOUT_S", 0.05)
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        kernels.branches.is_auto = True
        monkeypatch.setattr(bench.supervisor.checkpoints, "serve", never)
        result = await run(kernels, "print(x)")
        assert (result.status, result.checkpoint) == ("ok", "")
        assert "0.05 s" in (result.reason or "")


async def test_cells_of_other_languages_run_without(bench: Bench) -> None:
    async with bench.controller() as kernels:
        kernels.branches.is_auto = True
        bash = await kernels.start("bash")
        result = await run(kernels, "print(1)", bash.kernel_id)
        assert (result.status, result.checkpoint, result.reason) == ("ok", "", None)


# --- links and controllers


async def test_the_next_controller_finds_branches_and_checkpoints(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        branch = await kernels.branches.branch()
        await run(kernels, "x = 2", branch.kernel_id)

    async with bench.controller() as kernels:
        found = {each.kernel_id: each.branch_of for each in kernels.infos}
        assert found == {DEFAULT_KERNEL_ID: "", branch.kernel_id: DEFAULT_KERNEL_ID}
        assert await shown(kernels, "print(x)", branch.kernel_id) == "2\n"
        assert await names(kernels) == ["a"]
        await run(kernels, "x = 3")
        await kernels.branches.roll_back("a")
        assert await shown(kernels, "print(x)") == "1\n"


async def test_the_next_controller_counts_what_is_there_and_numbers_on(bench: Bench) -> None:
    limits = Limits(checkpoints=2)
    async with bench.controller(limits) as kernels:
        kernels.branches.is_auto = True
        for _ in range(4):
            await run(kernels, "x = 1")
    async with bench.controller(limits) as kernels:
        kernels.branches.is_auto = True
        result = await run(kernels, "x = 2")
        assert (result.checkpoint, result.execution_count) == ("auto-5", 5)
        await kernels.branches.checkpoint("a")
        await kernels.branches.checkpoint("b")
        with pytest.raises(QuotaExceeded):
            await kernels.branches.checkpoint("c")


async def test_a_rollback_whose_answer_was_lost_is_told_as_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        await kernels.branches.checkpoint("a")
        running = await kernels.execute("x = 2\nsleep(30)")
        await until(lambda: running.was_seen)
        serve = bench.supervisor.checkpoints.serve

        async def and_cut(stream: Stream, op: str, *given: Any) -> None:
            if op == "rollback":
                bench.supervisor.kernels[DEFAULT_KERNEL_ID].roll_back(99, given[0].copied(), "a")
                await bench.cut()
            else:
                await serve(stream, op, *given)

        monkeypatch.setattr(bench.supervisor.checkpoints, "serve", and_cut)
        with pytest.raises(LinkLost):
            await kernels.branches.roll_back("a")
        await bench.connect(kernels)
        result = await running.wait(10)

        assert (result.status, result.state) == ("interrupted", "rolled_back")
        assert await shown(kernels, "print(x)") == "2\n", "as the copy of this test was"
