"""Contents, sessions, checkpoints and kernels of a Jupyter Server over an engine in memory."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest

from sandbox.collaboration.authors import Author
from sandbox.notebooks.editing import insert
from sandbox.server.desk import Desk
from sandbox.server.grants import LOCAL_GRANT
from sandbox.server.jupyter import contentroutes

from ..conftest import TOKEN

pytestmark = pytest.mark.anyio

AGENT = Author("agent", "the agent")


@pytest.fixture
async def base(http: httpx.AsyncClient, desk: Desk) -> str:
    """Where a session is that has a kernel; the client has the token."""
    http.headers["Authorization"] = f"token {TOKEN}"
    session = await desk.manager.open(LOCAL_GRANT.caller())
    await (await session.kernels.execute("pass")).wait()
    return f"/jupyter/{session.session_id}"


async def put(http: httpx.AsyncClient, base: str, path: str, **model: Any) -> httpx.Response:
    return await http.put(f"{base}/api/contents/{path}", json={"type": "file", **model})


async def test_a_file_is_text_where_it_is_one_and_base64_else(
    http: httpx.AsyncClient, base: str
) -> None:
    data = base64.b64encode(b"\xff\xfe").decode()
    assert (await put(http, base, "b", content=data, format="base64")).status_code == 201
    assert (await put(http, base, "t.txt", content="é", format="text")).status_code == 201
    assert (await put(http, base, "t.txt", content="e", format="text")).status_code == 200
    got = (await http.get(f"{base}/api/contents/b")).json()
    assert (got["format"], got["content"], got["type"], got["size"]) == ("base64", data, "file", 2)
    got = (await http.get(f"{base}/api/contents/t.txt")).json()
    assert (got["format"], got["content"], got["mimetype"]) == ("text", "e", "text/plain")
    refused = await http.get(f"{base}/api/contents/b?format=text")
    assert (refused.status_code, refused.json()["reason"]) == (400, "invalid_request")
    bare = (await http.get(f"{base}/api/contents/b?content=0")).json()
    assert (bare["content"], bare["format"]) == (None, None)


async def test_a_folder_lists_models_without_contents(http: httpx.AsyncClient, base: str) -> None:
    await http.put(f"{base}/api/contents/d", json={"type": "directory"})
    await put(http, base, "d/x.txt", content="1")
    await put(http, base, "d/n.ipynb", type="notebook")
    got = (await http.get(f"{base}/api/contents/d")).json()
    assert (got["type"], got["format"], got["path"]) == ("directory", "json", "d")
    assert [(each["path"], each["type"], each["content"]) for each in got["content"]] == [
        ("d/n.ipynb", "notebook", None),
        ("d/x.txt", "file", None),
    ]
    assert (await http.get(f"{base}/api/contents/d?type=file")).json()["type"] == "directory"
    assert (await http.get(f"{base}/api/contents/d/x.txt?type=directory")).status_code == 400


async def test_names_of_new_things_are_free_ones(http: httpx.AsyncClient, base: str) -> None:
    contents = f"{base}/api/contents"
    made = [
        (await http.post(contents, json=wanted)).json()["path"]
        for wanted in (
            {"type": "notebook"},
            {"type": "notebook"},
            {"type": "directory"},
            {"type": "file", "ext": ".py"},
            {"copy_from": "Untitled.ipynb"},
        )
    ]
    assert made == [
        "Untitled.ipynb",
        "Untitled1.ipynb",
        "Untitled Folder",
        "untitled.py",
        "Untitled-Copy1.ipynb",
    ]
    got = (await http.get(f"{contents}/Untitled.ipynb")).json()
    assert (got["type"], got["format"], got["content"]["nbformat"]) == ("notebook", "json", 4)


async def test_what_is_no_notebook_is_refused_as_one(http: httpx.AsyncClient, base: str) -> None:
    refused = await put(http, base, "n.ipynb", type="notebook", content={"cells": 7})
    assert refused.status_code == 400
    await put(http, base, "n.ipynb", content="no JSON")
    assert (await http.get(f"{base}/api/contents/n.ipynb")).status_code == 400
    assert (await http.get(f"{base}/api/contents/n.ipynb?type=file")).status_code == 200


async def test_a_live_notebook_is_read_and_merged_and_never_overwritten(
    http: httpx.AsyncClient, base: str, desk: Desk
) -> None:
    contents = f"{base}/api/contents/n.ipynb"
    await put(http, base, "n.ipynb", type="notebook")
    session = await desk.manager.get(LOCAL_GRANT.caller(), base.rpartition("/")[2])
    live = await session.notebooks.open("n.ipynb")
    unread = await put(http, base, "n.ipynb", type="notebook", content=_notebook())
    assert (unread.status_code, unread.json()["reason"]) == (409, "conflict")
    before = (await http.get(contents)).json()["content"]
    await live.edit(lambda ours: insert(ours, -1, "code", "agents = 1", cell_id="agents"), AGENT)
    mine = {"cell_type": "markdown", "id": "mine", "metadata": {}, "source": "client's"}
    model = {"type": "notebook", "content": {**before, "cells": [*before["cells"], mine]}}
    assert (await http.put(contents, json=model)).status_code == 200
    assert {"agents", "mine"} <= {cell.id for cell in live.read().cells}
    await live.edit(lambda ours: insert(ours, -1, "code", "x", cell_id="mine2"), AGENT)
    clash = {"cell_type": "code", "id": "mine2", "metadata": {}, "source": "y", "outputs": []}
    model["content"]["cells"].append({**clash, "execution_count": None})
    answer = await http.put(contents, json=model)
    assert (answer.status_code, answer.json()["reason"]) == (409, "conflict")
    assert next(c.source for c in live.read().cells if c.id == "mine2") == "x"
    plain = await put(http, base, "n.ipynb", content="{}")
    assert plain.status_code == 409
    for method, body in (("DELETE", None), ("PATCH", {"path": "m.ipynb"})):
        answer = await http.request(method, contents, json=body)
        assert answer.status_code == 409, "the agent has it open"


async def test_what_clients_have_read_is_remembered_within_a_bound(
    http: httpx.AsyncClient, base: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contentroutes, "MAX_BASES_BYTES", 2)
    session = await desk.manager.get(LOCAL_GRANT.caller(), base.rpartition("/")[2])
    for name in ("a.ipynb", "b.ipynb"):
        await put(http, base, name, type="notebook")
        await session.notebooks.open(name)
        model = (await http.get(f"{base}/api/contents/{name}")).json()
    for name, status in (("a.ipynb", 409), ("b.ipynb", 200)):
        answer = await put(http, base, name, type="notebook", content=model["content"])
        assert answer.status_code == status


def _notebook() -> dict[str, Any]:
    return {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


async def test_one_checkpoint_is_kept_and_taken_back(http: httpx.AsyncClient, base: str) -> None:
    every = f"{base}/api/contents/f.txt/checkpoints"
    await put(http, base, "f.txt", content="one")
    assert (await http.get(every)).json() == []
    made = await http.post(every)
    assert (made.status_code, made.json()["id"]) == (201, "checkpoint")
    await put(http, base, "f.txt", content="two")
    assert (await http.post(f"{every}/checkpoint")).status_code == 204
    assert (await http.get(f"{base}/api/contents/f.txt")).json()["content"] == "one"
    assert (await http.delete(f"{every}/checkpoint")).status_code == 204
    assert (await http.get(every)).json() == []
    assert (await http.post(f"{every}/other")).status_code == 404


async def test_sessions_pair_paths_with_kernels(http: httpx.AsyncClient, base: str) -> None:
    sessions = f"{base}/api/sessions"
    asked = {"path": "n.ipynb", "name": "", "type": "notebook", "kernel": {"id": "k-default"}}
    made = await http.post(sessions, json=asked)
    assert (made.status_code, made.json()["kernel"]["id"]) == (201, "k-default")
    again = await http.post(sessions, json=asked)
    assert again.json()["id"] == made.json()["id"], "one path has one session"
    one = f"{sessions}/{made.json()['id']}"
    assert (await http.patch(one, json={"path": "m.ipynb"})).json()["path"] == "m.ipynb"
    changed = await http.patch(one, json={"kernel": {"name": "python3"}})
    assert changed.json()["kernel"]["id"] != "k-default"
    kernels = {each["id"] for each in (await http.get(f"{base}/api/kernels")).json()}
    assert "k-default" in kernels, "the agent's kernel goes on"
    assert (await http.delete(one)).status_code == 204
    assert (await http.get(one)).status_code == 404
    assert [each["id"] for each in (await http.get(f"{base}/api/kernels")).json()] == ["k-default"]
    assert (await http.post(sessions, json={"path": "x"})).status_code == 400
    lost = {"path": "x", "type": "file", "kernel": {"id": "k-none"}}
    assert (await http.post(sessions, json=lost)).status_code == 404


async def test_what_is_not_there_is_told_as_a_jupyter_server_does(
    http: httpx.AsyncClient, base: str
) -> None:
    for path in ("contents/x", "kernels/k-none", "kernelspecs/none", "terminals/t-none"):
        answer = await http.get(f"{base}/api/{path}")
        assert answer.status_code == 404, path
        assert set(answer.json()) == {"message", "reason"}
