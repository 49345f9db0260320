"""What the fake of live notebooks and the real ones have in common: one suite for both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from sandbox.collaboration.authors import Author
from sandbox.collaboration.contracts import LiveNotebooks
from sandbox.errors import Conflict, FileError, InvalidRequest, NotFound
from sandbox.notebooks import editing
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.testing.notebooks import FakeNotebooks

from .controllers import Controllers

pytestmark = pytest.mark.anyio

AGENT = Author("agent", "Claude")
PATH = "/workspace/a.ipynb"
CELLS = (Cell("c", "code", "print('shown')"), Cell("m", "markdown", "# T"))
Setting = tuple[LiveNotebooks, Callable[[], Awaitable[Notebook]]]


@pytest.fixture(params=["fake", "real"])
async def setting(
    request: pytest.FixtureRequest, controllers: Controllers
) -> AsyncIterator[Setting]:
    """Notebooks over one file, and what reads that."""
    content = write_ipynb(Notebook(CELLS))
    if request.param == "fake":
        shown = {"output_type": "stream", "name": "stdout", "text": "shown\n"}
        fake = FakeNotebooks({PATH: content}, answers=lambda _: [shown])

        async def of_fake() -> Notebook:
            return read_ipynb(fake.files[PATH]).notebook

        yield fake, of_fake
        return
    manager: SessionManager
    async with controllers.running() as manager:
        session = await manager.open(Caller("alice"))
        async with session.use():
            await session.files.write(PATH, content)

            async def of_session() -> Notebook:
                return read_ipynb((await session.files.read_bytes(PATH, 10**6))[0]).notebook

            yield session.notebooks, of_session


async def test_a_notebook_is_the_same_by_any_name_of_its_path_and_by_its_id(
    setting: Setting,
) -> None:
    notebooks, _ = setting
    notebook = await notebooks.open("a.ipynb")
    assert notebook.path == PATH
    assert await notebooks.open("x/../a.ipynb") is notebook
    assert await notebooks.open_by_id(notebook.file_id) is notebook
    assert list(notebooks.opened) == [notebook]
    assert notebook.read().cells == CELLS
    assert (notebook.kernel_id, notebook.problem) == ("", "")


async def test_what_is_not_there_is_not_opened_but_created(setting: Setting) -> None:
    notebooks, _ = setting
    with pytest.raises(FileError):
        await notebooks.open("b.ipynb")
    with pytest.raises(NotFound):
        await notebooks.open_by_id("none")
    assert list(notebooks.opened) == []
    assert (await notebooks.open("b.ipynb", create=True)).read().cells == ()
    assert (await notebooks.open("a.ipynb", create=True)).read().cells == CELLS


async def test_an_edit_is_read_at_once_and_one_that_is_refused_changes_nothing(
    setting: Setting,
) -> None:
    notebooks, on_disk = setting
    notebook = await notebooks.open(PATH)
    edited = await notebook.edit(lambda n: editing.overwrite(n, "c", "x"), AGENT)
    assert edited.diff
    assert notebook.read() == edited.notebook
    with pytest.raises(NotFound):
        await notebook.edit(lambda n: editing.delete(n, ["none"]), AGENT)
    assert notebook.read() == edited.notebook
    await notebook.save()
    assert (await on_disk()).cells == edited.notebook.cells


async def test_an_agent_is_there_from_its_first_edit_until_it_leaves(setting: Setting) -> None:
    notebooks, _ = setting
    notebook = await notebooks.open(PATH)
    assert list(notebook.people) == []
    await notebook.edit(lambda n: editing.overwrite(n, "c", "x"), AGENT)
    assert list(notebook.people) == [AGENT]
    notebook.leave(AGENT)
    notebook.leave(AGENT)
    assert list(notebook.people) == []


async def test_a_cell_that_ran_shows_its_outputs(setting: Setting) -> None:
    notebooks, _ = setting
    notebook = await notebooks.open(PATH)
    run = await notebook.execute(0, AGENT, timeout_s=30)
    assert (run.cell_id, run.index) == ("c", 0)
    result = await run.execution.wait(30)
    assert result.status == "ok"
    cell = notebook.read().cell("c")
    assert [output["text"] for output in cell.outputs] == ["shown\n"]
    assert cell.execution_count == 1
    assert result.kernel_id == notebook.kernel_id == await notebook.use_kernel()


async def test_what_cannot_run_is_told_and_nothing_ran(setting: Setting) -> None:
    notebooks, _ = setting
    notebook = await notebooks.open(PATH)
    with pytest.raises(InvalidRequest):
        await notebook.execute("m", AGENT)
    with pytest.raises(NotFound):
        await notebook.execute("none", AGENT)
    with pytest.raises(Conflict):
        await notebook.execute("c", AGENT, source="something else")
    with pytest.raises(NotFound):
        await notebook.use_kernel("k-none")
    assert notebook.read().cells == CELLS


async def test_one_that_is_closed_is_saved_and_opened_again_as_it_was(setting: Setting) -> None:
    notebooks, on_disk = setting
    notebook = await notebooks.open(PATH)
    await notebook.edit(lambda n: editing.overwrite(n, "c", "x"), AGENT)
    notebook.leave(AGENT)
    await notebooks.close(PATH)
    await notebooks.close("never/there.ipynb")
    assert list(notebooks.opened) == []
    assert (await on_disk()).cell("c").source == "x"
    assert (await notebooks.open(PATH)).read().cell("c").source == "x"
