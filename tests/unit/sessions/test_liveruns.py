"""Running all cells of a live notebook, which others edit meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sandbox.collaboration.authors import Author
from sandbox.errors import Conflict, NotFound, SessionLost
from sandbox.notebooks.editing import delete, insert, overwrite
from sandbox.notebooks.models import Notebook
from sandbox.sessions.liveruns import MAX_ENDED, LiveRun, LiveRuns, RunOptions
from sandbox.testing.notebooks import FakeNotebook, FakeNotebooks

from ...support.results import stream

pytestmark = pytest.mark.anyio

AGENT = Author("k", "an agent")
FAILS = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": "no"}


def answers(source: str) -> Sequence[dict[str, Any]]:
    return [FAILS] if source.startswith("fail") else [stream(source)]


@asynccontextmanager
async def notebook(
    *sources: str, kinds: str = "", answering: Callable[[str], Any] = answers
) -> AsyncIterator[tuple[FakeNotebook, LiveRuns]]:
    """An open notebook of these cells, and what runs it."""
    live = await FakeNotebooks(answers=answering).open("n.ipynb", create=True)
    for number, source in enumerate(sources):
        kind = "markdown" if kinds[number : number + 1] == "m" else "code"
        await live.edit(lambda n, k=kind, s=source: insert(n, -1, k, s), AGENT)
    runs = LiveRuns()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runs.serve)
        await anyio.wait_all_tasks_blocked()
        yield live, runs
        tasks.cancel_scope.cancel()


async def ended(run: LiveRun) -> LiveRun:
    with anyio.fail_after(5):
        while run.outcome is None:
            await run.wait_moved(run.latest)
    return run


async def test_code_cells_run_in_order_and_others_do_not() -> None:
    async with notebook("a", "# b", "", "c", kinds="cm") as (live, runs):
        run = await ended(runs.begin(live, AGENT, RunOptions()))
        assert run.outcome is not None
        assert (run.outcome.status, run.done, run.total) == ("ok", 2, 2)
        cells = live.read().cells
        assert [len(cell.outputs) for cell in cells] == [1, 0, 0, 1]
        assert [cell.execution_count for cell in cells] == [1, None, None, 2]
        assert runs.going_on(live.path) is None


async def test_the_first_error_ends_a_run_unless_it_is_allowed() -> None:
    async with notebook("a", "fail", "c") as (live, runs):
        run = await ended(runs.begin(live, AGENT, RunOptions()))
        assert run.outcome is not None
        assert (run.outcome.status, run.done) == ("error", 2)
        assert run.snapshot().error.name == "ValueError"
        assert live.read().cells[2].outputs == ()
        run = await ended(runs.begin(live, AGENT, RunOptions(allow_errors=True)))
        assert run.outcome is not None
        assert (run.outcome.status, run.outcome.errors, run.done) == ("ok", 1, 3)
        assert run.snapshot().status == "ok"


async def test_outputs_of_before_are_gone_from_what_is_not_reached() -> None:
    async with notebook("a", "b", "c") as (live, runs):
        await ended(runs.begin(live, AGENT, RunOptions()))
        await live.edit(lambda n: overwrite(n, 1, "fail"), AGENT)
        await ended(runs.begin(live, AGENT, RunOptions()))
        assert live.read().cells[2].outputs == ()


async def test_a_cell_that_is_deleted_before_its_turn_is_skipped_and_a_new_one_is_not_run() -> None:
    async def meddle(live: FakeNotebook) -> None:
        def both(found: Notebook) -> Any:
            return insert(delete(found, [1]).notebook, -1, "code", "new")

        await live.edit(both, AGENT)

    class Meddled(FakeNotebook):
        async def execute(self, *given: Any, **more: Any) -> Any:
            if len(self.read().cells) == 3 and self.read().cells[-1].source != "new":
                await meddle(self)
            return await super().execute(*given, **more)

    async with notebook("a", "b", "c") as (live, runs):
        live.__class__ = Meddled
        run = await ended(runs.begin(live, AGENT, RunOptions()))
        assert run.outcome is not None
        assert (run.outcome.status, run.done, run.skipped, run.total) == ("ok", 3, 1, 3)
        assert [cell.execution_count for cell in live.read().cells] == [1, 2, None]


async def test_a_kernel_that_is_gone_is_no_deleted_cell() -> None:
    class Gone(FakeNotebook):
        async def execute(self, *given: Any, **more: Any) -> Any:
            raise NotFound("There is no kernel 'k'.")

    async with notebook("a", "b") as (live, runs):
        live.__class__ = Gone
        run = await ended(runs.begin(live, AGENT, RunOptions()))
        assert run.outcome is not None
        assert (run.outcome.status, run.done) == ("lost", 0)
        assert isinstance(run.failure, NotFound)


async def test_only_what_a_person_agreed_to_is_run() -> None:
    async with notebook("a", "b") as (live, runs):
        cells = live.read().cells
        agreed = {cells[0].id: "a", cells[1].id: "something else"}
        run = await ended(runs.begin(live, AGENT, RunOptions(agreed=agreed)))
        assert isinstance(run.failure, Conflict)
        assert [cell.execution_count for cell in live.read().cells] == [1, None]
        run = await ended(runs.begin(live, AGENT, RunOptions(agreed={})))
        assert isinstance(run.failure, Conflict)
        assert run.latest is None


async def test_there_is_one_run_of_a_notebook_at_a_time_and_none_without_a_session() -> None:
    with pytest.raises(SessionLost):
        LiveRuns().begin(await FakeNotebooks().open("n", create=True), AGENT, RunOptions())
    async with notebook("a") as (live, runs):
        run = runs.begin(live, AGENT, RunOptions())
        assert runs.going_on(live.path) is run
        with pytest.raises(Conflict):
            runs.begin(live, AGENT, RunOptions())
        await ended(run)
        assert runs.begin(live, AGENT, RunOptions()) is not run


async def test_an_interrupted_run_runs_no_other_cell() -> None:
    async with notebook("a", "b") as (live, runs):
        run = runs.begin(live, AGENT, RunOptions())
        await run.interrupt()
        await ended(run)
        assert run.outcome is not None
        assert run.outcome.status == "interrupted"
        assert live.read().cells[1].execution_count is None


async def test_a_defect_in_a_run_is_told_as_one_and_ends_no_other() -> None:
    class Broken(FakeNotebook):
        async def execute(self, *given: Any, **more: Any) -> Any:
            if self.read().cells[0].execution_count is not None:
                raise ZeroDivisionError
            return await super().execute(*given, **more)

    async with notebook("a", "b") as (live, runs):
        live.__class__ = Broken
        run = await ended(runs.begin(live, AGENT, RunOptions()))
        assert run.outcome is not None
        assert (run.outcome.status, run.outcome.ran, run.outcome.total) == ("lost", 1, 2)
        assert "defect" in str(run.snapshot().reason)
        live.__class__ = FakeNotebook
        assert (await ended(runs.begin(live, AGENT, RunOptions()))).failure is None


async def test_the_ends_that_nobody_has_heard_are_kept_for_who_waits_for_them_in_bounds() -> None:
    async with notebook("a") as (live, runs):
        for number in range(MAX_ENDED + 1):
            live.path = f"/workspace/{number}.ipynb"
            run = runs.begin(live, AGENT, RunOptions())
            run.awaited_by.add(AGENT.key)
            await ended(run)
        assert runs.awaited(live.path, AGENT.key) is run
        assert runs.awaited(live.path, "another") is None
        assert runs.awaited("/workspace/0.ipynb", AGENT.key) is None, "the oldest gave way"
        await live.edit(lambda n: overwrite(n, 0, "b"), AGENT)
        assert runs.awaited(live.path, AGENT.key) is None, "it has other code by now"
