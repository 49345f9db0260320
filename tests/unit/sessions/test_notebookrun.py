"""Running notebooks in a session: what is run, what it leaves in the cells, and how runs end."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import nbformat
import pytest

from sandbox.cli import notebookwork
from sandbox.cli.signals import ended_by_signals
from sandbox.errors import InvalidRequest, SandboxError
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.runrules import EXITED
from sandbox.sessions import notebookrun
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.notebookrun import NotebookRun, Progress, RunOutcome, start_kernel
from sandbox.sessions.session import Session

from ...support.waiting import until

ALICE = Caller("alice")
OLD = ({"output_type": "stream", "name": "stdout", "text": "of before\n"},)

pytestmark = pytest.mark.anyio


def code(source: str, *tags: str, cell_id: str = "", **metadata: Any) -> Cell:
    about = {**metadata, **({"tags": [*tags]} if tags else {})}
    return Cell(cell_id or f"c{abs(hash((source, tags))):x}"[:12], "code", source, about, OLD, 99)


def notebook(*cells: Cell | str, **metadata: Any) -> Notebook:
    made = [code(c, cell_id=f"n{at}") if isinstance(c, str) else c for at, c in enumerate(cells)]
    return Notebook(tuple(made), metadata)


async def ran(
    manager: SessionManager, value: Notebook, **options: Any
) -> tuple[RunOutcome, Notebook]:
    """The outcome of a run in a fresh session, and the notebook that came of it."""
    session = await manager.open(ALICE, reuse=False)
    async with session.use():
        kernel = await start_kernel(session, value)
        run = NotebookRun(session, value, kernel, **options)
        with anyio.fail_after(20):
            outcome = await run.run()
        result = run.notebook()
    nbformat.validate(nbformat.reads(write_ipynb(result).decode(), as_version=4))
    return outcome, result


def shown(cell: Cell) -> list[str]:
    """What the outputs of a cell show, in short."""
    return [
        output.get("text") or output.get("ename") or output["data"]["text/plain"]
        for output in cell.outputs
    ]


async def test_cells_run_in_order_with_counts_outputs_and_times(manager: SessionManager) -> None:
    steps: list[Progress] = []
    value = notebook("x = 1", Cell("m", "markdown", "# T"), "print(x)", "x + 1")
    outcome, result = await ran(manager, value, progress=steps.append)
    assert outcome == RunOutcome("ok", 3, 3)
    assert [shown(cell) for cell in result.cells] == [[], [], ["1\n"], ["2"]]
    assert [cell.execution_count for cell in result.cells] == [1, None, 2, 3]
    assert [cell.id for cell in result.cells] == [cell.id for cell in value.cells]
    times = result.cells[2].metadata["execution"]
    assert list(times) == [
        *("iopub.status.busy", "iopub.execute_input", "shell.execute_reply", "iopub.status.idle"),
    ]
    assert times["iopub.status.busy"] <= times["shell.execute_reply"]
    assert [(step.done, step.total, step.index, step.title) for step in steps] == [
        *((0, 3, 0, "x = 1"), (1, 3, 2, "print(x)"), (2, 3, 3, "x + 1"), (3, 3, 3, "")),
    ]


async def test_the_notebook_says_under_which_policy_it_ran_and_keeps_its_metadata(
    manager: SessionManager,
) -> None:
    _, result = await ran(manager, notebook("1", mine={"a": 1}))
    assert result.metadata["sandbox"]["policy"] == "offline"
    assert len(result.metadata["sandbox"]["policy_digest"]) == 64
    assert result.metadata["sandbox"]["status"] == "ok"
    assert result.metadata["kernelspec"]["name"] == "python3"
    assert result.metadata["mine"] == {"a": 1}


async def test_what_a_notebook_does_not_say_of_its_kernel_is_completed(
    manager: SessionManager,
) -> None:
    _, result = await ran(manager, notebook("1", kernelspec={"name": "mine", "language": "python"}))
    spec = result.metadata["kernelspec"]
    assert spec == {"name": "mine", "language": "python", "display_name": "Python 3 (fake)"}
    assert result.metadata["language_info"] == {"name": "python"}


async def test_a_run_stops_at_the_first_error_and_keeps_it(manager: SessionManager) -> None:
    value = notebook("print(1)", 'raise ValueError("no")', "print(3)")
    outcome, result = await ran(manager, value)
    assert outcome == RunOutcome("error", 2, 3, 0, 1, "ValueError: no")
    assert [shown(cell) for cell in result.cells] == [["1\n"], ["ValueError"], []]
    assert [cell.execution_count for cell in result.cells] == [1, 2, None]
    assert result.metadata["sandbox"]["status"] == "error"


@pytest.mark.parametrize(
    ("metadata", "tags", "about", "options"),
    [
        ({}, ("raises-exception",), {}, {}),
        ({}, (), {"allow_errors": True}, {}),
        ({"allow_errors": True}, (), {}, {}),
        ({}, (), {}, {"allow_errors": True}),
    ],
)
async def test_an_error_that_is_allowed_does_not_end_the_run(
    manager: SessionManager, metadata: Any, tags: Any, about: Any, options: Any
) -> None:
    value = notebook(code('raise ValueError("no")', *tags, **about), "print(2)", **metadata)
    outcome, result = await ran(manager, value, **options)
    assert outcome == RunOutcome("ok", 2, 2, errors=1)
    assert [shown(cell) for cell in result.cells] == [["ValueError"], ["2\n"]]


async def test_what_is_not_run_stays_as_it_was(manager: SessionManager) -> None:
    value = notebook(code("print(1)", "skip-execution"), code("  \n"), Cell("r", "raw", "x"))
    outcome, result = await ran(manager, value)
    assert outcome == RunOutcome("ok", 0, 0)
    assert result.cells == value.cells


async def test_a_dead_kernel_is_told_in_the_cell_and_ends_the_run(manager: SessionManager) -> None:
    value = notebook("print(1)\ndie(3)", "print(2)", allow_errors=True)
    outcome, result = await ran(manager, value)
    assert (outcome.status, outcome.index, outcome.ran) == ("died", 0, 1)
    assert shown(result.cells[0]) == ["1\n", "DeadKernelError"]
    assert result.cells[0].outputs[-1]["evalue"] == outcome.reason
    assert result.cells[0].metadata["sandbox"]["status"] == "died"
    assert result.cells[1].outputs == ()


async def test_a_cell_whose_time_is_over_is_told_so(manager: SessionManager) -> None:
    value = notebook("sleep(60)", "print(2)")
    outcome, result = await ran(manager, value, timeout_s=0.3)
    assert outcome.status == "timeout"
    assert "0.3 s" in outcome.reason
    assert "CellTimeoutError" in shown(result.cells[0])
    assert result.cells[1].outputs == ()


async def test_an_interrupt_ends_the_run_with_what_there_is(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    value = notebook("print(1)", "sleep(60)", "print(3)")
    outcomes: list[RunOutcome] = []
    async with session.use():
        run = NotebookRun(session, value, await start_kernel(session, value))

        async def go() -> None:
            outcomes.append(await run.run())

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(go)
                await until(lambda: run.notebook().cells[0].outputs)
                await anyio.sleep(0.1)
                await run.interrupt()
    assert outcomes[0].status == "interrupted"
    assert [shown(cell) for cell in run.notebook().cells] == [["1\n"], ["KeyboardInterrupt"], []]


async def test_a_session_that_is_lost_in_the_middle_leaves_what_had_run(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE)
    value = notebook("print(1)", "sleep(60)", "print(3)")
    run: NotebookRun | None = None
    ends: list[Any] = []

    async def go(session: Session) -> None:
        nonlocal run
        async with session.use():
            run = NotebookRun(session, value, await start_kernel(session, value))
            try:
                ends.append((await run.run()).status)
            except SandboxError as exc:
                ends.append(exc)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go, session)
            await until(lambda: run is not None and run.notebook().cells[0].outputs)
            await session.end("closed", "a test ends it")
    assert run is not None
    assert ends == ["lost"]
    result = run.notebook()
    assert shown(result.cells[0]) == ["1\n"]
    assert shown(result.cells[1]) == ["ExecutionLost"]
    assert result.metadata["sandbox"]["status"] == "lost"


@pytest.mark.parametrize(
    ("metadata", "name", "told"),
    [
        ({}, "python3", ""),
        ({"kernelspec": {"name": "bash", "language": "bash"}}, "bash", ""),
        ({"kernelspec": {"name": "conda-x", "language": "Python"}}, "python3", "conda-x"),
        (
            {"kernelspec": {"name": "mine"}, "language_info": {"name": "bash"}},
            "bash",
            "mine",
        ),
    ],
)
async def test_the_kernel_is_the_one_named_or_another_of_its_language(
    manager: SessionManager, metadata: Any, name: str, told: str
) -> None:
    session = await manager.open(ALICE)
    async with session.use():
        kernel = await start_kernel(session, Notebook(metadata=metadata))
        assert kernel.name == name
        assert told in kernel.note
        assert bool(kernel.note) == bool(told)
        assert bool(kernel.kernel_id) == (name != "python3")


@pytest.mark.parametrize(
    ("metadata", "wanted"),
    [
        ({"kernelspec": {"name": "ir", "language": "R"}}, ""),
        ({"kernelspec": {"name": "ir"}}, ""),
        ({}, "julia"),
    ],
)
async def test_a_kernel_that_the_image_lacks_is_refused_naming_what_there_is(
    manager: SessionManager, metadata: Any, wanted: str
) -> None:
    session = await manager.open(ALICE)
    async with session.use():
        with pytest.raises(InvalidRequest) as caught:
            await start_kernel(session, Notebook(metadata=metadata), wanted)
    assert "python3" in caught.value.remedy
    assert "bash" in caught.value.remedy


async def test_a_run_that_lasts_is_written_now_and_then(
    manager: SessionManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebookwork, "SAVE_INTERVAL_S", 0.05)
    session = await manager.open(ALICE)
    value, path = notebook("print(1)", "sleep(60)"), tmp_path / "out.ipynb"
    async with session.use():
        run = NotebookRun(session, value, await start_kernel(session, value))
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(notebookwork.run_to_its_end, run, path)
                await until(lambda: path.exists() and b'"1\\n"' in path.read_bytes())
                await run.interrupt()
    assert read_ipynb(path.read_bytes()).notebook.metadata["sandbox"]["status"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_that_ends_a_run_leaves_what_there_is(
    manager: SessionManager, tmp_path: Path, number: signal.Signals
) -> None:
    source, path = tmp_path / "n.ipynb", tmp_path / "out.ipynb"
    source.write_bytes(write_ipynb(notebook("print(1)", "sleep(60)", "print(3)")))
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.csv").write_text("1")
    work = notebookwork.NotebookWork.read(
        source,
        path,
        policy="",
        kernel="",
        parameters=[],
        allow_errors=False,
        timeout_s=0,
        files=[folder],
    )
    session = await manager.open(ALICE)
    with anyio.fail_after(20):
        async with (
            ended_by_signals() as ending,
            session.use(),
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(notebookwork.run_in_session, session, work, ending)
            await until(lambda: ending.interrupt is not None)
            await anyio.sleep(0.5)
            os.kill(os.getpid(), number)
    assert ending.exit_code == 128 + number
    async with session.use():
        assert (await session.files.stat("data/a.csv")).size == 1
    cells = read_ipynb(path.read_bytes()).notebook.cells
    assert [shown(cell) for cell in cells] == [["1\n"], [], []]


async def test_outputs_of_all_cells_together_are_bounded(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notebookrun, "MAX_OUTPUT_BYTES", 60_000)
    value = notebook("flood(40000)", "flood(40000)", 'raise ValueError("no")')
    _, result = await ran(manager, value)
    assert len(shown(result.cells[0])[0]) == 40_000
    assert "left out" in shown(result.cells[1])[0]
    assert shown(result.cells[2])[-1] == "ValueError"


async def test_a_run_that_is_made_twice_is_of_the_same_notebook(manager: SessionManager) -> None:
    _, once = await ran(manager, notebook("1 + 1", "print(2)"))
    _, again = await ran(manager, once)

    def timeless(value: Notebook) -> list[Cell]:
        return [replace(cell, metadata={}) for cell in value.cells]

    assert timeless(once) == timeless(again)


async def test_exit_with_0_ends_the_run_early_as_a_success(manager: SessionManager) -> None:
    outcome, result = await ran(manager, notebook("1", "print('a')\nexit(0)\nprint('b')", "2"))
    assert outcome == RunOutcome("ok", 2, 3, index=1, reason=EXITED)
    assert [shown(cell) for cell in result.cells] == [["1"], ["a\n"], []]


async def test_exit_with_another_code_ends_it_as_a_failure(manager: SessionManager) -> None:
    outcome, result = await ran(manager, notebook("exit(3)", "2"))
    assert (outcome.status, outcome.ran) == ("error", 1)
    assert [shown(cell) for cell in result.cells] == [["SystemExit"], []]


async def test_what_a_cell_writes_after_its_end_is_in_the_cell(manager: SessionManager) -> None:
    late = "print('in time')\nlater('late', 0.05)"
    outcome, result = await ran(manager, notebook(late, "sleep(0.5)"))
    assert outcome.status == "ok"
    assert [shown(cell) for cell in result.cells] == [["in time\nlate"], []]
