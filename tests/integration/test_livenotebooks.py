"""Live notebooks in real containers: edited, run, changed on disk by cells, taken back."""

from __future__ import annotations

import time

import anyio
import pytest

from sandbox.collaboration.authors import Author
from sandbox.errors import Conflict, FileError
from sandbox.notebooks import editing
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.sessions.livenotebook import LiveNotebook
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers, shell

pytestmark = pytest.mark.anyio

ALICE = Caller("alice")
AGENT = Author("agent", "Claude")
PERSON = Author("person", "Anna", is_agent=False)
PATH = "/workspace/work/a.ipynb"
PICTURE = """
import base64
from IPython.display import Image, display
dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6"
dot += "kgAAAABJRU5ErkJggg=="
display(Image(base64.b64decode(dot), format="png"))
print("shown")
"""
MARK = """
import json, pathlib
path = pathlib.Path("/workspace/work/a.ipynb")
found = json.loads(path.read_text())
found["cells"][0]["source"] = ["# by the code"]
path.write_text(json.dumps(found))
"""


async def put(session: Session, *cells: Cell) -> LiveNotebook:
    await session.files.write(PATH, write_ipynb(Notebook(cells)), create_parents=True)
    return await session.notebooks.open(PATH)


async def on_disk(session: Session) -> Notebook:
    data, _ = await session.files.read_bytes(PATH, 10**7)
    return read_ipynb(data).notebook


async def test_an_agent_edits_and_runs_a_notebook_and_its_file_has_it(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        notebook = await put(session, Cell("one", "code", "x = 41"))
        await notebook.edit(lambda n: editing.insert(n, -1, "code", PICTURE, cell_id="pic"), AGENT)
        await notebook.edit(lambda n: editing.insert(n, -1, "code", "1/0", cell_id="bad"), AGENT)
        runs = [await notebook.execute(ref, AGENT) for ref in ("one", "pic", "bad")]
        for run in runs:
            await run.execution.wait(60)
        cells = notebook.read().cells
        assert [cell.execution_count for cell in cells] == [1, 2, 3]
        assert "image/png" in cells[1].outputs[0]["data"]
        assert cells[1].outputs[1]["text"] == "shown\n"
        assert cells[2].outputs[0]["ename"] == "ZeroDivisionError"
        shared = await session.kernels.execute("print(x)")
        assert (await shared.wait(60)).outputs[0]["text"] == "41\n"
        await notebook.save()
        assert (await on_disk(session)).cells == notebook.read().cells


async def test_what_a_cell_makes_of_its_own_file_appears_in_the_open_notebook(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        notebook = await put(session, Cell("m", "markdown", "# T"), Cell("c", "code", MARK))
        peer = notebook.join(PERSON)
        run = await notebook.execute("c", AGENT)
        assert (await run.execution.wait(60)).status == "ok"
        with anyio.fail_after(30):
            while notebook.read().cell("m").source != "# by the code":
                await anyio.sleep(0.05)
        await notebook.edit(lambda n: editing.overwrite(n, "c", "pass"), AGENT)
        await notebook.save()
        assert [cell.source for cell in (await on_disk(session)).cells] == [
            *("# by the code", "pass")
        ]
        peer.leave()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("mkdir a.ipynb", "is_directory"),
        ("mkfifo a.ipynb", "not_a_file"),
        ("ln -s /etc/passwd a.ipynb", "not_a_file"),
        ("truncate -s 60M a.ipynb", "too_large"),
    ],
)
async def test_something_else_in_its_place_is_told_and_nothing_is_lost(
    manager: SessionManager, command: str, reason: str
) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        notebook = await put(session, Cell("c", "code", "a"))
        await shell(session, f"cd work && rm a.ipynb && {command}")
        await notebook.edit(lambda n: editing.overwrite(n, "c", "b"), AGENT)
        with anyio.fail_after(30), pytest.raises(FileError) as failed:
            await notebook.save()
        assert failed.value.reason == reason
        assert notebook.read().cell("c").source == "b"
        assert "conflict.ipynb" in notebook.problem
        await shell(session, "cd work && rm -rf a.ipynb")
        await notebook.save()
        assert notebook.problem == ""
        assert (await on_disk(session)).cell("c").source == "b"


async def test_a_contradiction_on_disk_is_told_and_both_are_kept(manager: SessionManager) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        notebook = await put(session, Cell("c", "code", "base"))
        await notebook.edit(lambda n: editing.overwrite(n, "c", "ours"), AGENT)
        await shell(session, "sed -i s/base/theirs/ work/a.ipynb")
        with pytest.raises(Conflict):
            await notebook.save()
        assert (await on_disk(session)).cell("c").source == "theirs"
        kept, _ = await session.files.read_bytes("/workspace/work/a.conflict.ipynb", 10**6)
        assert read_ipynb(kept).notebook.cell("c").source == "ours"


async def test_the_next_controller_has_the_documents_and_the_outputs_that_came_meanwhile(
    controllers: Controllers,
) -> None:
    code = "import time\nfor i in range(4):\n    print(i, flush=True)\n    time.sleep(0.5)"
    async with controllers.running(keep=True) as manager:
        session = await manager.get(ALICE)
        async with session.use():
            notebook = await put(session, Cell("c", "code", code), Cell("t", "code", "typed"))
            await notebook.execute("c", AGENT)
            with anyio.fail_after(30):
                while not notebook.read().cell("c").outputs:
                    await anyio.sleep(0.02)
            await notebook.edit(lambda n: editing.overwrite(n, "t", "typed last"), AGENT)
            file_id = notebook.file_id
    async with controllers.running() as manager:
        session = await manager.get(ALICE)
        async with session.use():
            again = await session.notebooks.open_by_id(file_id)
            assert again.read().cell("t").source == "typed last"
            with anyio.fail_after(30):
                while again.read().cell("c").execution_count is None:
                    await anyio.sleep(0.05)
                while "execution" not in again.read().cell("c").metadata:
                    await anyio.sleep(0.05)
            text = "".join(output["text"] for output in again.read().cell("c").outputs)
            assert text == "0\n1\n2\n3\n"


@pytest.mark.timed
async def test_insert_run_and_outputs_take_little_more_than_a_plain_execution(
    manager: SessionManager,
) -> None:
    session = await manager.get(ALICE)
    async with session.use():
        notebook = await put(session, Cell("c", "code", "1 + 1"))
        plain: list[float] = []
        whole: list[float] = []
        for _ in range(40):
            began = time.perf_counter()
            await (await session.kernels.execute("1 + 1")).wait(60)
            plain.append(time.perf_counter() - began)
            began = time.perf_counter()
            edited = await notebook.edit(lambda n: editing.insert(n, -1, "code", "1 + 1"), AGENT)
            run = await notebook.execute(edited.cell_ids[0], AGENT)
            await run.execution.wait(60)
            assert notebook.read().cell(run.cell_id).outputs
            whole.append(time.perf_counter() - began)
        ratio = sorted(whole)[20] / sorted(plain)[20]
        print(f"plain {sorted(plain)[20] * 1000:.1f} ms, in a cell {ratio:.2f} x")
        assert ratio < 2.5
