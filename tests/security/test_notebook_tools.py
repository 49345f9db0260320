"""Attacks by way of the notebook tools: by other callers, by a token, by what is in a notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError

from sandbox.toolsets import TOOLSETS

from ..support.served import Served, close_all, sandbox, serve

pytestmark = pytest.mark.anyio

EVERYTHING = "session,execute,terminal,files:read,files:write,notebooks"
SECRET = "typed by the victim"
CELL = {"cell_index": 0, "notebook_name": "mine"}
GIVEN: dict[str, dict[str, Any]] = {
    "use_notebook": {"notebook_name": "mine", "notebook_path": "n.ipynb"},
    "list_notebooks": {},
    "export_session": {},
    "insert_cell": {**CELL, "cell_type": "raw", "cell_source": ""},
    "insert_execute_code_cell": {**CELL, "cell_source": "1"},
    "overwrite_cell_source": {**CELL, "cell_source": ""},
    "edit_cell_source": {**CELL, "old_string": SECRET, "new_string": ""},
    "move_cell": {"source_index": 0, "target_index": 0, "notebook_name": "mine"},
    "delete_cell": {"cell_indices": [0], "notebook_name": "mine"},
    **dict.fromkeys(("read_cell", "clear_cell_output", "execute_cell"), CELL),
}
"""What each tool needs that takes more than a notebook's name."""
PRINCIPALS: set[str] = set()
"""Whose sessions the present test may have opened."""
MAX_ANSWER = 400_000
"""The characters of an answer; the hostile notebook holds twenty times as many."""
HOSTILE = """
import json, os
esc = "\\x1b]0;owned\\x07\\x1b[2J\\u202e"
huge = "A" * 300_000
outputs = [
    {"output_type": "stream", "name": "stdout", "text": esc + huge},
    {"output_type": "display_data", "metadata": {},
     "data": {"text/html": "<script>alert(1)</script>" + huge, "text/plain": esc}},
    {"output_type": "display_data", "metadata": {},
     "data": {"image/png": "not base64 \\x1b[31m" + huge}},
    {"output_type": "error", "ename": esc, "evalue": esc, "traceback": [esc] * 1000},
]
cells = [
    {"cell_type": "code", "id": f"c{n}", "metadata": {"tags": [esc]}, "source": esc + huge,
     "outputs": outputs * 2, "execution_count": 1}
    for n in range(4)
]
whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": esc}},
         "cells": cells}
json.dump(whole, open("hostile.ipynb", "w"))
os.mkfifo("fifo.ipynb")
os.symlink("/etc/passwd", "link.ipynb")
os.symlink("/proc/self/environ", "proc.ipynb")
os.mkdir("folder.ipynb")
"""


@pytest.fixture(scope="module")
def controller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(autouse=True)
def _clean(controller: Served) -> Iterator[None]:
    yield
    for principal in sorted(PRINCIPALS):
        close_all(token(controller, principal))
    PRINCIPALS.clear()


def token(controller: Served, principal: str, scopes: str = EVERYTHING) -> Served:
    """The controller as somebody with a new token reaches it."""
    PRINCIPALS.add(principal)
    words = ("create", "--principal", principal, "--scopes", scopes, "--json")
    done = sandbox(controller.state, "token", *words)
    assert done.returncode == 0, done.stderr
    return replace(controller, token=json.loads(done.stdout)["token"])


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    with anyio.fail_after(60):
        return await client.call_tool(tool, arguments)


def words(result: Any) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


async def victims(client: Client) -> str:
    """A session with a notebook of the victim's in it."""
    used = await call(
        client, "use_notebook", notebook_name="mine", notebook_path="n.ipynb", mode="create"
    )
    await call(client, "insert_cell", cell_index=0, cell_type="raw", cell_source=SECRET)
    return used.structured_content["session_id"]


async def test_nobody_reaches_or_learns_of_anothers_notebook(controller: Served) -> None:
    """Invariant 6: a foreign session answers as an absent one, with each tool and resource."""
    victim, mallory = token(controller, "victim"), token(controller, "mallory")
    async with victim.client() as mine, mallory.client() as theirs:
        session_id = await victims(mine)
        for tool in TOOLSETS["notebooks"]:
            given = GIVEN.get(tool, {"notebook_name": "mine"})
            foreign, absent = [
                await call(theirs, tool, **given, session_id=where)
                for where in (session_id, "s-absent")
            ]
            assert foreign.is_error, tool
            assert "no session" in words(foreign).lower()
            assert words(foreign).replace(session_id, "s-absent") == words(absent)
            if tool not in ("list_notebooks", "export_session"):  # those of its own default session
                assert (await call(theirs, tool, **given)).is_error, tool
        for uri in ("notebook://mine", "notebook://mine/cells/x"):
            with pytest.raises(MCPError) as gone:
                await theirs.read_resource(uri)
            assert SECRET not in str(gone.value)
        assert SECRET in words(await call(mine, "read_cell", cell_index=0))


async def test_another_conversation_sees_no_names_and_cannot_take_one(controller: Served) -> None:
    """Invariant 6: in one session of one principal, too, names are each caller's own."""
    victim = token(controller, "victim")
    async with victim.client(key="one") as one, victim.client(key="two") as two:
        session_id = await victims(one)
        listed = await call(two, "list_notebooks", session_id=session_id)
        assert "mine" not in json.dumps(listed.structured_content)
        for tool in ("read_notebook", "unuse_notebook"):
            assert (await call(two, tool, notebook_name="mine", session_id=session_id)).is_error
        await call(
            two,
            "use_notebook",
            notebook_name="mine",
            notebook_path="other.ipynb",
            mode="create",
            session_id=session_id,
        )
        assert SECRET in words(await call(one, "read_cell", cell_index=0))


async def test_a_token_for_notebooks_runs_nothing_by_any_of_their_tools(
    controller: Served,
) -> None:
    """Invariant 6: what runs code needs the scope that code needs."""
    editor = token(controller, "editor", "notebooks")
    async with editor.client() as client:
        await call(
            client, "use_notebook", notebook_name="n", notebook_path="n.ipynb", mode="create"
        )
        source = "open('/workspace/ran', 'w')"
        await call(client, "insert_cell", cell_index=0, cell_type="code", cell_source=source)
        for tool, given in (
            ("execute_cell", {"cell_index": 0}),
            ("insert_execute_code_cell", {"cell_index": 0, "cell_source": source}),
            ("run_notebook", {}),
            ("restart_notebook", {}),
            ("use_notebook", {"notebook_name": "n", "kernel_id": "NEW"}),
            ("execute_code", {"code": source}),
        ):
            refused = await call(client, tool, **given)
            assert "does not have the scope execute" in words(refused), tool
        total = await call(client, "read_notebook")
        assert total.structured_content["total"] == 1
    reader = token(controller, "editor", "files:read")
    async with reader.client() as client:
        refused = await call(client, "read_notebook", notebook_name="n")
        assert "does not have the scope notebooks" in words(refused)


async def test_a_hostile_notebook_is_shown_in_bounds_and_in_plain_text(controller: Served) -> None:
    """Invariant 3: what code writes into a notebook is input: bounded, and nothing but text."""
    owner = token(controller, "owner")
    async with owner.client() as client:
        made = await call(client, "execute_code", code=HOSTILE)
        assert not made.is_error, words(made)
        answers = [
            await call(client, "use_notebook", notebook_name="h", notebook_path="hostile.ipynb"),
            await call(client, "read_notebook", limit=0),
            await call(client, "read_notebook", response_format="detailed", limit=0),
            await call(client, "read_cell", cell_index=0),
            await call(client, "overwrite_cell_source", cell_index=1, cell_source="x"),
            await call(client, "move_cell", source_index=0, target_index=3),
            await call(client, "delete_cell", cell_indices=[0, 1]),
            await call(client, "list_notebooks"),
        ]
        for answer in answers:
            assert not answer.is_error, words(answer)
            assert len(answer.model_dump_json()) < MAX_ANSWER
            assert not [block for block in answer.content if block.type == "image"]
        shown = words(answers[3])
        assert "\x1b" not in shown.split("\n", 3)[0]
        outputs = "".join(answers[3].structured_content["cells"][0]["outputs"])
        assert not {"\x1b", "\x07", "\u202e"}.intersection(outputs)
        with pytest.raises(MCPError, match="bytes"):
            await client.read_resource("notebook://h")
        for path in ("", *(f"/outputs/{index}" for index in range(8))):
            (read,) = (await client.read_resource(f"notebook://h/cells/c0{path}")).contents
            assert read.mime_type in ("application/json", "application/octet-stream"), path
            assert len(read.model_dump_json()) < 1024 * 1024


async def test_what_is_no_notebook_in_the_place_of_one_is_refused_in_time(
    controller: Served,
) -> None:
    """Invariant 3: a FIFO, a link, a folder or a device where a notebook should be."""
    owner = token(controller, "swapper")
    async with owner.client() as client:
        await call(client, "execute_code", code=HOSTILE)
        for path in ("fifo.ipynb", "folder.ipynb", "link.ipynb", "proc.ipynb", "/dev/zero"):
            with anyio.fail_after(20):
                refused = await call(client, "use_notebook", notebook_name="x", notebook_path=path)
            assert refused.is_error, path
            assert "root:" not in words(refused)
        await call(
            client, "use_notebook", notebook_name="n", notebook_path="n.ipynb", mode="create"
        )
        swap = "os.remove('n.ipynb'); os.mkfifo('n.ipynb')"
        await call(client, "execute_code", code=swap)
        with anyio.fail_after(30):
            await call(client, "insert_cell", cell_index=0, cell_type="raw", cell_source="kept")
            unused = await call(client, "unuse_notebook", notebook_name="n")
        assert "not saved" in words(unused)
        looked = await call(
            client, "execute_code", code="import stat; stat.S_ISFIFO(os.stat('n.ipynb').st_mode)"
        )
        assert words(looked).startswith("True\n")
