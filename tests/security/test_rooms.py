"""Attacks through the rooms of notebooks: who must not get in, read on or write, and what must not
get through to a document or to the others in it."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from pycrdt import (
    Array,
    Doc,
    create_awareness_message,
    create_sync_message,
    create_update_message,
    write_message,
    write_var_uint,
)

from sandbox import resources
from sandbox.policy import load
from sandbox.server import auth
from sandbox.server.grants import SharedNotebook
from sandbox.toolsets import TOOLS

from ..support.roomclient import RoomClient, asked_for, in_room, room_of
from ..support.roomserver import HEADERS, PATH, RoomServer, bearing, room_server
from ..support.wsclient import BINARY, TEXT, WsClient, frame

pytestmark = pytest.mark.anyio


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RoomServer]:
    async with room_server(tmp_path, load(resources.policies())) as running:
        yield running
        notebook = await running.session.notebooks.open(PATH)
        assert [cell.source for cell in notebook.read().cells][:2] == ["one", "two"]


async def room(server: RoomServer, path: str = PATH) -> str:
    """Where the room of a notebook is."""
    answer = await asked_for(server.port, server.session_id, path, HEADERS)
    return room_of(server.session_id, answer.json())


async def knocked(server: RoomServer, path: str, headers: dict[str, str]) -> int:
    """The status with which a WebSocket is refused, or the code with which it is closed at once."""
    client = await WsClient.to(server.port, path, headers)
    try:
        status = client.answer.status
        return await client.close_code() if status == 101 else status
    finally:
        client.close()


async def cut(server: RoomServer, *sent: bytes) -> tuple[int, str]:
    """How a client is cut off that sends these frames."""
    client = RoomClient()
    await client.connect(server.port, await room(server), HEADERS)
    for each in sent:
        client.say(each)
    with anyio.fail_after(20):
        await client.run()
    assert client.closed is not None
    return client.closed


# --- who gets in


async def test_nobody_gets_into_a_room_without_a_token_or_its_scope(server: RoomServer) -> None:
    """Invariant 6: no room without a token that has the scope."""
    path = await room(server)
    other, _ = server.tokens.create("local", ["execute"], policies=None, lifetime_s=60)
    cases = [({}, 401), (bearing("nobodys"), 401), (bearing(other), 403)]
    for headers, status in cases:
        assert await knocked(server, path, headers) == status
        asked = await asked_for(server.port, server.session_id, PATH, headers or bearing("x"))
        assert asked.status_code in (401, 403)


async def test_the_rooms_of_somebody_elses_session_are_not_there(server: RoomServer) -> None:
    """Invariant 6: the rooms of a foreign session and of an absent one get the same answer."""
    eve, _ = server.tokens.create("eve", ["notebooks", "session"], policies=None, lifetime_s=60)
    assert await knocked(server, await room(server), bearing(eve)) == 404
    asked = await asked_for(server.port, server.session_id, PATH, bearing(eve))
    absent = await asked_for(server.port, "absent", PATH, bearing(eve))
    assert asked.status_code == absent.status_code == 404
    assert asked.text == absent.text.replace("absent", server.session_id)


@pytest.mark.parametrize("edit", [False, True])
async def test_a_token_for_one_notebook_is_good_for_nothing_else(
    server: RoomServer, edit: bool
) -> None:
    """Invariant 6: a token for one notebook reaches it and nothing else, over any front."""
    await server.write("b.ipynb", "secret")
    await server.session.kernels.start("python3")
    other = await room(server, "b.ipynb")
    share = await server.share(edit=edit)
    guest, base = bearing(share["token"]), f"/jupyter/{server.session_id}"
    for method, path in [
        ("POST", "/mcp/v1"),
        ("GET", "/mcp/v1/sessions"),
        ("GET", f"/mcp/v1/sessions/{server.session_id}"),
        ("POST", f"/mcp/v1/sessions/{server.session_id}/executions"),
        ("GET", f"/mcp/v1/sessions/{server.session_id}/files/{PATH}"),
        ("POST", f"/mcp/v1/sessions/{server.session_id}/notebooks/share"),
        ("DELETE", f"/mcp/v1/sessions/{server.session_id}/notebooks/share/{share['token_id']}"),
        ("GET", f"{base}/api/contents/b.ipynb"),
        ("GET", f"{base}/api/contents/b.ipynb?type=notebook"),
        ("GET", f"{base}/api/contents/b.ipynb/checkpoints"),
        ("GET", f"{base}/api/contents/%2e%2e/etc/passwd"),
        ("GET", f"{base}/api/contents/{PATH}%2f..%2fb.ipynb"),
        ("GET", f"{base}/api/contents/{PATH}%0a"),
        ("PUT", f"{base}/api/contents/{PATH}"),
        ("PATCH", f"{base}/api/contents/{PATH}"),
        ("DELETE", f"{base}/api/contents/{PATH}"),
        ("POST", f"{base}/api/contents"),
        ("POST", f"{base}/api/contents/{PATH}/checkpoints"),
        ("GET", f"{base}/files/{PATH}"),
        ("GET", f"{base}/files/b.ipynb"),
        ("POST", f"{base}/api/kernels"),
        ("GET", f"{base}/api/kernels/default"),
        ("GET", f"{base}/api/kernelspecs/python3"),
        ("POST", f"{base}/api/sessions"),
        ("GET", f"{base}/api/terminals"),
        ("POST", f"{base}/api/terminals"),
        ("GET", f"{base}/api/status"),
        ("GET", "/jupyter/default/api"),
        ("PUT", f"{base}/api/collaboration/session/b.ipynb"),
        ("PUT", f"{base}/api/collaboration/session/../{PATH}/../b.ipynb"),
    ]:
        wanted = {"format": "json", "type": "notebook"} if method == "PUT" else {}
        answer = await server.call(method, path, guest, json=wanted)
        assert answer.status_code in (403, 404), (method, path, answer.text)
    for path in (
        other,
        f"{base}/api/kernels/default/channels",
        f"{base}/api/collaboration/room/JupyterLab:globalAwareness",
        f"/mcp/v1/sessions/{server.session_id}/terminal",
        f"/mcp/v1/sessions/{server.session_id}/kernel",
    ):
        assert await knocked(server, path, guest) in (403, 404, 4403), path


@pytest.mark.parametrize("edit", [False, True])
async def test_a_guest_is_shown_nothing_of_a_session_but_the_notebook(
    server: RoomServer, edit: bool
) -> None:
    """Invariant 6: no file, kernel or kernelspec but the notebook is shown to a guest."""
    await server.write("secret/b.ipynb", "secret")
    await server.session.kernels.start("python3")
    guest = bearing((await server.share(edit=edit))["token"])
    base = f"/jupyter/{server.session_id}/api"
    told: list[str] = []
    for path in ("", "/me", "/kernels", "/kernelspecs", "/sessions", "/contents", "/contents/"):
        answer = await server.call("GET", f"{base}{path}", guest)
        assert answer.status_code == 200, (path, answer.text)
        told.append(answer.text)
    listing = (await server.call("GET", f"{base}/contents", guest)).json()
    assert [each["path"] for each in listing["content"]] == [PATH]
    kernels = [each.kernel_id for each in server.session.kernels.infos]
    assert kernels
    for word in ("secret", "python3", *kernels):
        assert word not in "".join(told)


async def test_a_guest_is_shown_no_notebook_that_the_policy_does_not_let_be_read(
    tmp_path: Path,
) -> None:
    """Invariant 6: what the policy forbids, no token for a notebook brings back."""
    async with room_server(tmp_path, load(resources.policies())) as server:
        token, _ = server.tokens.create(
            "local",
            ["notebooks"],
            policies=None,
            notebook=SharedNotebook(server.session_id, f"/workspace/{PATH}"),
            lifetime_s=60,
        )
        policy = server.session.policy
        url = f"/jupyter/{server.session_id}/api/contents"
        assert (await server.call("GET", url, bearing(token))).status_code == 200
        tools = tuple(TOOLS - {"read_notebook"})
        server.session.policy = policy.model_copy(update={"tools": tools})
        for path in ("", f"/{PATH}"):
            assert (await server.call("GET", url + path, bearing(token))).status_code == 403


async def test_a_share_ends_with_its_time_when_it_is_taken_back_and_with_its_maker(
    server: RoomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 6: it ends with its time, when it is taken back, and with the token of whoever
    shared; who is in the room is cut off.
    """
    monkeypatch.setattr(auth, "RECHECK_S", 0.05)
    maker, info = server.tokens.create("local", ["notebooks"], policies=None, lifetime_s=None)
    path = f"/mcp/v1/sessions/{server.session_id}/notebooks/share"

    async def made(lifetime_s: float = 60) -> dict[str, str]:
        wanted = {"path": PATH, "lifetime_s": lifetime_s}
        answer = await server.call("POST", path, bearing(maker), json=wanted)
        assert answer.status_code == 201, answer.text
        return answer.json()

    short, taken, orphan = await made(1), await made(), await made()
    clients: list[RoomClient] = []
    async with anyio.create_task_group() as tasks:
        for each in (short, taken, orphan):
            client = RoomClient()
            await client.connect(server.port, await room(server), bearing(each["token"]))
            tasks.start_soon(client.run)
            await client.until(lambda client=client: client.is_synced)
            clients.append(client)
        await clients[0].until(lambda: clients[0].closed is not None)
        answer = await server.call("DELETE", f"{path}/{taken['token_id']}")
        assert answer.status_code == 200
        await clients[1].until(lambda: clients[1].closed is not None)
        server.tokens.revoke(token_id=info.token_id)
        await clients[2].until(lambda: clients[2].closed is not None)
    assert [client.closed[0] for client in clients if client.closed] == [auth.TOKEN_GONE] * 3


async def test_a_share_gives_no_more_than_its_maker_has(server: RoomServer) -> None:
    """Invariant 6: who may only read shares nothing."""
    reader, _ = server.tokens.create("local", ["notebooks:read"], policies=None, lifetime_s=None)
    path = f"/mcp/v1/sessions/{server.session_id}/notebooks/share"
    for edit in (False, True):
        answer = await server.call("POST", path, bearing(reader), json={"path": PATH, "edit": edit})
        assert answer.status_code == 403
    assert server.tokens.shares("local") == []


async def test_a_name_of_a_share_cannot_be_anothers_or_none(server: RoomServer) -> None:
    """Invariant 6: a guest is shown as one, whatever it is called or calls itself."""
    path = f"/mcp/v1/sessions/{server.session_id}/notebooks/share"
    for name in ("", " ", "a\nb", "a" * 90, "<b>", "\u202ex"):
        answer = await server.call("POST", path, json={"path": PATH, "name": name})
        assert answer.status_code in (400, 422), name
    share = await server.share(name="local")
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, bearing(share["token"])) as guest,
    ):
        guest.name(user={"name": "local", "display_name": "Claude"}, agent=True)
        me = guest.awareness.client_id
        await alice.until(lambda: me in alice.awareness.states)
        assert alice.awareness.states[me]["user"]["name"] == "local (guest)"
        assert alice.awareness.states[me]["user"]["display_name"] == "local (guest)"
        assert "agent" not in alice.awareness.states[me]


# --- what gets through


async def test_nobody_speaks_or_writes_in_anothers_name(server: RoomServer) -> None:
    """Invariant 6: nobody is shown, and nothing is written, in another peer's name."""
    share = await server.share(edit=True)
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, HEADERS) as bob,
        in_room(server.port, server.session_id, PATH, bearing(share["token"])) as eve,
    ):
        alice.name(cursor=1)
        await eve.until(lambda: alice.doc.client_id in eve.awareness.states)
        forged = RoomClient(Doc(client_id=alice.doc.client_id))
        forged.awareness.set_local_state({"cursor": 2})
        forged.awareness.set_local_state({"cursor": 3})
        told = forged.awareness.encode_awareness_update([alice.doc.client_id])
        eve.send(create_awareness_message(told))
        eve.name(cursor=4)
        await bob.until(lambda: eve.doc.client_id in bob.awareness.states)
        assert bob.awareness.states[alice.doc.client_id]["cursor"] == 1
        forged.doc.apply_update(alice.doc.get_update())
        before = forged.doc.get_state()
        forged.type(0, " forged")
        eve.send(create_update_message(forged.doc.get_update(before)))
        await eve.until(lambda: eve.closed is not None)
        assert eve.closed is not None
        assert eve.closed[0] == 4400
        alice.type(1, "!")
        await bob.until(lambda: bob.sources == ["one", "two!"])
        alice.type(1, "", 0)
        del alice.cells[1]["source"][3:4]
        await bob.until(lambda: bob.sources == ["one", "two"])


async def test_a_reader_changes_nothing_however_it_writes(server: RoomServer) -> None:
    """Invariant 6: a reader's updates, in any form, are dropped, and it is told."""
    share = await server.share()
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, bearing(share["token"])) as guest,
    ):
        doc = Doc[object]()
        doc.apply_update(guest.doc.get_update())
        before = doc.get_state()
        del doc.get("cells", type=Array)[0]
        update = doc.get_update(before)
        for step in (1, 2):
            guest.send(bytes((0, step)) + write_message(update))
        guest.send(bytes((2,)) + write_message(b"save") + write_var_uint(1))
        await guest.until(lambda: len(guest.raw) == 2)
        assert b"failed" in guest.raw[1]
        assert guest.closed is None
        alice.name(cursor=1)
        await guest.until(lambda: alice.doc.client_id in guest.awareness.states)
        assert alice.sources == ["one", "two"]


@pytest.mark.parametrize(
    "sent",
    [
        frame(TEXT, b"{}"),
        frame(BINARY, b""),
        frame(BINARY, b"\x00"),
        frame(BINARY, b"\x00\x07\x00"),
        frame(BINARY, b"\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        frame(BINARY, b"\x00\x02\x05\x00\x00"),
        frame(BINARY, b"\x00\x02\x02\x00\x00\x00"),
        frame(BINARY, b"\x00\x00\x03\x05\x01\x01"),
        frame(BINARY, create_update_message(b"\x01\x01\x01\x00\x84")),
        frame(BINARY, b"\x01"),
        frame(BINARY, create_awareness_message(b"\x01\x01\x01\x02{]")),
        frame(BINARY, create_awareness_message(b"\xff\xff\xff\xff\x0f")),
        frame(BINARY, create_awareness_message(b"\x01\x01\x01\x02[]")),
        frame(BINARY, b"\x02\x04save"),
        frame(BINARY, b"\x02\xff\xff\x03save"),
    ],
)
async def test_what_is_no_message_ends_the_connection_and_changes_nothing(
    server: RoomServer, sent: bytes
) -> None:
    """Invariant 3: what is no message of the protocol ends the connection and changes nothing."""
    code, reason = await cut(server, sent)
    assert code == 4400, reason
    assert reason


async def test_messages_of_other_kinds_mean_nothing(server: RoomServer) -> None:
    """Invariant 3: messages of kinds that are not known mean nothing."""
    async with in_room(server.port, server.session_id, PATH, HEADERS) as alice:
        for kind in (3, 125, 4):
            alice.send(bytes((kind,)) + write_message(os.urandom(50)))
        alice.name(cursor=1)
        alice.send(create_sync_message(alice.doc))
        await alice.until(lambda: alice.closed is None and alice.is_synced)


async def test_a_flood_of_awareness_ends_the_connection_and_reaches_nobody(
    server: RoomServer,
) -> None:
    """Invariant 3: a flood of awareness is cut off and reaches nobody."""
    async with in_room(server.port, server.session_id, PATH, HEADERS) as alice:
        doc = RoomClient()
        sent: list[bytes] = []
        for count in range(1000):
            doc.awareness.set_local_state({"cursor": count})
            told = doc.awareness.encode_awareness_update([doc.awareness.client_id])
            sent.append(frame(BINARY, create_awareness_message(told)))
        code, _ = await cut(server, *sent)
        assert code == 4429
        await alice.until(lambda: doc.awareness.client_id not in alice.awareness.states)


async def test_a_client_that_would_be_many_is_cut_off(server: RoomServer) -> None:
    """Invariant 3: a peer does not make itself many."""
    said = b"".join(
        write_var_uint(client) + b"\x01" + write_message(b"{}") for client in range(1, 30)
    )
    code, _ = await cut(server, frame(BINARY, create_awareness_message(write_var_uint(29) + said)))
    assert code == 4429


async def test_awareness_that_is_too_large_is_not_passed_on(server: RoomServer) -> None:
    """Invariant 3: awareness is bounded in size."""
    state = b'{"a":"' + b"x" * 20_000 + b'"}'
    told = b"\x01\x05\x01" + write_message(state)
    code, _ = await cut(server, frame(BINARY, create_awareness_message(told)))
    assert code == 4429


async def test_a_frame_that_is_too_large_is_not_read(server: RoomServer) -> None:
    """Invariant 3: a frame is bounded, also one whose length is only announced."""
    client = RoomClient()
    await client.connect(server.port, await room(server), HEADERS)
    head = bytes((0x82, 0x80 | 127)) + struct.pack("!Q", 1 << 40) + bytes(4)
    client.say(head)
    for _ in range(200):
        client.say(bytes(64 * 1024))
    with anyio.fail_after(30):
        await client.run()
    assert client.closed is not None
    assert client.closed[0] in (0, 1009)


async def test_a_peer_that_reads_nothing_slows_nobody(server: RoomServer) -> None:
    """Invariant 3: a peer that reads nothing slows nobody."""
    lazy = await WsClient.to(server.port, await room(server), HEADERS)
    assert lazy.answer.status == 101
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, HEADERS) as bob,
    ):
        alice.insert(2, "")
        await bob.until(lambda: len(bob.sources) == 3)
        block = "x" * 50_000
        for count in range(60):
            alice.type(2, block)
            size = (count + 1) * len(block)
            await bob.until(lambda size=size: len(bob.sources[2]) == size, within_s=5)
        del alice.cells[2]
        await bob.until(lambda: len(bob.sources) == 2)
    lazy.close()


async def test_a_notebook_that_is_deleted_or_replaced_while_open_stays_whole(
    server: RoomServer,
) -> None:
    """Invariant 3: a notebook deleted while it is open stays whole for those in it."""
    await server.write("b.ipynb", "mine")
    async with in_room(server.port, server.session_id, "b.ipynb", HEADERS) as alice:
        async with server.session.use():
            await server.session.files.delete("b.ipynb")
        alice.type(0, " still")
        notebook = await server.session.notebooks.open("b.ipynb")
        with anyio.fail_after(10):
            while notebook.read().cells[0].source != "mine still":
                await anyio.sleep(0.01)
        assert alice.closed is None


async def test_the_path_of_a_client_does_not_leave_the_workspace(server: RoomServer) -> None:
    """Invariant 2: no path of a client leads out of the workspace."""
    await server.write("/tmp/a.ipynb", "outside")  # of the sandbox
    for path, status in [
        ("%2e%2e/tmp/a.ipynb", 400),
        ("..%2ftmp/a.ipynb", 400),
        ("b/%2e%2e/%2e%2e/tmp/a.ipynb", 400),
        ("%2e%2e/workspace/a.ipynb", 400),
        ("a.ipynb%00", 400),
        ("%2ftmp/a.ipynb", 404),
    ]:
        url = f"/jupyter/{server.session_id}/api/collaboration/session/{path}"
        answer = await server.call("PUT", url, json={"format": "json", "type": "notebook"})
        assert answer.status_code == status, (path, answer.text)
