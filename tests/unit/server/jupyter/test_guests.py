"""What somebody with a token for one notebook is shown of its session: what JupyterLab asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import resources
from sandbox.collaboration.authors import Author
from sandbox.notebooks.editing import insert
from sandbox.policy import load

from ....support.roomserver import PATH, RoomServer, bearing, room_server

pytestmark = pytest.mark.anyio

DEEP = "a/b/deep.ipynb"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RoomServer]:
    async with room_server(tmp_path, load(resources.policies())) as running:
        await running.write(DEEP, "deep")
        await running.write("a/b/beside.ipynb", "beside")
        yield running


async def shown(server: RoomServer, token: str, path: str) -> dict[str, Any]:
    """What a guest is shown at a path of the contents."""
    url = f"/jupyter/{server.session_id}/api/contents{path}"
    answer = await server.call("GET", url, bearing(token))
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("edit", [False, True])
async def test_the_notebook_is_shown_as_its_room_has_it_and_whether_it_may_be_written(
    server: RoomServer, edit: bool
) -> None:
    token = (await server.share(edit=edit))["token"]
    notebook = await server.session.notebooks.open(PATH)
    await notebook.edit(lambda n: insert(n, 2, "code", "of an agent"), Author("agent", "Claude"))
    found = await shown(server, token, f"/{PATH}")
    sources = ["".join(each["source"]) for each in found["content"]["cells"]]
    assert sources == ["one", "two", "of an agent"]
    assert (found["type"], found["format"], found["writable"]) == ("notebook", "json", edit)
    named = await shown(server, token, f"/{PATH}?content=0")
    assert (named["path"], named["content"], named["writable"]) == (PATH, None, edit)


async def test_each_folder_has_in_it_what_leads_to_the_notebook_and_nothing_else(
    server: RoomServer,
) -> None:
    token = (await server.share(path=DEEP))["token"]
    for path, below in [("", "a"), ("/", "a"), ("/a", "a/b"), ("/a/b", DEEP)]:
        found = await shown(server, token, path)
        assert found["type"] == "directory"
        assert found["path"] == path.strip("/")
        assert [each["path"] for each in found["content"]] == [below]
        assert (await shown(server, token, f"{path}?content=0"))["content"] is None


async def test_there_are_no_kernels_and_no_checkpoints_for_a_guest(server: RoomServer) -> None:
    guest = bearing((await server.share())["token"])
    await server.session.kernels.start("python3")
    base = f"/jupyter/{server.session_id}/api"
    for path, none in [
        ("kernels", []),
        ("kernelspecs", {"default": "", "kernelspecs": {}}),
        ("sessions", []),
        (f"contents/{PATH}/checkpoints", []),
    ]:
        answer = await server.call("GET", f"{base}/{path}", guest)
        assert (answer.status_code, answer.json()) == (200, none)
    assert (await server.call("GET", f"{base}/kernels")).json() != []


async def test_a_guests_page_that_is_left_open_is_no_use_of_the_session(
    server: RoomServer,
) -> None:
    guest = bearing((await server.share())["token"])
    base, lease = f"/jupyter/{server.session_id}/api", server.session.lease
    before = lease.last_used
    for path in ("kernels", "sessions", "contents", f"contents/{PATH}", "me"):
        assert (await server.call("GET", f"{base}/{path}", guest)).status_code == 200
    assert lease.last_used == before
    await server.call("GET", f"{base}/kernels")
    assert lease.last_used > before
