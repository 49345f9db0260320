"""A session's history as a notebook: what ran, in order, that runs again."""

from __future__ import annotations

import anyio
import nbformat
import pytest

from sandbox.commands.models import CommandRequest
from sandbox.errors import NotFound
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import Notebook
from sandbox.outputs.redaction import Redactor
from sandbox.sessions import export
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.notebookrun import NotebookRun, start_kernel
from sandbox.sessions.session import Session

from ...support.waiting import until
from .controllers import Controllers, run

ALICE, MALLORY = Caller("alice"), Caller("mallory")

pytestmark = pytest.mark.anyio


def sources(notebook: Notebook) -> list[str]:
    """The sources of the cells, without the one at the top."""
    nbformat.validate(nbformat.reads(write_ipynb(notebook).decode(), as_version=4))
    top, *cells = notebook.cells
    assert top.cell_type == "markdown"
    return [cell.source for cell in cells]


async def exported(manager: SessionManager, session: Session) -> Notebook:
    """The history of one of Alice's sessions."""
    await manager.ready()
    return await manager.history.notebook(ALICE, session.session_id, Redactor())


def tags(notebook: Notebook) -> list[str]:
    return [" ".join(cell.tags) for cell in notebook.cells[1:]]


async def test_cells_are_there_in_order_with_what_came_of_them(manager: SessionManager) -> None:
    session = await manager.open(ALICE, name="mine")
    first = await run(session, "x = 20")
    await run(session, "print(x)\nx + 1")
    await run(session, 'raise ValueError("no")')
    notebook = await exported(manager, session)
    assert sources(notebook) == ["x = 20", "print(x)\nx + 1", 'raise ValueError("no")']
    assert tags(notebook) == ["", "", "raises-exception"]
    top, cell, shown, failed = notebook.cells
    assert "# Session mine" in top.source
    assert "`offline`" in top.source
    assert cell.id == first.execution_id
    assert [output["output_type"] for output in shown.outputs] == ["stream", "execute_result"]
    assert [each.execution_count for each in (cell, shown, failed)] == [1, 2, 3]
    assert failed.outputs[0]["ename"] == "ValueError"
    assert cell.metadata["execution"]["iopub.status.busy"].endswith("Z")
    assert notebook.metadata["sandbox"]["policy"] == "offline"
    assert notebook.metadata["kernelspec"]["name"] == "python3"


async def test_an_export_runs_again_to_the_same_outputs(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    for code in ("x = 20", "print(x)\nx + 1", 'raise ValueError("no")', "x"):
        await run(session, code)
    notebook = await exported(manager, session)
    other = await manager.open(ALICE, reuse=False)
    async with other.use():
        again = NotebookRun(other, notebook, await start_kernel(other, notebook))
        assert (await again.run()).status == "ok"

    def shown(value: Notebook) -> list[tuple[object, ...]]:
        return [(cell.source, cell.outputs, cell.execution_count) for cell in value.cells]

    assert shown(again.notebook()) == shown(notebook)


async def test_what_did_not_end_by_itself_is_skipped(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    await run(session, "die(3)")
    async with session.use():
        await session.kernels.restart()
        running = await session.kernels.execute("sleep(60)")
        await until(running.executing.is_set)
    notebook = await exported(manager, session)
    await running.cancel()
    assert sources(notebook) == ["die(3)", "sleep(60)"]
    assert tags(notebook) == ["skip-execution", "skip-execution"]
    assert notebook.cells[1].outputs[-1]["ename"] == "DeadKernelError"


async def test_what_bash_and_commands_did_are_cells_of_bash(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    await run(session, "1 + 1")
    async with session.use():
        kernel_id = (await session.kernels.start("bash")).kernel_id
        await (await session.kernels.execute("x = 2", kernel_id=kernel_id)).wait(10)
        command = session.commands.start(CommandRequest("echo hi", cwd="a b"))
        with anyio.fail_after(10):
            await command.wait(None)
    await run(session, "2 + 2")
    notebook = await exported(manager, session)
    assert sources(notebook) == [
        "1 + 1",
        "%%bash\nx = 2",
        "%%bash\ncd -- 'a b' || exit\necho hi",
        "2 + 2",
    ]
    assert "2 kernels" in notebook.cells[0].source


async def test_a_session_of_bash_alone_is_a_notebook_for_bash(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    async with session.use():
        kernel_id = (await session.kernels.start("bash")).kernel_id
        await (await session.kernels.execute("x = 2", kernel_id=kernel_id)).wait(10)
    notebook = await exported(manager, session)
    assert sources(notebook) == ["x = 2"]
    assert notebook.metadata["kernelspec"]["name"] == "bash"


async def test_it_is_there_after_the_sessions_end_and_for_its_owner_only(
    manager: SessionManager,
) -> None:
    session = await manager.open(ALICE)
    await run(session, "1 + 1")
    await manager.close(ALICE, session.session_id)
    assert sources(await exported(manager, session)) == ["1 + 1"]
    with pytest.raises(NotFound):
        await manager.history.notebook(MALLORY, session.session_id, Redactor())
    with pytest.raises(NotFound):
        await manager.history.notebook(ALICE, "", Redactor())


async def test_it_outlives_the_controller(controllers: Controllers) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(ALICE)
        await run(session, "1 + 1")
    async with controllers.running() as manager:
        assert sources(await exported(manager, session)) == ["1 + 1"]


async def test_the_latest_are_kept_where_there_is_no_room_for_all(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await manager.open(ALICE)
    for number in range(4):
        await run(session, f"print({number})")
    one = len((await exported(manager, session)).cells)
    assert one == 5
    monkeypatch.setattr(export, "MAX_RESULT_BYTES", 1000)
    notebook = await exported(manager, session)
    assert sources(notebook) == [f"print({number})" for number in range(4)]
    assert "left out" in notebook.cells[1].outputs[0]["text"]
    assert notebook.cells[-1].outputs[0]["text"] == "3\n"
    assert "no longer kept" not in notebook.cells[0].source
    monkeypatch.setattr(export, "MAX_ASKED_BYTES", 1000)
    notebook = await exported(manager, session)
    assert sources(notebook)[-1] == "print(3)"
    assert len(notebook.cells) < 5
    assert "no longer kept or has no room" in notebook.cells[0].source


async def test_a_secret_in_the_code_is_not_shown(manager: SessionManager) -> None:
    session = await manager.open(ALICE)
    await run(session, "x = 'hunter2-and-more'")
    redactor = Redactor({"key": "hunter2-and-more"})
    notebook = await manager.history.notebook(ALICE, session.session_id, redactor)
    assert sources(notebook) == ["x = '[secret key]'"]
