"""Notebooks over HTTP, each named by its path."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import httpx
import pytest
from mcp import Client

from sandbox.server.desk import Desk
from sandbox.server.tokens import TokenStore
from sandbox.sessions.manager import SessionManager

pytestmark = pytest.mark.anyio


async def test_a_notebook_is_made_filled_run_changed_and_closed(
    http: httpx.AsyncClient, session: str
) -> None:
    book = f"{session}/notebooks/deep/a%20b.ipynb"
    made = await http.put(book)
    assert (made.status_code, made.json()["notebook_path"]) == (201, "/workspace/deep/a b.ipynb")
    assert (await http.put(book)).status_code == 200
    cell = {"cell_index": -1, "cell_type": "code", "cell_source": "print(1)"}
    inserted = await http.post(f"{book}/cells", json=cell)
    assert inserted.status_code == 201, inserted.text
    cell_id = inserted.json()["cells"][0]["cell_id"]
    ran = await http.post(f"{book}/cells/{cell_id}/execute?wait=30")
    assert (ran.json()["status"], ran.json()["text"]) == ("ok", "1")
    read = (await http.get(f"{book}/cells/{cell_id}")).json()
    assert read["cells"][0]["outputs"] == ["1"]
    changed = await http.put(f"{book}/cells/{cell_id}", json={"cell_source": "print(2)"})
    assert "+print(2)" in changed.json()["diff"]
    assert (await http.get(f"{session}/notebooks")).json()["notebooks"][0]["total"] == 1
    gone = await http.delete(f"{book}/cells/{cell_id}")
    assert gone.status_code == 200
    assert (await http.get(f"{book}/cells")).json().get("cells", []) == []
    closed = await http.post(f"{book}/close")
    assert closed.status_code == 200, closed.text
    assert (await http.get(f"{session}/notebooks")).json()["notebooks"] == []
    assert b'"cells": []' in (await http.get(f"{session}/files/deep/a%20b.ipynb")).content


async def test_the_cells_of_a_long_notebook_come_in_pages(
    http: httpx.AsyncClient, session: str
) -> None:
    book = f"{session}/notebooks/long.ipynb"
    await http.put(book)
    for number in range(5):
        cell = {"cell_index": -1, "cell_type": "markdown", "cell_source": str(number)}
        await http.post(f"{book}/cells", json=cell)
    where, found = f"{book}/cells?limit=2", list[str]()
    for _ in range(3):
        page = await http.get(where)
        found += [each["source"] for each in page.json()["cells"]]
        where = page.links.get("next", {}).get("url", "")
    assert (found, where) == (["0", "1", "2", "3", "4"], "")


async def test_a_notebook_that_is_none_is_refused(http: httpx.AsyncClient, session: str) -> None:
    await http.put(f"{session}/files/x.ipynb", content=b"no notebook")
    for path in ("absent.ipynb", "x.ipynb", "%00", "..%2f..%2fetc%2fpasswd"):
        answer = await http.get(f"{session}/notebooks/{path}/cells")
        assert answer.status_code in (400, 403, 404), path
    assert (await http.put(f"{session}/notebooks/x.ipynb")).status_code == 400


async def test_the_names_that_tools_give_notebooks_mean_nothing_here(
    http: httpx.AsyncClient, session: str, manager: SessionManager
) -> None:
    answer = await http.get(
        f"{session}/notebooks/a.ipynb/cells", params={"notebook_name": "another"}
    )
    assert (answer.status_code, "notebook_name" in answer.json()["detail"]) == (400, True)


async def test_a_cell_that_goes_on_is_followed_where_the_answer_says(
    http: httpx.AsyncClient, session: str
) -> None:
    book = f"{session}/notebooks/n.ipynb"
    await http.put(book)
    cell = {"cell_index": 0, "cell_source": "sleep(30)"}
    begun = await http.post(f"{book}/cells/execute?wait=0", json=cell)
    assert begun.status_code == 202, begun.text
    assert (await http.delete(begun.headers["location"])).json()["status"] == "interrupted"
    cell_id = begun.json()["cell_id"]
    begun = await http.post(f"{book}/cells/{cell_id}/execute?wait=0")
    assert (await http.delete(begun.headers["location"])).json()["status"] == "interrupted"
    await http.put(f"{book}/cells/{cell_id}", json={"cell_source": "1"})
    over = await http.post(f"{book}/cells/{cell_id}/execute")
    assert (over.status_code, "location" in over.headers) == (200, False)


async def test_code_runs_in_the_default_kernel_whatever_notebook_an_agent_uses(
    http: httpx.AsyncClient, session: str, client: Client
) -> None:
    used = await client.call_tool(
        "use_notebook",
        {
            "notebook_name": "n",
            "notebook_path": "n.ipynb",
            "mode": "create",
            "kernel_id": "NEW",
            "session_id": session.rpartition("/")[2],
        },
    )
    assert not used.is_error
    ran = (await http.post(f"{session}/executions", json={"code": "1"})).json()
    assert ran["kernel_id"] == "k-default"


async def test_a_path_means_the_same_where_a_notebook_is_shared(
    http: httpx.AsyncClient, session: str, desk: Desk, tmp_path: Path
) -> None:
    await http.put(f"{session}/notebooks/n.ipynb")
    with closing(TokenStore(tmp_path)) as desk.tokens:
        answer = await http.post(f"{session}/notebooks/share", json={"path": "~/n.ipynb"})
        assert (answer.status_code, answer.json()["path"]) == (201, "/workspace/n.ipynb")
        wrong = await http.post(f"{session}/notebooks/share", json={"path": "a\0b.ipynb"})
        assert (wrong.status_code, "NUL" in wrong.json()["detail"]) == (400, True)
