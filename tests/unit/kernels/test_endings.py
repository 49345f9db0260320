"""Every execution ends as what it was, and says so (invariant 8)."""

from __future__ import annotations

import anyio
import pytest

from sandbox.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from sandbox.kernels.cells import MAX_WAITING
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, Kernels
from sandbox.kernels.models import ExecutionResult
from sandbox.policy.models import Limits
from sandbox.testing.kernel import FakeKernel

from ...support.waiting import until
from .conftest import Bench

pytestmark = pytest.mark.anyio


async def run(
    kernels: Kernels, code: str, timeout_s: float = 30, kernel_id: str = ""
) -> ExecutionResult:
    execution = await kernels.execute(code, timeout_s=timeout_s, kernel_id=kernel_id)
    with anyio.fail_after(10):
        return await execution.wait()


def ending(result: ExecutionResult) -> tuple[str, str]:
    return result.status, result.state


async def test_a_cell_that_runs_to_its_end_is_ok(bench: Bench) -> None:
    async with bench.controller() as kernels:
        result = await run(kernels, "x = 41\nprint('hi')\nx + 1")

    assert ending(result) == ("ok", "kept")
    assert result.execution_count == 1
    assert result.kernel_id == DEFAULT_KERNEL_ID
    assert result.error is None
    assert result.reason is None
    assert [output["output_type"] for output in result.outputs] == ["stream", "execute_result"]


async def test_a_cell_that_raises_is_an_error_with_a_plain_traceback(bench: Bench) -> None:
    async with bench.controller() as kernels:
        result = await run(kernels, "raise ValueError('no')")

    assert ending(result) == ("error", "kept")
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ValueError", "no")
    assert "\x1b" not in result.error.traceback


async def test_cells_run_one_after_the_other_and_share_variables(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await kernels.execute("sleep(0.1)\nx = 1")
        second = await kernels.execute("x = x + 1\nprint(x)")
        waiting = second.snapshot()
        result = await second.wait(10)

    assert waiting.status == "running"
    assert waiting.reason is not None
    assert first.snapshot().status == "ok"
    assert result.outputs[0]["text"] == "2\n"


async def test_kernels_run_at_the_same_time(bench: Bench) -> None:
    async with bench.controller() as kernels:
        slow = await kernels.execute("sleep(30)")
        other = await kernels.start("python3")
        result = await run(kernels, "1", kernel_id=other.kernel_id)

        assert ending(result) == ("ok", "kept")
        assert not slow.is_over
        await slow.cancel()
        assert (await slow.wait(10)).status == "interrupted"


async def test_time_over_interrupts_and_keeps_the_variables(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        result = await run(kernels, "print('before')\nsleep(30)", timeout_s=0.1)
        after = await run(kernels, "print(x)")

    assert ending(result) == ("timeout", "kept")
    assert result.reason is not None
    assert "0.1 s" in result.reason
    assert result.outputs[0]["text"] == "before\n"
    assert after.outputs[0]["text"] == "1\n"


async def test_a_cell_that_does_not_heed_the_interrupt_loses_its_kernel(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await run(kernels, "x = 1")
        execution = await kernels.execute("print('before')\nhang()", timeout_s=0.1)
        behind = await kernels.execute("print('never')")
        result, unrun = await execution.wait(10), await behind.wait(10)
        after = await run(kernels, "x")

    assert ending(result) == ("timeout", "restarted")
    assert result.outputs[0]["text"] == "before\n"
    assert ending(unrun) == ("lost", "restarted")
    assert unrun.reason is not None
    assert "nothing of it was executed" in unrun.reason
    assert after.error is not None
    assert after.error.name == "NameError"


async def test_an_interrupt_on_request_is_interrupted_and_the_queue_goes_on(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)")
        behind = await kernels.execute("print('on')")
        await until(lambda: execution.was_seen)
        await kernels.interrupt()
        result = await execution.wait(10)

        assert ending(result) == ("interrupted", "kept")
        assert (await behind.wait(10)).status == "ok"


async def test_an_interrupt_just_when_a_cell_begins_is_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeKernel, "deaf_s", 0.02)
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)")
        await execution.executing.wait()
        await kernels.interrupt()
        with anyio.fail_after(10):
            assert ending(await execution.wait()) == ("interrupted", "kept")


async def test_a_keyboard_interrupt_that_nobody_asked_for_is_an_error(bench: Bench) -> None:
    async with bench.controller() as kernels:
        result = await run(kernels, "raise KeyboardInterrupt('mine')")

    assert ending(result) == ("error", "kept")


async def test_a_cell_cancelled_in_the_queue_never_runs(bench: Bench) -> None:
    async with bench.controller() as kernels:
        slow = await kernels.execute("sleep(0.2)")
        waiting = await kernels.execute("x = 1")
        await waiting.cancel()
        result = await waiting.wait(10)
        await slow.wait(10)
        after = await run(kernels, "x")

    assert ending(result) == ("interrupted", "kept")
    assert after.status == "error"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("die('oom')", "out of memory"),
        ("die(3)", "exited with code 3"),
    ],
)
async def test_a_kernel_that_dies_says_of_what_and_stays_dead(
    bench: Bench, code: str, cause: str
) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute(f"print('before')\n{code}")
        behind = await kernels.execute("print('never')")
        result, unrun = await execution.wait(10), await behind.wait(10)
        with pytest.raises(Conflict, match=cause):
            await kernels.execute("1")
        (info,) = kernels.infos

        assert ending(result) == ("died", "lost")
        assert result.reason is not None
        assert cause in result.reason
        assert result.outputs[0]["text"] == "before\n"
        assert ending(unrun) == ("lost", "lost")
        assert unrun.reason is not None
        assert "nothing of it was executed" in unrun.reason
        assert info.state == "dead"

        restarted = await kernels.restart()
        assert restarted.state == "idle"
        assert (await run(kernels, "1")).status == "ok"


async def test_a_restart_ends_what_runs_and_what_waits(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)")
        behind = await kernels.execute("1")
        await until(lambda: execution.was_seen)
        info = await kernels.restart()

        assert info.state == "idle"
        assert ending(await execution.wait(10)) == ("interrupted", "restarted")
        assert ending(await behind.wait(10)) == ("lost", "restarted")


async def test_a_stopped_kernel_is_gone_with_all_that_it_ran(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)")
        await until(lambda: execution.was_seen)
        await kernels.stop()

        assert ending(await execution.wait(10)) == ("interrupted", "lost")
        assert kernels.infos == ()
        with pytest.raises(NotFound):
            await kernels.interrupt()
        assert (await run(kernels, "1")).status == "ok"


async def test_input_fails_with_a_reason(bench: Bench) -> None:
    async with bench.controller() as kernels:
        result = await run(kernels, "input('name?')")

    assert result.status == "error"
    assert result.reason is not None
    assert "input" in result.reason


async def test_the_loss_of_the_container_is_the_end_of_everything(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)")
        await until(lambda: execution.was_seen)
        await kernels.aclose(lost="The container was removed.")
        result = await execution.wait(10)

    assert ending(result) == ("lost", "lost")
    assert result.reason == "The container was removed."
    assert bench.journal.unfinished("s-test") == []


async def test_waiting_is_bounded_and_answers_how_it_stands(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("print('so far')\nsleep(30)")
        await until(lambda: bool(execution.snapshot().outputs))
        result = await execution.wait(0.01)

        assert result.status == "running"
        assert result.outputs[0]["text"] == "so far\n"
        assert result.duration_s > 0


async def test_whoever_watches_is_told_of_each_change(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("print(1)\nsleep(0.05)\nprint(2)")
        versions = [execution.version]
        with anyio.fail_after(10):
            while not execution.is_over:
                versions.append(await execution.changed(versions[-1]))

    assert versions == sorted(set(versions))
    assert len(versions) >= 4


async def test_outputs_of_a_flood_are_bounded_and_the_cut_is_counted(bench: Bench) -> None:
    async with bench.controller(Limits(output_bytes=16 * 1024)) as kernels:
        result = await run(kernels, "flood(10000000)")

    assert result.status == "ok"
    assert len(result.outputs[0]["text"]) <= 16 * 1024
    assert result.truncated_bytes > 9_900_000


async def test_the_default_kernel_is_started_once_for_concurrent_first_cells(bench: Bench) -> None:
    results: list[ExecutionResult] = []
    async with bench.controller() as kernels:

        async def first() -> None:
            results.append(await run(kernels, "1"))

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(first)
        assert len(kernels.infos) == 1

    assert [result.status for result in results] == ["ok"] * 5


async def test_the_number_of_kernels_is_limited(bench: Bench) -> None:
    async with bench.controller(Limits(kernels=2)) as kernels:
        await kernels.start()
        await kernels.start("bash")
        with pytest.raises(QuotaExceeded):
            await kernels.start()


async def test_the_queue_is_limited(bench: Bench) -> None:
    async with bench.controller() as kernels:
        slow = await kernels.execute("sleep(30)")
        await until(lambda: slow.was_seen)
        for _ in range(MAX_WAITING):
            await kernels.execute("1")
        with pytest.raises(QuotaExceeded):
            await kernels.execute("1")


async def test_a_kernelspec_that_does_not_exist_is_named_and_leaves_nothing(bench: Bench) -> None:
    async with bench.controller() as kernels:
        for name in ("cobol", "../python3", "x" * 200):
            with pytest.raises(NotFound):
                await kernels.start(name)

        assert kernels.infos == ()
        assert bench.supervisor.kernels == {}


@pytest.mark.parametrize(
    ("code", "kwargs"),
    [
        ("x" * (1024 * 1024 + 1), {}),
        ("\ud800", {}),
        ("1", {"timeout_s": 0}),
        ("1", {"timeout_s": float("nan")}),
        ("1", {"execution_id": "../x"}),
    ],
)
async def test_a_bad_request_is_refused_before_anything_runs(
    bench: Bench, code: str, kwargs: dict[str, object]
) -> None:
    async with bench.controller() as kernels:
        with pytest.raises(InvalidRequest):
            await kernels.execute(code, **kwargs)  # type: ignore[arg-type]

        assert bench.supervisor.kernels == {}


@pytest.mark.timed
async def test_no_caller_can_exceed_the_time_of_the_policy(bench: Bench) -> None:
    async with bench.controller(Limits(execution_s=1)) as kernels:
        result = await run(kernels, "sleep(30)", timeout_s=1000)

    assert ending(result) == ("timeout", "kept")
    assert result.duration_s < 5


async def test_a_question_to_a_busy_kernel_is_a_conflict(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.kernels.questions.ANSWER_TIMEOUT_S", 0.1)
    async with bench.controller() as kernels:
        await run(kernels, "number = 42")
        found = await kernels.complete("print(num")
        about = await kernels.inspect("number")
        slow = await kernels.execute("sleep(30)")
        await until(lambda: slow.was_seen)
        with pytest.raises(Conflict, match="busy"):
            await kernels.complete("num")

    assert found.matches == []
    assert (about.found, about.text) == (True, "42")


async def test_ended_executions_are_found_in_memory_and_in_the_journal(bench: Bench) -> None:
    async with bench.controller() as kernels:
        first = await kernels.execute("print('first')")
        await first.wait(10)
        for _ in range(70):
            await run(kernels, "1")
        assert kernels.execution(first.execution_id).snapshot() == first.snapshot()
        with pytest.raises(NotFound):
            kernels.execution("absent")
