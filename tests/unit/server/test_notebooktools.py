"""The notebook tools as a client sees them, over live notebooks and an engine in memory."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from sandbox import resources
from sandbox.notebooks.ipynb import read_ipynb
from sandbox.policy import load
from sandbox.server.desk import Desk
from sandbox.server.mcpserver import mcp_server
from sandbox.server.notebookviews import MAX_DIFF, MAX_PAGE_TEXT
from sandbox.server.scopes import ALSO_NEEDED
from sandbox.server.tool import ERROR_META_KEY
from sandbox.sessions.manager import SessionManager
from sandbox.testing import FakeEngine

from ...support.results import png
from .conftest import words
from .test_recording import folder as folder
from .test_recording import last_call
from .test_scopes import ALL, Front
from .test_scopes import front as front

pytestmark = pytest.mark.anyio

PICTURE = base64.b64encode(png(30, 20)).decode()
SHOWS = f'display("image/png", "{PICTURE}")'

Call = Callable[..., Awaitable[Any]]


def calls(client: Client) -> Call:
    """Call a tool that must do as it is told; ``fails=True`` for one that must not."""

    async def call(tool: str, *, fails: bool = False, **arguments: Any) -> Any:
        result = await client.call_tool(tool, arguments)
        assert result.is_error is fails, words(result)
        return result

    return call


@pytest.fixture
async def call(client: Client) -> Call:
    """Calls in a session with a notebook of three cells in use, the second one a picture."""
    call = calls(client)
    await call("use_notebook", notebook_name="n", notebook_path="n.ipynb", mode="create")
    await call("insert_cell", cell_index=0, cell_type="code", cell_source="x = 1 + 2\nx")
    await call("insert_cell", cell_index=1, cell_type="code", cell_source=SHOWS)
    await call("insert_cell", cell_index=-1, cell_type="markdown", cell_source="# title")
    return call


async def ids(call: Call) -> list[str]:
    read = (await call("read_notebook")).structured_content
    return [cell["cell_id"] for cell in read.get("cells", [])]


def told(result: Any) -> dict[str, Any]:
    return result.structured_content


# --- using


async def test_a_notebook_is_created_once_and_used_again_by_its_name(call: Call) -> None:
    await call(
        "use_notebook", fails=True, notebook_name="m", notebook_path="n.ipynb", mode="create"
    )
    await call("use_notebook", fails=True, notebook_name="m", notebook_path="absent.ipynb")
    again = await call("use_notebook", notebook_name="n")
    assert told(again)["notebook_path"] == "/workspace/n.ipynb"
    assert [cell["index"] for cell in told(again)["cells"]] == [0, 1, 2]
    other = await call(
        "use_notebook", fails=True, notebook_name="n", notebook_path="o.ipynb", mode="create"
    )
    assert other.meta[ERROR_META_KEY]["code"] == "conflict"
    files = await call("list_files")
    assert "o.ipynb" not in words(files), "nothing was changed"


async def test_what_is_no_notebook_is_refused_and_stays_as_it_is(call: Call) -> None:
    for name, content in (("bad.ipynb", "{"), ("text.ipynb", '{"a": 1}')):
        await call("write_file", path=name, content=content)
        await call("use_notebook", fails=True, notebook_name="b", notebook_path=name)
        assert told(await call("read_file", path=name))["content"] == content
    assert [row["notebook_name"] for row in told(await call("list_notebooks"))["notebooks"]] == [
        "n"
    ]


async def test_several_notebooks_are_told_apart_by_name_and_the_last_used_is_the_current_one(
    call: Call,
) -> None:
    await call("use_notebook", notebook_name="m", notebook_path="m.ipynb", mode="create")
    await call("insert_cell", cell_index=0, cell_type="raw", cell_source="of m")
    await call("insert_cell", cell_index=0, cell_type="raw", cell_source="of n", notebook_name="n")
    assert told(await call("read_notebook"))["total"] == 1
    assert told(await call("read_notebook", notebook_name="n"))["total"] == 4
    rows = told(await call("list_notebooks"))["notebooks"]
    assert [(row["notebook_name"], row["is_current"], row["total"]) for row in rows] == [
        ("n", False, 4),
        ("m", True, 1),
    ]
    unused = await call("unuse_notebook", notebook_name="m")
    assert "'n' now" in words(unused)
    assert told(await call("read_notebook"))["notebook_name"] == "n"
    gone = await call("read_notebook", fails=True, notebook_name="m")
    assert "use_notebook" in words(gone)


async def test_without_a_notebook_the_error_says_what_to_call(client: Client) -> None:
    call = calls(client)
    for tool, given in (
        ("read_notebook", {}),
        ("insert_cell", {"cell_index": 0, "cell_type": "code", "cell_source": "x"}),
        ("execute_cell", {"cell_index": 0}),
        ("run_notebook", {}),
    ):
        refused = await call(tool, fails=True, **given)
        assert refused.meta[ERROR_META_KEY]["code"] == "not_found"
        assert "use_notebook(" in words(refused)


async def test_a_name_is_found_in_whichever_session_it_was_given(call: Call) -> None:
    other = told(await call("open_session", reuse=False))["session_id"]
    await call(
        "use_notebook",
        notebook_name="o",
        notebook_path="o.ipynb",
        mode="create",
        session_id=other,
    )
    assert told(await call("read_notebook"))["session_id"] == other
    first = told(await call("read_notebook", notebook_name="n"))
    assert first["session_id"] != other
    await call("unuse_notebook", notebook_name="o")
    assert told(await call("read_notebook"))["notebook_name"] == "n"


async def test_unusing_saves_and_its_kernel_goes_on(call: Call) -> None:
    await call("execute_cell", cell_index=0)
    await call("unuse_notebook", notebook_name="n")
    written = told(await call("read_file", path="n.ipynb"))["content"]
    notebook = read_ipynb(written.encode()).notebook
    assert [cell.source for cell in notebook.cells] == ["x = 1 + 2\nx", SHOWS, "# title"]
    assert notebook.cells[0].outputs[0]["data"] == {"text/plain": "3"}
    assert told(await call("execute_code", code="x"))["text"] == "3"


# --- reading and editing


async def test_ids_stay_with_their_cells_and_indices_do_not(call: Call) -> None:
    first, second, third = await ids(call)
    moved = await call("move_cell", source_index=0, target_index=2)
    assert told(moved)["cells"][0] | {"line_count": 2} == told(moved)["cells"][0]
    assert (told(moved)["cells"][0]["cell_id"], told(moved)["cells"][0]["index"]) == (first, 2)
    assert await ids(call) == [second, third, first]
    await call("move_cell", source_cell_id=third, target_cell_id=first)
    assert await ids(call) == [second, first, third]
    assert told(await call("read_cell", cell_id=first))["cells"][0]["index"] == 1


async def test_edits_answer_a_diff_with_the_cells_id_and_index(call: Call) -> None:
    first, *_ = await ids(call)
    edited = await call("edit_cell_source", cell_id=first, old_string="1 + 2", new_string="4")
    assert told(edited)["diff"].splitlines()[-3:] == ["-x = 1 + 2", "+x = 4", " x"]
    assert f"cell 0 (id {first}, code)" in words(edited)
    over = await call("overwrite_cell_source", cell_index=0, cell_source="y")
    assert "+y" in words(over)
    same = await call("overwrite_cell_source", cell_index=0, cell_source="y")
    assert "nothing was changed" in words(same)
    assert "diff" not in told(same)
    deleted = await call("delete_cell", cell_indices=[0, 2])
    assert [cell["index"] for cell in told(deleted)["cells"]] == [0, 2]
    assert "-# title" in told(deleted)["diff"]
    assert told(deleted)["total"] == 1
    quiet = await call("delete_cell", cell_ids_to_delete=await ids(call), include_source=False)
    assert PICTURE not in words(quiet)
    assert "diff" not in told(quiet)


async def test_what_names_no_cell_or_two_is_refused_and_changes_nothing(call: Call) -> None:
    before = told(await call("read_notebook", response_format="detailed"))
    first, second, _ = await ids(call)
    wrong = [
        ("read_cell", {"cell_index": 3}, "not_found"),
        ("read_cell", {"cell_id": "stale"}, "not_found"),
        ("read_cell", {}, "invalid_request"),
        ("read_cell", {"cell_index": 0, "cell_id": second}, "invalid_request"),
        ("overwrite_cell_source", {"cell_source": "z"}, "invalid_request"),
        ("overwrite_cell_source", {"cell_index": 9, "cell_source": "z"}, "not_found"),
        (
            "edit_cell_source",
            {"cell_index": 0, "old_string": "x", "new_string": "z"},
            "invalid_request",
        ),
        (
            "edit_cell_source",
            {"cell_index": 0, "old_string": "absent", "new_string": "z"},
            "invalid_request",
        ),
        ("insert_cell", {"cell_index": 9, "cell_type": "raw", "cell_source": "z"}, "not_found"),
        ("insert_execute_code_cell", {"cell_index": 9, "cell_source": "z"}, "not_found"),
        ("move_cell", {"source_index": 0}, "invalid_request"),
        ("move_cell", {"source_index": 0, "target_index": 3}, "not_found"),
        ("delete_cell", {}, "invalid_request"),
        ("delete_cell", {"cell_indices": [0, 3]}, "not_found"),
        ("delete_cell", {"cell_ids_to_delete": [first, "stale"]}, "not_found"),
        (
            "delete_cell",
            {"cell_indices": [1], "cell_ids_to_delete": [first]},
            "invalid_request",
        ),
        ("clear_cell_output", {"cell_index": 2}, "invalid_request"),
        ("execute_cell", {"cell_index": 2}, "invalid_request"),
        ("execute_cell", {"cell_id": "stale"}, "not_found"),
        ("execute_cell", {}, "invalid_request"),
    ]
    for tool, given, code in wrong:
        refused = await call(tool, fails=True, **given)
        assert refused.meta[ERROR_META_KEY]["code"] == code, (tool, given)
    assert told(await call("read_notebook", response_format="detailed")) == before
    agreeing = await call("read_cell", cell_index=1, cell_id=second)
    assert told(agreeing)["cells"][0]["index"] == 1


async def test_a_page_is_brief_or_detailed_and_says_how_to_read_on(call: Call) -> None:
    await call("execute_cell", cell_index=0)
    brief = await call("read_notebook", notebook_name="n", limit=1)
    assert told(brief)["cells"][0]["source"] == "x = 1 + 2"
    assert told(brief)["cells"][0]["outputs"] == ["text/plain"]
    assert told(brief)["next"] == "read_notebook(start_index=1) has more"
    assert "(+1 lines)" in words(brief)
    rest = await call("read_notebook", start_index=1, response_format="detailed", limit=0)
    assert [cell["source"] for cell in told(rest)["cells"]] == [SHOWS, "# title"]
    assert "next" not in told(rest)
    over = await call("read_notebook", fails=True, start_index=9)
    assert "0 to 3" in words(over)


async def test_long_cells_fit_into_an_answer(call: Call) -> None:
    for _ in range(4):
        await call("insert_cell", cell_index=0, cell_type="raw", cell_source="long line\n" * 10_000)
    page = await call("read_notebook", response_format="detailed", limit=0)
    assert 1 <= len(told(page)["cells"]) < 7
    assert len(words(page)) < 2 * MAX_PAGE_TEXT
    assert "has more" in told(page)["next"]
    gone = await call("delete_cell", cell_indices=[0, 1])
    assert len(told(gone)["diff"]) < MAX_DIFF + 200
    read = await call("read_cell", cell_index=0)
    assert len(words(read)) < 2 * MAX_PAGE_TEXT


# --- running


async def test_a_cell_answers_as_execute_code_does_and_keeps_what_it_showed(call: Call) -> None:
    ran = await call("execute_cell", cell_index=1, timeout=0)
    (picture,) = [block for block in ran.content if block.type == "image"]
    assert picture.data == PICTURE
    assert (told(ran)["status"], told(ran)["cell_index"]) == ("ok", 1)
    assert "cell 1, id " in words(ran)
    read = await call("read_cell", cell_index=1)
    assert [block.data for block in read.content if block.type == "image"] == [PICTURE]
    assert "picture 1: image/png, 30 × 20" in told(read)["cells"][0]["outputs"][0]
    assert told(read)["rich"][0]["uri"].endswith(f"{told(ran)['cell_id']}/outputs/0")
    bare = await call("read_cell", cell_index=1, include_outputs=False)
    assert not [block for block in bare.content if block.type == "image"]
    await call("clear_cell_output", cell_index=1)
    assert "outputs" not in told(await call("read_cell", cell_index=1))["cells"][0]


async def test_variables_are_shared_with_execute_code_and_gone_after_a_restart(call: Call) -> None:
    inserted = await call("insert_execute_code_cell", cell_index=-1, cell_source="seen = 41 + 1")
    assert told(inserted)["cell_index"] == 3
    assert told(await call("execute_code", code="seen"))["text"] == "42"
    await call("restart_notebook", notebook_name="n")
    gone = await call("execute_code", fails=True, code="seen")
    assert told(gone)["error"]["name"] == "NameError"
    assert told(await call("read_notebook"))["total"] == 4


async def test_execute_code_runs_in_the_kernel_of_the_current_notebook_and_says_so(
    call: Call,
) -> None:
    used = await call(
        "use_notebook", notebook_name="o", notebook_path="o.ipynb", mode="create", kernel_id="NEW"
    )
    own = told(used)["kernel_id"]
    ran = await call("execute_code", code="here = 1")
    assert told(ran)["kernel_id"] == own
    assert "your notebook 'o'" in words(ran)
    default = await call("execute_code", fails=True, code="here", kernel_id="k-default")
    assert told(default)["error"]["name"] == "NameError"
    cell = await call("insert_execute_code_cell", cell_index=0, cell_source="here")
    assert (told(cell)["text"], told(cell)["kernel_id"]) == ("1", own)
    await call("use_notebook", notebook_name="n")
    assert told(await call("execute_code", code="2"))["kernel_id"] != own
    absent = await call("use_notebook", fails=True, notebook_name="n", kernel_id="absent")
    assert absent.meta[ERROR_META_KEY]["code"] == "not_found"


@pytest.mark.parametrize(
    ("source", "status"), [('raise ValueError("no")', "error"), ('die("oom")', "died")]
)
async def test_what_fails_is_an_error(call: Call, source: str, status: str) -> None:
    ran = await call("insert_execute_code_cell", fails=True, cell_index=0, cell_source=source)
    assert told(ran)["status"] == status
    shown = told(await call("read_cell", cell_index=0))["cells"][0]["outputs"]
    assert "Error" in shown[-1]


async def test_a_time_out_is_an_error_and_a_long_cell_answers_running(call: Call) -> None:
    late = await call(
        "insert_execute_code_cell", fails=True, cell_index=0, cell_source="sleep(9)", timeout=0.2
    )
    assert told(late)["status"] == "timeout"
    long = await call(
        "insert_execute_code_cell", cell_index=0, cell_source="sleep(0.4)\nprint(7)", wait=0.05
    )
    assert told(long)["status"] == "running"
    with anyio.fail_after(10):
        done = await call("get_execution", execution_id=told(long)["execution_id"], wait=9)
    assert told(done)["text"] == "7"
    assert told(await call("read_cell", cell_index=0))["cells"][0]["outputs"] == ["7"]


async def test_a_dead_kernel_is_told_and_nothing_is_run(call: Call) -> None:
    await call("insert_execute_code_cell", fails=True, cell_index=0, cell_source="die(3)")
    refused = await call("execute_cell", fails=True, cell_index=1)
    assert refused.meta[ERROR_META_KEY]["code"] == "conflict"
    assert "restart_notebook" in words(refused)
    inserted = await call("insert_execute_code_cell", fails=True, cell_index=0, cell_source="1")
    assert "was inserted and not run" in words(inserted)
    await call("restart_notebook")
    await call("execute_cell", cell_index=0)


@pytest.mark.parametrize("stream", [True, False])
async def test_progress_is_told_with_what_is_written_only_where_that_is_wanted(
    client: Client, call: Call, stream: bool
) -> None:
    heard: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    given = {"cell_index": 0, "cell_source": 'print("early")\nsleep(0.5)', "stream": stream}
    await client.call_tool(
        "insert_execute_code_cell", {**given, "progress_interval": 0.1}, progress_callback=hear
    )
    assert heard
    assert any("early" in message for message in heard) is stream


async def test_all_cells_run_in_order_and_death_in_the_middle_is_told(
    client: Client, call: Call
) -> None:
    heard: list[str] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")

    result = await client.call_tool(
        "run_notebook", {"progress_interval": 0.1}, progress_callback=hear
    )
    assert told(result)["status"] == "ok"
    assert "[2 of 2 cells ran]" in words(result)
    assert [block for block in result.content if block.type == "image"]
    await call("overwrite_cell_source", cell_index=0, cell_source='die("oom")')
    dead = await call("run_notebook", fails=True)
    assert (told(dead)["status"], told(dead)["cell_index"]) == ("died", 0)
    assert "[1 of 2 cells ran]" in words(dead)
    read = told(await call("read_notebook"))["cells"]
    assert "outputs" not in read[1], "what an earlier run showed is gone"
    again = await call("run_notebook", fails=True)
    assert again.meta[ERROR_META_KEY]["code"] == "conflict"
    await call("restart_notebook")
    await call("overwrite_cell_source", cell_index=0, cell_source='raise ValueError("no")')
    stopped = await call("run_notebook", fails=True)
    assert (told(stopped)["status"], told(stopped)["error"]["name"]) == ("error", "ValueError")
    allowed = await call("run_notebook", allow_errors=True)
    assert "2 of 2 cells ran, 1 with errors" in words(allowed)


async def test_a_long_run_goes_on_and_is_asked_for_again(call: Call) -> None:
    await call("overwrite_cell_source", cell_index=0, cell_source="sleep(0.5)\nprint(1)")
    began = await call("run_notebook", wait=0.05)
    assert told(began)["status"] == "running"
    assert "run_notebook" in told(began)["next"]
    with anyio.fail_after(10):
        done = await call("run_notebook", wait=9)
    assert told(done)["status"] == "ok"
    assert "2 of 2" in words(done)
    counts = [cell.get("execution_count") for cell in told(await call("read_notebook"))["cells"]]
    assert counts == [1, 2, None], "it ran once"


async def test_who_was_told_that_a_run_goes_on_is_told_its_end_and_runs_nothing_again(
    call: Call,
) -> None:
    async def count() -> int:
        return told(await call("execute_code", code="1"))["execution_count"]

    await call("delete_cell", cell_indices=[1, 2])
    await call("overwrite_cell_source", cell_index=0, cell_source="sleep(0.2)\nprint(1)")
    assert told(await call("run_notebook", wait=0.05))["status"] == "running"
    assert await count() == 2, "the kernel has run the cell, and this behind it"
    done = await call("run_notebook")
    assert (told(done)["status"], told(done)["text"]) == ("ok", "1")
    assert "ended before this call" in words(done)
    assert await count() == 3, "it ran once"
    assert "ended before" not in words(await call("run_notebook"))
    assert await count() == 5
    assert told(await call("run_notebook", wait=0.05))["status"] == "running"
    assert await count() == 7
    await call("overwrite_cell_source", cell_index=0, cell_source="print(2)")
    assert told(await call("run_notebook"))["text"] == "2", "what the notebook says by now"


async def test_giving_a_run_up_ends_it(client: Client, call: Call, manager: SessionManager) -> None:
    await call("overwrite_cell_source", cell_index=0, cell_source="sleep(60)")
    with anyio.move_on_after(0.5):
        await client.call_tool("run_notebook", {})
    with anyio.fail_after(5):
        while True:
            rows = told(await call("read_notebook"))["cells"]
            if rows[0].get("outputs"):
                break
            await anyio.sleep(0.05)
    assert "KeyboardInterrupt" in rows[0]["outputs"][-1]
    assert "execution_count" not in rows[1]


# --- who may


async def test_a_token_for_notebooks_alone_edits_and_reads_and_runs_nothing(
    front: Front, engine: FakeEngine
) -> None:
    front.grants.give("t", ["notebooks"])
    async with front.client("t") as client:
        call = calls(client)
        await call("use_notebook", notebook_name="n", notebook_path="n.ipynb", mode="create")
        await call("insert_cell", cell_index=0, cell_type="code", cell_source="print(1)")
        assert told(await call("read_cell", cell_index=0))["cells"][0]["source"] == "print(1)"
        for tool, given in (
            ("execute_cell", {"cell_index": 0}),
            ("insert_execute_code_cell", {"cell_index": 0, "cell_source": "1"}),
            ("run_notebook", {}),
            ("restart_notebook", {}),
            ("use_notebook", {"notebook_name": "n", "kernel_id": "NEW"}),
        ):
            refused = await call(tool, fails=True, **given)
            assert "execute" in words(refused)
        assert told(await call("read_notebook"))["total"] == 1
        offered = {tool.name for tool in (await client.list_tools()).tools}
        assert not offered & set(ALSO_NEEDED)


async def test_a_policy_names_each_tool_and_what_it_runs_with(
    client: Client, manager: SessionManager, tmp_path: Path
) -> None:
    (tmp_path / "policies" / "nb.yaml").write_text(
        "version: 1\ndescription: Edits.\nextends: offline\n"
        "tools: [use_notebook, insert_cell, execute_cell, run_notebook, restart_notebook]\n"
    )
    manager.ownership.policies = load(resources.policies(), tmp_path / "policies")
    call = calls(client)
    session_id = told(await call("open_session", policy="nb"))["session_id"]
    await call(
        "use_notebook",
        notebook_name="n",
        notebook_path="n.ipynb",
        mode="create",
        session_id=session_id,
    )
    await call("insert_cell", cell_index=0, cell_type="code", cell_source="1")
    for tool, given, needed in (
        ("read_notebook", {}, "read_notebook"),
        ("execute_cell", {"cell_index": 0}, "execute_code"),
        ("run_notebook", {}, "execute_code"),
        ("restart_notebook", {}, "restart_kernel"),
    ):
        refused = await call(tool, fails=True, **given)
        assert f"does not allow {needed}." in words(refused), tool


async def test_each_caller_has_names_of_its_own(front: Front, manager: SessionManager) -> None:
    front.grants.give("a")
    front.grants.give("b")
    async with front.client("a") as one, front.client("b", conversation="other") as other:
        first, second = calls(one), calls(other)
        used = await first(
            "use_notebook", notebook_name="mine", notebook_path="n.ipynb", mode="create"
        )
        session_id = told(used)["session_id"]
        rows = told(await second("list_notebooks", session_id=session_id))["notebooks"]
        assert [(row["notebook_name"], row["notebook_path"]) for row in rows] == [
            ("", "/workspace/n.ipynb")
        ]
        refused = await second(
            "read_notebook", fails=True, notebook_name="mine", session_id=session_id
        )
        assert "'mine'." in words(refused)
        await second(
            "use_notebook", notebook_name="x", notebook_path="n.ipynb", session_id=session_id
        )
        await second("insert_cell", cell_index=0, cell_type="raw", cell_source="from b")
        assert "from b" in words(await first("read_cell", cell_index=0))
        await second("unuse_notebook", notebook_name="x")
        assert told(await first("read_notebook"))["notebook_name"] == "mine"


async def test_a_call_is_on_record_with_its_session(
    call: Call, folder: Path, manager: SessionManager
) -> None:
    read = told(await call("read_cell", cell_index=0))
    recorded = last_call(folder)
    assert recorded["tool"] == "read_cell"
    assert recorded["session_id"] == read["session_id"]
    assert recorded["outcome"] == "ok"
    await call("insert_execute_code_cell", fails=True, cell_index=0, cell_source="raise E('x')")
    assert last_call(folder)["outcome"] == "failed"


async def test_what_a_person_is_asked_is_what_the_cell_says(
    manager: SessionManager, desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "policies" / "asks.yaml").write_text(
        "version: 1\ndescription: Asks.\nextends: offline\napprove: {tools: [execute_code]}\n"
    )
    manager.ownership.policies = load(resources.policies(), tmp_path / "policies")
    asked: list[str] = []

    async def answer(ctx: Any, params: Any) -> Any:
        from mcp_types import ElicitResult

        asked.append(params.message)
        agrees = "yes" in params.message
        return ElicitResult(
            action="accept" if agrees else "decline", content={} if agrees else None
        )

    async with Client(mcp_server(desk), mode="legacy", elicitation_callback=answer) as client:
        call = calls(client)
        session_id = told(await call("open_session", policy="asks"))["session_id"]
        await call(
            "use_notebook",
            notebook_name="n",
            notebook_path="n.ipynb",
            mode="create",
            session_id=session_id,
        )
        await call("insert_cell", cell_index=0, cell_type="code", cell_source='x = "yes"')
        assert not asked
        await call("execute_cell", cell_index=0)
        assert 'x = "yes"' in asked[-1]
        await call("run_notebook")
        assert 'x = "yes"' in asked[-1]
        await call("overwrite_cell_source", cell_index=0, cell_source="never(1)")
        refused = await call("execute_cell", fails=True, cell_index=0)
        assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted"
        await call("run_notebook", fails=True)
        assert len(asked) == 4
        before = told(await call("read_notebook"))["total"]
        await call("insert_execute_code_cell", fails=True, cell_index=0, cell_source="no")
        assert told(await call("read_notebook"))["total"] == before, "nothing was inserted"


async def test_a_new_kernel_is_asked_for_where_a_person_must_agree_to_each(
    manager: SessionManager, desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "policies" / "asks.yaml").write_text(
        "version: 1\ndescription: Asks.\nextends: offline\napprove: {tools: [start_kernel]}\n"
    )
    manager.ownership.policies = load(resources.policies(), tmp_path / "policies")
    asked: list[str] = []

    async def decline(ctx: Any, params: Any) -> Any:
        from mcp_types import ElicitResult

        asked.append(params.message)
        return ElicitResult(action="decline", content=None)

    async with Client(mcp_server(desk), mode="legacy", elicitation_callback=decline) as client:
        call = calls(client)
        session_id = told(await call("open_session", policy="asks"))["session_id"]
        given = {"notebook_name": "n", "notebook_path": "n.ipynb", "session_id": session_id}
        refused = await call("use_notebook", fails=True, **given, mode="create", kernel_id="NEW")
        assert refused.meta[ERROR_META_KEY]["code"] == "not_permitted"
        assert "Allow start_kernel" in asked[-1]
        listed = await call("list_files", session_id=session_id)
        assert "n.ipynb" not in words(listed), "nothing was changed"
        kernels = told(await call("list_kernels", session_id=session_id))["kernels"]
        assert [each["kernel_id"] for each in kernels] in ([], ["k-default"])
        await call("use_notebook", **given, mode="create")
        assert len(asked) == 1


async def test_a_file_that_contradicts_is_told_and_never_overwritten(
    call: Call, manager: SessionManager
) -> None:
    await call("unuse_notebook", notebook_name="n")
    await call("use_notebook", notebook_name="n", notebook_path="n.ipynb")
    await call("write_file", path="n.ipynb", content="no notebook any more")
    with anyio.fail_after(10):
        while not (notes := told(await call("read_notebook")).get("notes")):
            await anyio.sleep(0.1)
    assert "no longer a notebook" in notes[0]
    kept = told(await call("read_file", path="n.ipynb"))["content"]
    assert kept == "no notebook any more"
    unused = await call("unuse_notebook", notebook_name="n")
    assert "not saved" in words(unused)


async def test_every_scope_is_needed_for_what_runs(front: Front) -> None:
    front.grants.give("t", ALL - {"notebooks"})
    async with front.client("t") as client:
        call = calls(client)
        for tool in ALSO_NEEDED:
            given = {"insert_execute_code_cell": {"cell_index": 0, "cell_source": "1"}}
            refused = await call(tool, fails=True, **given.get(tool, {}))
            assert "scope notebooks" in words(refused)
