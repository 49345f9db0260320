"""Notebooks, cells and outputs as resources, and the prompt that cites cells."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mcp import Client, MCPError
from mcp_types import INVALID_PARAMS

from sandbox import resources
from sandbox.errors import InvalidRequest
from sandbox.notebooks.models import Cell
from sandbox.policy import load
from sandbox.server import notebookresources
from sandbox.server.notebookresources import MAX_CITED, cited
from sandbox.server.notebookviews import outputs_of
from sandbox.server.tools import cells
from sandbox.sessions.manager import SessionManager

from ...support.results import png
from .test_notebooktools import calls
from .test_recording import folder as folder
from .test_recording import last_call
from .test_scopes import ALL, Front
from .test_scopes import front as front

pytestmark = pytest.mark.anyio

PICTURE = base64.b64encode(png(30, 20)).decode()
NAME = "my notebook/ü"
URI = f"notebook://{quote(NAME, safe='')}"


@pytest.fixture
async def cell_id(client: Client) -> str:
    """The id of a cell that showed a text and a picture, in a notebook with an odd name."""
    call = calls(client)
    await call("use_notebook", notebook_name=NAME, notebook_path="n.ipynb", mode="create")
    await call("insert_cell", cell_index=0, cell_type="markdown", cell_source="# title")
    source = f'print("hello")\ndisplay("image/png", "{PICTURE}")'
    ran = await call("insert_execute_code_cell", cell_index=1, cell_source=source)
    return ran.structured_content["cell_id"]


async def read(client: Client, uri: str) -> Any:
    (found,) = (await client.read_resource(uri)).contents
    return found


async def test_a_notebook_is_read_by_the_name_its_caller_gave_it(
    client: Client, cell_id: str
) -> None:
    found = await read(client, URI)
    assert found.mime_type == "application/x-ipynb+json"
    notebook = json.loads(found.text)
    assert (notebook["nbformat"], len(notebook["cells"])) == (4, 2)
    assert notebook["cells"][1]["id"] == cell_id


async def test_a_cell_lists_its_outputs_and_each_is_a_resource(
    client: Client, cell_id: str
) -> None:
    cell = json.loads((await read(client, f"{URI}/cells/{cell_id}")).text)
    assert (cell["index"], cell["id"], cell["execution_count"]) == (1, cell_id, 1)
    text, picture = cell["outputs"]
    assert picture["bytes"] == {"image/png": len(PICTURE)}
    shown = await read(client, picture["uri"])
    assert (shown.mime_type, shown.blob) == ("image/png", PICTURE)
    assert json.loads((await read(client, text["uri"])).text)["text"] == "hello\n"


@pytest.mark.parametrize(
    "path",
    [
        "/cells/stale",
        "/cells/{id}/outputs/2",
        "/cells/{id}/outputs/x",
        "/cells/{id}/outputs/²",
        "/cells/{id}/outputs/0000000001",
    ],
)
async def test_what_is_not_there_is_an_error_of_the_protocol(
    client: Client, cell_id: str, path: str
) -> None:
    with pytest.raises(MCPError) as refused:
        await client.read_resource(URI + quote(path.format(id=cell_id), safe="/"))
    assert refused.value.code == INVALID_PARAMS


async def test_the_resource_of_a_picture_is_named_where_the_cell_is_read(
    client: Client, cell_id: str
) -> None:
    told = (await client.call_tool("read_cell", {"cell_id": cell_id})).structured_content
    assert told is not None
    (picture,) = told["rich"]
    assert (await read(client, picture["uri"])).blob == PICTURE


async def test_what_is_too_large_for_a_message_is_refused_with_another_way(
    client: Client, cell_id: str
) -> None:
    call = calls(client)
    large = "é" * 600_000
    await call("insert_cell", cell_index=0, cell_type="raw", cell_source=large)
    with pytest.raises(MCPError, match="read_notebook pages it"):
        await client.read_resource(URI)
    await client.read_resource(f"{URI}/cells/{cell_id}")


async def test_what_may_be_large_is_worked_on_beside_the_event_loop(
    client: Client, cell_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(cell: Cell) -> Any:
        threads.append(threading.current_thread())
        return outputs_of(cell)

    monkeypatch.setattr(notebookresources, "outputs_of", noted)
    monkeypatch.setattr(cells, "outputs_of", noted)
    await read(client, f"{URI}/cells/{cell_id}")
    await read(client, f"{URI}/cells/{cell_id}/outputs/0")
    await calls(client)("read_cell", cell_id=cell_id)
    assert len(threads) == 3
    assert threading.main_thread() not in threads


async def test_readings_are_recorded_and_need_what_the_tools_need(
    client: Client, cell_id: str, front: Front, folder: Path
) -> None:
    await read(client, f"{URI}/cells/{cell_id}")
    assert last_call(folder)["tool"] == "read_cell"
    front.grants.give("t", ALL - {"notebooks"}, principal="local")
    async with front.client("t") as without:
        for asked in (
            without.read_resource(URI),
            without.get_prompt("jupyter_cite", {"prompt": "p", "cell_indices": "0"}),
        ):
            with pytest.raises(MCPError, match="scope notebooks"):
                await asked
        assert (await without.list_prompts()).prompts == []
    assert last_call(folder)["code"] == "not_permitted"
    front.grants.give("other", principal="mallory")
    async with front.client("other") as foreign:
        with pytest.raises(MCPError, match="no notebook"):
            await foreign.read_resource(URI)


async def test_a_policy_without_the_tool_has_no_such_resource(
    client: Client, manager: SessionManager, tmp_path: Path
) -> None:
    own = tmp_path / "policies"
    (own / "mute.yaml").write_text(
        "version: 1\ndescription: Edits.\nextends: offline\ntools: [use_notebook]\n"
    )
    manager.ownership.policies = load(resources.policies(), own)
    call = calls(client)
    opened = (await call("open_session", policy="mute")).structured_content
    given = {"mode": "create", "session_id": opened["session_id"]}
    await call("use_notebook", notebook_name="n", notebook_path="n.ipynb", **given)
    with pytest.raises(MCPError, match="does not allow read_notebook"):
        await client.read_resource("notebook://n")


async def test_cells_are_cited_in_a_prompt(client: Client, cell_id: str) -> None:
    (prompt,) = (await client.list_prompts()).prompts
    assert [(each.name, each.required) for each in prompt.arguments or ()] == [
        ("prompt", True),
        ("cell_indices", True),
        ("notebook_name", False),
    ]
    given = {"prompt": "Explain this.", "cell_indices": "0-1", "notebook_name": NAME}
    (message,) = (await client.get_prompt("jupyter_cite", given)).messages
    text = message.content.text
    assert message.role == "user"
    assert text.index("# title") < text.index(f"id {cell_id}") < text.index('print("hello")')
    assert text.endswith("Explain this.")
    current = await client.get_prompt("jupyter_cite", {"prompt": "p", "cell_indices": "1-"})
    assert "# title" not in current.messages[0].content.text


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": "p"}, "needs: cell_indices"),
        ({"prompt": "p", "cell_indices": "9"}, "cells 0 to 1"),
        ({"prompt": "p", "cell_indices": "0", "notebook_name": "absent"}, "use_notebook"),
        ({"prompt": "p", "cell_indices": "0", "cells": "1"}, "no such argument"),
    ],
)
async def test_a_prompt_that_cannot_be_made_says_why(
    client: Client, cell_id: str, given: dict[str, str], told: str
) -> None:
    with pytest.raises(MCPError) as refused:
        await client.get_prompt("jupyter_cite", given)
    assert refused.value.code == INVALID_PARAMS
    assert told in refused.value.message


@pytest.mark.parametrize(
    ("text", "found"),
    [("0", [0]), ("0-2,4", [0, 1, 2, 4]), ("3-", [3, 4]), (" 1 , 0 - 1 ", [0, 1]), ("4,4", [4])],
)
def test_indices_are_read_as_ranges_and_lists(text: str, found: list[int]) -> None:
    assert cited(text, 5) == found


@pytest.mark.parametrize(
    "text", ["", " , ", "x", "-1", "-", "2-1", "5", "3-9", "1-2-3", "²", "9" * 40, "0-99999999"]
)
def test_indices_that_name_no_cells_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        cited(text, 5)


def test_so_many_cells_are_cited_and_no_more() -> None:
    assert len(cited(f"0-{MAX_CITED - 1}", 10_000)) == MAX_CITED
    with pytest.raises(InvalidRequest, match="At most"):
        cited("0-", 10_000)
    with pytest.raises(InvalidRequest):
        cited("0-,1-", 0)
