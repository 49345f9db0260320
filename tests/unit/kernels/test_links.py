"""Links end and controllers die; executions go on, and nothing of them is lost or doubled."""

from __future__ import annotations

import anyio
import pytest

from sandbox.errors import LinkLost
from sandbox.kernels.kernels import Kernels

from ...support.waiting import until
from .conftest import SESSION, Bench

pytestmark = pytest.mark.anyio

COUNTING = "print(1)\nsleep(0.3)\nprint(2)\nsleep(0.3)\nprint(3)"


async def started(kernels: Kernels, code: str) -> str:
    """Start a cell and wait until it has shown something."""
    execution = await kernels.execute(code)
    await until(lambda: bool(execution.snapshot().outputs))
    return execution.execution_id


async def test_a_cell_goes_on_while_the_link_is_down(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute(COUNTING)
        await until(lambda: bool(execution.snapshot().outputs))
        await bench.cut()
        await anyio.sleep(0.7)
        await bench.connect(kernels)
        result = await execution.wait(10)

    assert result.status == "ok"
    assert result.outputs[0]["text"] == "1\n2\n3\n"


async def test_links_that_come_and_go_lose_and_double_nothing(bench: Bench) -> None:
    lines = [f"print({n})\nsleep(0.01)" for n in range(60)]
    async with bench.controller() as kernels:
        execution = await kernels.execute("\n".join(lines))
        for _ in range(6):
            await anyio.sleep(0.1)
            await bench.cut()
            await bench.connect(kernels)
        result = await execution.wait(10)

    assert result.status == "ok"
    assert result.outputs[0]["text"] == "".join(f"{n}\n" for n in range(60))


async def test_cells_wait_for_a_link_and_then_run(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await (await kernels.execute("x = 1")).wait(10)
        await bench.cut()
        execution = await kernels.execute("print(x)")
        assert (await execution.wait(0.1)).status == "running"
        await bench.connect(kernels)

        assert (await execution.wait(10)).outputs[0]["text"] == "1\n"


async def test_a_time_that_ends_while_the_link_is_down_is_kept_afterwards(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("sleep(30)", timeout_s=0.3)
        await until(lambda: execution.was_seen)
        await bench.cut()
        await anyio.sleep(0.5)
        await bench.connect(kernels)
        result = await execution.wait(10)

    assert (result.status, result.state) == ("timeout", "kept")


async def test_what_needs_the_link_says_that_it_is_down(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await (await kernels.execute("1")).wait(10)
        await bench.cut()
        with pytest.raises(LinkLost):
            await kernels.restart()
        with pytest.raises(LinkLost):
            await kernels.start()
        with pytest.raises(LinkLost):
            await kernels.complete("x")
        await bench.connect(kernels)

        assert (await (await kernels.execute("1")).wait(10)).status == "ok"


async def test_the_next_controller_carries_a_running_cell_on(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await (await kernels.execute("x = 41")).wait(10)
        execution_id = await started(kernels, COUNTING)
    async with bench.controller() as kernels:
        result = await kernels.execution(execution_id).wait(10)
        after = await (await kernels.execute("print(x)")).wait(10)

    assert result.status == "ok"
    assert result.outputs[0]["text"] == "1\n2\n3\n"
    assert result.execution_count == 2
    assert after.outputs[0]["text"] == "41\n"


async def test_snapshots_and_the_log_meet_without_a_seam(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed again and again, some time after a snapshot was kept and its messages forgotten."""
    monkeypatch.setattr("sandbox.kernels.journaling.KEEP_INTERVAL_S", 0.2)
    lines = [f"print({n})\nsleep(0.02)" for n in range(75)]
    async with bench.controller() as kernels:
        execution_id = await started(kernels, "\n".join(lines))
        await until(lambda: bool(bench.journal.progressed))
    for pause_s in (0.1, 0.3, 0.2):
        async with bench.controller() as kernels:
            await anyio.sleep(pause_s)
    async with bench.controller() as kernels:
        result = await kernels.execution(execution_id).wait(20)

    assert result.status == "ok"
    assert result.outputs[0]["text"] == "".join(f"{n}\n" for n in range(75))


async def test_an_end_that_nobody_saw_is_found_by_the_next_controller(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution_id = await started(kernels, "print(1)\nsleep(0.2)\nraise ValueError('no')")
    await anyio.sleep(0.4)
    async with bench.controller() as kernels:
        result = await kernels.execution(execution_id).wait(10)

    assert result.status == "error"
    assert result.outputs[0]["text"] == "1\n"


async def test_a_death_that_nobody_saw_is_found_by_the_next_controller(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution_id = await started(kernels, "print(1)\nsleep(0.2)\ndie('oom')")
    await anyio.sleep(0.4)
    async with bench.controller() as kernels:
        result = await kernels.execution(execution_id).wait(10)
        (info,) = kernels.infos

        assert (result.status, result.state) == ("died", "lost")
        assert "out of memory" in (result.reason or "")
        assert info.state == "dead"
        assert (await kernels.restart()).state == "idle"


async def test_what_only_waited_in_a_dead_controller_is_lost_and_says_so(bench: Bench) -> None:
    async with bench.controller() as kernels:
        running = await started(kernels, COUNTING)
        waiting = (await kernels.execute("x = 1")).execution_id
    async with bench.controller() as kernels:
        result = await kernels.execution(waiting).wait(10)
        await kernels.execution(running).wait(10)
        after = await (await kernels.execute("x")).wait(10)

    assert (result.status, result.state) == ("lost", "kept")
    assert "nothing of it was executed" in (result.reason or "")
    assert after.status == "error"


async def test_a_cell_that_never_reached_the_kernel_is_lost_and_says_so(bench: Bench) -> None:
    """Its record says that it runs, but the request went down with the controller."""
    async with bench.controller() as kernels:
        execution = await kernels.execute("1")
        await execution.wait(10)
        record = execution.record.model_copy(update={"execution_id": "never-sent"})
    bench.journal.started(record)
    async with bench.controller() as kernels:
        result = await kernels.execution("never-sent").wait(10)

    assert (result.status, result.state) == ("lost", "kept")
    assert "nothing of it was executed" in (result.reason or "")


async def test_a_cell_of_a_kernel_that_is_gone_is_lost(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution_id = await started(kernels, COUNTING)
    bench.supervisor.kernels.pop("k-default").stop()
    async with bench.controller() as kernels:
        result = kernels.execution(execution_id).snapshot()

        assert (result.status, result.state) == ("lost", "lost")
        assert bench.journal.unfinished(SESSION) == []


async def test_a_kernel_restarted_behind_our_back_does_not_keep_a_cell_running(
    bench: Bench,
) -> None:
    async with bench.controller() as kernels:
        execution_id = await started(kernels, COUNTING)
    bench.supervisor.kernels["k-default"].restart(99)
    async with bench.controller() as kernels:
        result = kernels.execution(execution_id).snapshot()

    assert (result.status, result.state) == ("lost", "restarted")


@pytest.mark.timed
async def test_the_time_of_a_cell_runs_on_while_no_controller_lives(bench: Bench) -> None:
    async with bench.controller() as kernels:
        execution = await kernels.execute("print(1)\nsleep(30)", timeout_s=0.5)
        await until(lambda: bool(execution.snapshot().outputs))
    await anyio.sleep(0.6)
    async with bench.controller() as kernels:
        with anyio.fail_after(3):
            result = await kernels.execution(execution.execution_id).wait()

    assert (result.status, result.state) == ("timeout", "kept")
    assert result.duration_s > 0.5


async def test_all_kernels_of_the_dead_controller_are_there(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await (await kernels.execute("x = 1")).wait(10)
        other = await kernels.start("bash")
    async with bench.controller() as kernels:
        infos = {info.kernel_id: info for info in kernels.infos}

        assert set(infos) == {"k-default", other.kernel_id}
        assert infos[other.kernel_id].name == "bash"
        assert {info.state for info in infos.values()} == {"idle"}


async def test_messages_are_forgotten_inside_only_when_the_journal_has_them(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await started(kernels, "print(1)\nsleep(30)")
        first = bench.supervisor.kernels["k-default"].info()["first_seq"]
        assert first == 1
        await until(lambda: bench.supervisor.kernels["k-default"].info()["first_seq"] > 1)
        _, snapshot, seq = bench.journal.progressed[-1]

        assert snapshot.outputs[0]["text"] == "1\n"
        assert bench.supervisor.kernels["k-default"].info()["first_seq"] <= seq + 1


async def test_a_request_that_went_down_with_the_link_is_sent_again_once(bench: Bench) -> None:
    async with bench.controller() as kernels:
        await (await kernels.execute("n = 0")).wait(10)
        kernel = bench.supervisor.kernels["k-default"]
        submit, swallowed = kernel.submit, list[object]()
        kernel.submit = swallowed.append  # type: ignore[method-assign]
        execution = await kernels.execute("n = n + 1\nprint(n)")
        await until(lambda: bool(swallowed))
        await bench.cut()
        kernel.submit = submit  # type: ignore[method-assign]
        await bench.connect(kernels)
        result = await execution.wait(10)

    assert result.status == "ok"
    assert result.outputs[0]["text"] == "1\n"
