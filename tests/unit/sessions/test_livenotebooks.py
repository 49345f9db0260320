"""The live notebooks of a session, over an engine in memory."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import anyio
import pytest

from sandbox.collaboration import ycells
from sandbox.collaboration.authors import Author
from sandbox.collaboration.document import SharedDocument
from sandbox.errors import Conflict, FileError, InvalidRequest, NotFound, QuotaExceeded
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID
from sandbox.notebooks import editing
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.runrules import EXITED, RunOutcome
from sandbox.outputs.redaction import Redactor
from sandbox.sessions import notebookjournal
from sandbox.sessions.livenotebook import LiveNotebook
from sandbox.sessions.liveruns import RunOptions
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.notebookfile import NotebookFile
from sandbox.sessions.notebookjournal import NotebookUpdates
from sandbox.sessions.session import Session

from .controllers import Controllers

pytestmark = pytest.mark.anyio

AGENT = Author("agent-1", "Claude")
PATH = "/workspace/a.ipynb"


@pytest.fixture
async def session(manager: SessionManager) -> AsyncIterator[Session]:
    session = await manager.open(Caller("local", ""))
    async with session.use():
        yield session


async def eventually(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    with anyio.fail_after(timeout_s):
        while not holds():
            await anyio.sleep(0.01)


def notebook_of(*sources: str) -> Notebook:
    return Notebook(tuple(Cell(f"c{at}", "code", each) for at, each in enumerate(sources)))


async def put(session: Session, *sources: str, path: str = PATH) -> None:
    await session.files.write(path, write_ipynb(notebook_of(*sources)))


async def on_disk(session: Session, path: str = PATH) -> list[str]:
    data, _ = await session.files.read_bytes(path, 10**7)
    return [cell.source for cell in read_ipynb(data).notebook.cells]


def sources(notebook: LiveNotebook) -> list[str]:
    return [cell.source for cell in notebook.read().cells]


async def test_a_notebook_is_opened_once_for_everybody(session: Session) -> None:
    await put(session, "x = 1")
    one = await session.notebooks.open("a.ipynb")
    other = await session.notebooks.open(PATH)
    assert one is other is await session.notebooks.open_by_id(one.file_id)
    assert sources(one) == ["x = 1"]
    assert [each.path for each in session.notebooks.opened] == [PATH]


async def test_an_edit_is_in_the_file_soon_after(session: Session) -> None:
    await put(session, "x = 1")
    notebook = await session.notebooks.open(PATH)
    await notebook.edit(lambda n: editing.insert(n, -1, "code", "y = 2"), AGENT)
    assert sources(notebook) == ["x = 1", "y = 2"]
    with anyio.fail_after(10):
        while await on_disk(session) != ["x = 1", "y = 2"]:
            await anyio.sleep(0.05)
    assert notebook.people == (AGENT,)
    notebook.leave(AGENT)
    assert notebook.people == ()


async def test_an_absent_file_is_told_or_created(session: Session) -> None:
    with pytest.raises(FileError) as failed:
        await session.notebooks.open("new.ipynb")
    assert failed.value.reason == "not_found"
    assert (await session.notebooks.open("new.ipynb", create=True)).read() == Notebook()
    await session.files.write("/workspace/bad.ipynb", b"{}")
    with pytest.raises(InvalidRequest):
        await session.notebooks.open("bad.ipynb")
    assert len(session.notebooks.opened) == 1


async def test_a_cell_runs_in_the_sessions_kernel_and_shows_its_outputs(session: Session) -> None:
    await put(session, "x = 41\nprint(x)\nx + 1", "raise ValueError('no')")
    notebook = await session.notebooks.open(PATH)
    run = await notebook.execute("c0", AGENT)
    await run.execution.wait(10)
    cell = notebook.read().cells[0]
    assert [output["output_type"] for output in cell.outputs] == ["stream", "execute_result"]
    assert cell.execution_count == 1
    assert "iopub.status.busy" in cell.metadata["execution"]
    assert run.execution.record.kernel_id == notebook.kernel_id == DEFAULT_KERNEL_ID
    failed = await notebook.execute(1, AGENT)
    await failed.execution.wait(10)
    assert notebook.read().cells[1].outputs[-1]["ename"] == "ValueError"
    execution = await session.kernels.execute("x")
    assert (await execution.wait(10)).outputs[0]["data"]["text/plain"] == "41"


async def test_what_a_cell_writes_after_its_end_comes_into_it(session: Session) -> None:
    await put(
        session, "print('in time')\nlater('late', 0.2)", "print('in time')\nlater('late', 0.2)"
    )
    notebook = await session.notebooks.open(PATH)

    def texts(cell_id: str) -> list[str]:
        return [output["text"] for output in notebook.document.read().cell(cell_id).outputs]

    runs = [await notebook.execute(cell_id, AGENT) for cell_id in ("c0", "c1")]
    for run in runs:
        await run.execution.wait(10)
    notebook.read()
    await notebook.edit(lambda n: editing.clear(n, [1]), AGENT)
    await eventually(lambda: texts("c0") == ["in time\nlate"])
    await eventually(lambda: "late" in str(runs[1].execution.snapshot().outputs))
    assert notebook.read().cell("c1").outputs == (), "it was cleared since"
    assert "late" in str(notebook.read().cell("c0").outputs)


async def test_a_cell_that_runs_again_shows_nothing_of_its_run_before(session: Session) -> None:
    await put(session, "later('late', 0.3)")
    notebook = await session.notebooks.open(PATH)
    first = await notebook.execute("c0", AGENT)
    await first.execution.wait(10)
    notebook.read()
    await notebook.edit(lambda n: editing.overwrite(n, "c0", "print('again')"), AGENT)
    again = await notebook.execute("c0", AGENT)
    await again.execution.wait(10)
    await eventually(lambda: "late" in str(first.execution.snapshot().outputs))
    assert [output["text"] for output in notebook.read().cell("c0").outputs] == ["again\n"]


async def test_exit_with_0_ends_a_run_of_all_cells_as_a_success(session: Session) -> None:
    await put(session, "print('a')\nexit(0)", "print('b')")
    notebook = await session.notebooks.open(PATH)
    run = session.notebook_runs.begin(notebook, AGENT, RunOptions())
    await eventually(lambda: run.outcome is not None)
    assert run.outcome == RunOutcome("ok", 1, 2, reason=EXITED)
    assert [len(cell.outputs) for cell in notebook.read().cells] == [1, 0]


async def test_outputs_come_into_a_cell_while_it_runs_wherever_it_moves(session: Session) -> None:
    await put(session, "print('begun')\nsleep(30)", "pass")
    notebook = await session.notebooks.open(PATH)
    run = await notebook.execute("c0", AGENT)
    await eventually(lambda: bool(notebook.read().cell("c0").outputs))
    await notebook.edit(lambda n: editing.move(n, "c0", 1), AGENT)
    assert notebook.document._now().ycells[1]["id"] == "c0"  # pyright: ignore[reportPrivateUsage]
    await run.execution.cancel()
    await run.execution.wait(10)
    assert notebook.read().cells[1].outputs[-1]["ename"] == "KeyboardInterrupt"
    deleted = await notebook.execute("c0", AGENT)
    await notebook.edit(lambda n: editing.delete(n, ["c0"]), AGENT)
    await deleted.execution.cancel()
    await deleted.execution.wait(10)
    assert [cell.id for cell in notebook.read().cells] == ["c1"]


async def test_what_cannot_run_is_told_and_changes_nothing(session: Session) -> None:
    cells = (Cell("m", "markdown", "# T"), Cell("c", "code", "x"))
    await session.files.write(PATH, write_ipynb(Notebook(cells)))
    notebook = await session.notebooks.open(PATH)
    before = notebook.read()
    with pytest.raises(InvalidRequest):
        await notebook.execute("m", AGENT)
    with pytest.raises(NotFound):
        await notebook.execute("none", AGENT)
    with pytest.raises(Conflict):
        await notebook.execute("c", AGENT, source="y")
    with pytest.raises(NotFound):
        await notebook.use_kernel("k-none")
    with pytest.raises(InvalidRequest):
        await notebook.execute("c", AGENT, timeout_s=-1)
    assert notebook.read() == before


async def test_a_second_notebook_has_a_kernel_of_its_own(session: Session) -> None:
    await put(session, "x = 1")
    await put(session, "x", path="/workspace/b.ipynb")
    first, second = [await session.notebooks.open(each) for each in (PATH, "b.ipynb")]
    assert await first.use_kernel() == DEFAULT_KERNEL_ID
    own = await second.use_kernel()
    assert own != DEFAULT_KERNEL_ID
    assert await second.use_kernel(restart=True) == own
    assert await second.use_kernel(DEFAULT_KERNEL_ID) == DEFAULT_KERNEL_ID
    with pytest.raises(QuotaExceeded, match="kernel_id"):
        await use_kernels_of_many(session, 50)


async def use_kernels_of_many(session: Session, count: int) -> None:
    for at in range(count):
        await put(session, "x", path=f"/workspace/more{at}.ipynb")
        await (await session.notebooks.open(f"more{at}.ipynb")).use_kernel()


async def test_a_change_on_disk_is_merged_with_what_was_edited_meanwhile(
    session: Session,
) -> None:
    await put(session, "a", "b")
    notebook = await session.notebooks.open(PATH)
    await notebook.edit(lambda n: editing.overwrite(n, 0, "A"), AGENT)
    await put(session, "a", "B", "c")
    await notebook.save()
    assert sources(notebook) == await on_disk(session) == ["A", "B", "c"]
    assert notebook.problem == ""


async def test_a_file_that_an_agent_writes_appears_in_the_open_notebook(session: Session) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    peer = notebook.join(Author("p", "P", is_agent=False))
    await put(session, "written")
    await eventually(lambda: sources(notebook) == ["written"])
    peer.leave()


async def test_a_contradiction_overwrites_nothing_and_is_told(session: Session) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    await notebook.edit(lambda n: editing.overwrite(n, 0, "ours"), AGENT)
    await put(session, "theirs")
    with pytest.raises(Conflict):
        await notebook.save()
    assert sources(notebook) == ["ours"]
    assert await on_disk(session) == ["theirs"]
    assert "a.conflict.ipynb" in notebook.problem
    assert await on_disk(session, "/workspace/a.conflict.ipynb") == ["ours"]
    await session.files.delete(PATH)
    await notebook.save()
    assert await on_disk(session) == ["ours"]
    assert notebook.problem == ""


async def test_something_else_in_its_place_is_told_and_the_document_is_intact(
    session: Session,
) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    await session.files.write(PATH, b"no notebook")
    await notebook.edit(lambda n: editing.overwrite(n, 0, "edited"), AGENT)
    with pytest.raises(InvalidRequest):
        await notebook.save()
    assert sources(notebook) == ["edited"]
    assert "no longer a notebook" in notebook.problem
    data, _ = await session.files.read_bytes(PATH, 1000)
    assert data == b"no notebook"


async def test_a_document_with_nobody_in_it_is_saved_before_it_is_dropped(
    session: Session,
) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    peer = notebook.join(Author("p", "P", is_agent=False))
    await notebook.edit(lambda n: editing.overwrite(n, 0, "edited"), AGENT)
    notebook.leave(AGENT)
    await session.notebooks.close(PATH)
    assert session.notebooks.opened == (notebook,)  # somebody is there
    peer.leave()
    await session.notebooks.close(PATH)
    assert session.notebooks.opened == ()
    assert await on_disk(session) == ["edited"]
    again = await session.notebooks.open(PATH)
    assert again is not notebook
    assert again.file_id == notebook.file_id
    assert sources(again) == ["edited"]
    assert again.document.size_bytes > 0


async def test_a_session_that_ends_saves_its_notebooks_first(manager: SessionManager) -> None:
    session = await manager.open(Caller("local", ""))
    written: list[list[str]] = []
    async with session.use():
        await put(session, "a")
        notebook = await session.notebooks.open(PATH)
        await notebook.edit(lambda n: editing.overwrite(n, 0, "last words"), AGENT)
    write = session.files.write

    async def noted(path: str, data: bytes, **more: object) -> object:
        written.append([cell.source for cell in read_ipynb(data).notebook.cells])
        return await write(path, data, **more)  # type: ignore[arg-type]

    session.files.write = noted  # type: ignore[method-assign,assignment]
    await manager.close(Caller("local", ""), session.session_id)
    assert written == [["last words"]]


async def test_the_next_controller_goes_on_with_the_documents_and_what_runs(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(Caller("local", ""))
        async with session.use():
            await put(session, "print('one')\nsleep(1)\nprint('two')", "b")
            notebook = await session.notebooks.open(PATH)
            run = await notebook.execute("c0", AGENT)
            await eventually(lambda: bool(notebook.read().cell("c0").outputs))
            await notebook.edit(lambda n: editing.overwrite(n, "c1", "not saved"), AGENT)
            state = notebook.document._now().doc.get_state()  # pyright: ignore[reportPrivateUsage]
    async with controllers.running() as manager:
        session = await manager.get(Caller("local", ""), session.session_id)
        async with session.use():
            await eventually(lambda: bool(session.notebooks.opened))
            again = session.notebooks.opened[0]
            assert again.file_id == notebook.file_id
            assert again.read().cell("c1").source == "not saved"
            assert len(again.document.update_since(state)) < 2000
            await session.kernels.execution(run.execution.execution_id).wait(10)
            text = "".join(output["text"] for output in again.read().cell("c0").outputs)
            assert text == "one\ntwo\n"
            with anyio.fail_after(10):
                while (await on_disk(session))[1] != "not saved":
                    await anyio.sleep(0.05)


async def test_a_notebook_of_a_session_that_is_over_is_forgotten(
    controllers: Controllers,
) -> None:
    async with controllers.running() as manager:
        session = await manager.open(Caller("local", ""))
        async with session.use():
            await put(session, "a")
            await session.notebooks.open(PATH)
        table = session._services.journal.notebooks  # pyright: ignore[reportPrivateUsage]
        assert len(table.rows(session.session_id)) == 1
        await manager.close(Caller("local", ""), session.session_id)
        assert table.rows(session.session_id) == []


async def test_a_secret_in_the_file_is_neither_shown_nor_kept(session: Session) -> None:
    await put(session, "key = 'hunter2-hunter2'")
    kept: list[bytes | None] = []
    redactor = Redactor({"key": "hunter2-hunter2"})
    file = NotebookFile(session.files, PATH, redactor, lambda _, base: kept.append(base))
    notebook = await file.read()
    assert notebook.cells[0].source == "key = '[secret key]'"
    await file.write(notebook)
    assert await on_disk(session) == ["key = '[secret key]'"]
    assert all(base and b"hunter2" not in zlib.decompress(base) for base in kept)


async def test_a_file_that_contradicts_is_not_read_again_and_again(session: Session) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    await notebook.edit(lambda n: editing.overwrite(n, 0, "ours"), AGENT)
    await put(session, "theirs")
    with pytest.raises(Conflict):
        await notebook.save()
    reads: list[str] = []
    read = session.files.read_bytes

    async def counted(path: str, max_bytes: int) -> object:
        reads.append(path)
        return await read(path, max_bytes)

    session.files.read_bytes = counted  # type: ignore[method-assign,assignment]
    notebook._looked_at = 0.0  # pyright: ignore[reportPrivateUsage]  # so that it is again
    await notebook.look()
    assert reads == []
    await put(session, "ours")
    notebook._looked_at = 0.0  # pyright: ignore[reportPrivateUsage]
    await notebook.look()
    assert len(reads) == 1
    assert notebook.problem == ""


async def test_a_large_notebook_is_forgotten_when_the_journal_is_pruned(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.sessions.notebookjournal.FORGET_AT_ONCE_BYTES", 100)
    async with controllers.running() as manager:
        session = await manager.open(Caller("local", ""))
        async with session.use():
            await put(session, *["x" * 50] * 30)
            await session.notebooks.open(PATH)
        journal = session._services.journal  # pyright: ignore[reportPrivateUsage]
        await manager.close(Caller("local", ""), session.session_id)
        (row,) = journal.notebooks.rows(session.session_id)
        for _ in journal.prune(time.time()):
            pass
        assert journal.notebooks.rows(session.session_id) == []
        assert journal.notebooks.updates(row.file_id).load() == []


async def test_a_notebook_that_names_no_kernel_names_the_one_that_ran_it(
    session: Session,
) -> None:
    await put(session, "x = 1")
    notebook = await session.notebooks.open(PATH)
    await notebook.use_kernel()
    named = notebook.read().metadata
    assert named["kernelspec"]["name"] == "python3"
    assert named["language_info"] == {"name": "python"}


async def test_an_opening_that_was_cut_short_takes_nothing_from_the_file(
    controllers: Controllers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A controller is killed while it puts a file into its document, cell by cell."""

    async def killed(document: SharedDocument, notebook: Notebook) -> None:
        await fill(document, replace(notebook, cells=notebook.cells[:1]))
        await anyio.sleep_forever()

    fill = SharedDocument.fill
    async with controllers.running(keep=True) as manager:
        session = await manager.open(Caller("local", ""))
        async with session.use(), anyio.create_task_group() as tasks:
            await put(session, "a", "b", "c")
            table = session._services.journal.notebooks  # pyright: ignore[reportPrivateUsage]
            monkeypatch.setattr(SharedDocument, "fill", killed)
            monkeypatch.setattr(type(table), "forget", lambda *_: None)
            tasks.start_soon(session.notebooks.open, PATH)
            await eventually(lambda: bool(table.rows(session.session_id)))
            tasks.cancel_scope.cancel()
    monkeypatch.undo()
    async with controllers.running() as manager:
        session = await manager.get(Caller("local", ""), session.session_id)
        async with session.use():
            assert sources(await session.notebooks.open(PATH)) == ["a", "b", "c"]


async def test_what_was_not_saved_is_there_again_whatever_is_in_its_files_place(
    controllers: Controllers,
) -> None:
    async with controllers.running(keep=True) as manager:
        session = await manager.open(Caller("local", ""))
        async with session.use():
            await put(session, "a")
            notebook = await session.notebooks.open(PATH)
            await session.files.write(PATH, b"no notebook")
            await notebook.edit(lambda n: editing.overwrite(n, 0, "not saved"), AGENT)
    async with controllers.running() as manager:
        session = await manager.get(Caller("local", ""), session.session_id)
        async with session.use():
            again = await session.notebooks.open(PATH)
            assert sources(again) == ["not saved"]
            assert "no longer a notebook" in again.problem


async def test_a_deleted_file_comes_back_with_a_change_only(session: Session) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    await session.files.delete(PATH)
    await session.notebooks.close(PATH)
    assert session.notebooks.opened == ()
    with pytest.raises(FileError):
        await session.notebooks.open(PATH)
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    await session.files.delete(PATH)
    await notebook.edit(lambda n: editing.overwrite(n, 0, "b"), AGENT)
    notebook.leave(AGENT)
    await session.notebooks.close(PATH)
    assert await on_disk(session) == ["b"]


async def test_one_that_cannot_be_saved_stays_open(session: Session) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    await notebook.edit(lambda n: editing.overwrite(n, 0, "ours"), AGENT)
    await put(session, "theirs")
    notebook.leave(AGENT)
    for _ in range(2):
        with pytest.raises(Conflict):
            await session.notebooks.close(PATH)
    assert session.notebooks.opened == (notebook,)
    assert sources(notebook) == ["ours"]


async def test_a_cell_that_floods_writes_little_into_the_document(session: Session) -> None:
    await put(session, "flood(3000000)")
    notebook = await session.notebooks.open(PATH)
    run = await notebook.execute(0, AGENT)
    with anyio.fail_after(30):
        await run.execution.wait(None)
    assert notebook.read().cells[0].metadata["sandbox"]["truncated_bytes"] > 0
    assert notebook.document.size_bytes < 4_000_000


async def test_metadata_that_somebody_made_up_is_no_obstacle_to_a_cells_end(
    session: Session,
) -> None:
    made = replace(notebook_of("die(3)"), metadata={})
    cells = tuple(replace(cell, metadata={"sandbox": "mine"}) for cell in made.cells)
    await session.files.write(PATH, write_ipynb(replace(made, cells=cells)))
    notebook = await session.notebooks.open(PATH)
    run = await notebook.execute(0, AGENT)
    assert (await run.execution.wait(10)).status == "died"
    assert notebook.read().cells[0].metadata["sandbox"]["status"] == "died"


async def test_outputs_that_the_journal_cannot_take_are_told_in_the_cell_and_the_notebook(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(session, "flood(200000)\nsleep(0.2)\nflood(200000)\nraise ValueError('no')", "pass")
    notebook = await session.notebooks.open(PATH)
    monkeypatch.setattr(notebookjournal, "COUNT_BYTES", 0)
    monkeypatch.setattr(notebookjournal, "KEEP_BYTES", 1)
    made: list[int] = []
    load = notebook.document._load  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(notebook.document, "_load", lambda: made.append(1) or load())
    run = await notebook.execute(0, AGENT)
    await run.execution.wait(10)
    cell, doc = notebook.read().cells[0], notebook.document._now()  # pyright: ignore[reportPrivateUsage]
    assert [output["name"] for output in cell.outputs] == ["stderr"]
    assert "Your notebooks take" in cell.outputs[0]["text"]
    assert "ValueError: no" in cell.outputs[0]["text"]
    assert doc.ycells[0]["execution_state"] == "idle"
    assert f"Outputs of cell {cell.id} are not in the notebook" in notebook.problem
    assert doc.ystate["problem"] == notebook.problem
    assert len(made) == 1  # not with each output
    monkeypatch.setattr(notebookjournal, "KEEP_BYTES", 10**9)
    await (await notebook.execute(0, AGENT)).execution.wait(10)
    assert notebook.read().cells[0].outputs[-1]["ename"] == "ValueError"
    assert notebook.problem == ""


async def test_a_cell_runs_and_says_so_where_the_journal_takes_nothing_at_all(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(session, "x = 1")
    notebook = await session.notebooks.open(PATH)
    await notebook.use_kernel()
    monkeypatch.setattr(NotebookUpdates, "append", _full)
    run = await notebook.execute(0, AGENT)
    assert (await run.execution.wait(10)).status == "ok"
    notebook.read()
    assert "are not in the notebook: full" in notebook.problem
    assert not notebook._runs  # pyright: ignore[reportPrivateUsage]


async def test_a_file_that_changes_more_than_can_be_at_once_is_told_and_not_taken_in(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(session, "a")
    notebook = await session.notebooks.open(PATH)
    monkeypatch.setattr(ycells, "MAX_CHANGED", 1000)
    shown = {"output_type": "display_data", "metadata": {}, "data": {"application/json": [1] * 600}}
    cells = tuple(Cell(f"c{at}", "code", "b", {}, (shown,)) for at in range(3))
    await session.files.write(PATH, write_ipynb(Notebook(cells)))
    with pytest.raises(Conflict):
        await notebook.save()
    assert "changes at once" in notebook.problem
    assert sources(notebook) == ["a"]
    await session.files.write(PATH, write_ipynb(Notebook(cells[:1])))
    await notebook.save()
    assert (sources(notebook), notebook.problem) == (["b"], "")


def _full(_self: NotebookUpdates, _update: bytes) -> None:
    raise QuotaExceeded("full")
