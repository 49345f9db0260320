"""Rooms: notebooks of a session edited by several at once, over real WebSockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from pycrdt import Decoder, Encoder, Map, create_update_message

from sandbox import resources
from sandbox.collaboration.authors import Author
from sandbox.collaboration.peers import STEP1, sync_message
from sandbox.notebooks.editing import insert
from sandbox.policy import load
from sandbox.server.grants import Grant, SharedNotebook
from sandbox.server.jupyter.rooms import author_of

from ....support.roomclient import RoomClient, asked_for, in_room, room_of
from ....support.roomserver import HEADERS, PATH, RoomServer, bearing, room_server

pytestmark = pytest.mark.anyio

AGENT = Author("agent-1", "Claude")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RoomServer]:
    async with room_server(tmp_path, load(resources.policies())) as running:
        yield running


async def test_a_client_gets_the_notebook_and_what_it_types_is_read_by_all(
    server: RoomServer,
) -> None:
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, HEADERS) as bob,
    ):
        assert alice.sources == ["one", "two"]
        alice.type(0, " and a half")
        await bob.until(lambda: bob.sources[0] == "one and a half")
        notebook = await server.session.notebooks.open(PATH)
        assert notebook.read().cells[0].source == "one and a half"


async def test_an_agents_edit_reaches_a_client(server: RoomServer) -> None:
    async with in_room(server.port, server.session_id, PATH, HEADERS) as alice:
        notebook = await server.session.notebooks.open(PATH)
        await notebook.edit(lambda n: insert(n, 1, "code", "1 + 1"), AGENT)
        await alice.until(lambda: alice.sources == ["one", "1 + 1", "two"])
        await alice.until(
            lambda: any(
                state.get("user", {}).get("name") == "Claude"
                for state in alice.awareness.states.values()
            )
        )


async def test_the_same_path_is_the_same_room_however_it_is_written(server: RoomServer) -> None:
    found = [
        (await asked_for(server.port, server.session_id, path, HEADERS)).json()
        for path in (PATH, f"/{PATH}", f"x/../{PATH}")
    ]
    assert found[0] == found[1] == found[2]
    assert (found[0]["format"], found[0]["type"]) == ("json", "notebook")


async def test_what_is_no_notebook_is_refused_so_that_clients_read_the_file(
    server: RoomServer,
) -> None:
    missing = await asked_for(server.port, server.session_id, "b.ipynb", HEADERS)
    text = await asked_for(server.port, server.session_id, "b.txt", HEADERS, kind="file")
    assert (missing.status_code, text.status_code) == (404, 501)
    assert "file" in text.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "fork/json:notebook:x"),
        ("PUT", "fork/json:notebook:x"),
        ("DELETE", "fork/x"),
        ("GET", "timeline/a.ipynb"),
        ("PUT", "undo_redo/json:notebook:x"),
    ],
)
async def test_forks_and_timelines_are_said_not_to_be(
    server: RoomServer, method: str, path: str
) -> None:
    base = f"/jupyter/{server.session_id}/api/collaboration"
    answer = await server.call(method, f"{base}/{path}")
    assert answer.status_code == 501


def save_message(number: int) -> bytes:
    encoder = Encoder()
    encoder.write_var_uint(2)
    encoder.write_var_string("save")
    encoder.write_var_uint(number)
    return encoder.to_bytes()


def answered(message: bytes) -> dict[str, object]:
    decoder = Decoder(message)
    assert decoder.read_var_uint() == 2
    return json.loads(decoder.read_var_string())


async def test_a_save_is_acknowledged_when_the_file_has_it(server: RoomServer) -> None:
    async with in_room(server.port, server.session_id, PATH, HEADERS) as alice:
        alice.type(0, "!")
        alice.send(save_message(7))
        await alice.until(lambda: bool(alice.raw))
        assert answered(alice.raw[0]) == {"type": "save", "responseTo": 7, "status": "success"}
        async with server.session.use(), await server.session.files.open_read(PATH) as reading:
            data = b"".join([piece async for piece in reading])
        assert b"one!" in data


async def test_an_awareness_message_is_said_back_so_that_the_client_hears_somebody(
    server: RoomServer,
) -> None:
    """y-websocket takes a server for lost that says nothing for 30 seconds; what it says itself
    every 15 is said back."""
    async with in_room(server.port, server.session_id, PATH, HEADERS) as alice:
        heard: list[bytes] = []
        alice.awareness.observe(lambda *_: None)
        take = alice._take  # pyright: ignore[reportPrivateUsage]
        alice._take = lambda data: (heard.append(data), take(data))[1]  # type: ignore[method-assign]
        alice.name(cursor=1)
        await alice.until(lambda: any(data[0] == 1 for data in heard))


async def test_a_client_that_was_away_finds_what_happened_and_brings_what_it_did(
    server: RoomServer,
) -> None:
    alice = RoomClient()
    async with in_room(server.port, server.session_id, PATH, HEADERS, alice):
        alice.type(0, "!")
    alice.type(1, "?")
    notebook = await server.session.notebooks.open(PATH)
    await notebook.edit(lambda n: insert(n, 0, "markdown", "# Title"), AGENT)
    async with in_room(server.port, server.session_id, PATH, HEADERS, alice):
        await alice.until(lambda: alice.sources == ["# Title", "one!", "two?"])
        with anyio.fail_after(10):
            while notebook.read().cells[2].source != "two?":
                await anyio.sleep(0.01)


async def test_those_who_have_the_session_open_see_each_other(server: RoomServer) -> None:
    path = f"/jupyter/{server.session_id}/api/collaboration/room/JupyterLab:globalAwareness"
    alice, bob = RoomClient(), RoomClient()
    async with anyio.create_task_group() as tasks:
        for each in (alice, bob):
            await each.connect(server.port, path, HEADERS)
            tasks.start_soon(each.run)
            await each.until(lambda each=each: each.is_synced)
        alice.name(documents=["a.ipynb"])
        await bob.until(
            lambda: (
                {"documents": ["a.ipynb"]}.items()
                <= bob.awareness.states.get(alice.awareness.client_id, {}).items()
            )
        )
        alice.leave()
        await bob.until(lambda: alice.awareness.client_id not in bob.awareness.states)
        bob.leave()
        tasks.cancel_scope.cancel()


async def test_the_others_see_who_the_token_says_it_is(server: RoomServer) -> None:
    shared = await server.share(name="Grace", edit=True)
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, bearing(shared["token"])) as guest,
    ):
        guest.name(user={"name": "Claude", "username": "agent", "color": "red"}, cursor=3)
        me = guest.awareness.client_id
        await alice.until(lambda: alice.awareness.states.get(me, {}).get("cursor") == 3)
        user = alice.awareness.states[me]["user"]
        assert (user["name"], user["display_name"]) == ("Grace (guest)",) * 2
        assert user["username"] == "Grace (guest)"
        assert user["color"] == "red"


async def test_a_guest_without_edit_gets_everything_and_changes_nothing(
    server: RoomServer,
) -> None:
    shared = await server.share()
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, bearing(shared["token"])) as guest,
    ):
        assert guest.sources == ["one", "two"]
        guest.type(0, " by a guest")
        await guest.until(lambda: bool(guest.raw))
        assert guest.raw[0][:2] == b"\x02\x00"  # as y-websocket shows a refusal
        alice.type(1, "!")
        await guest.until(lambda: guest.sources[1] == "two!")
        assert alice.sources == ["one", "two!"]
        notebook = await server.session.notebooks.open(PATH)
        assert notebook.read().cells[0].source == "one"


async def test_a_guest_who_only_reads_keeps_no_session_alive(server: RoomServer) -> None:
    shared = await server.share()
    token = bearing(shared["token"])
    async with in_room(server.port, server.session_id, PATH, token) as guest:
        server.session.lease.is_touched = False
        guest.send(sync_message(STEP1, b"\0"))
        guest.send(save_message(7))
        await guest.until(lambda: bool(guest.raw))
        assert answered(guest.raw[0])["status"] == "failed"
        assert not server.session.lease.is_touched


async def test_who_has_a_session_open_that_ends_is_told(server: RoomServer) -> None:
    path = f"/jupyter/{server.session_id}/api/collaboration/room/JupyterLab:globalAwareness"
    alice = RoomClient()
    await alice.connect(server.port, path, HEADERS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(alice.run)
        await alice.until(lambda: alice.is_synced)
        await server.session.end("closed", "It was closed.")
        alice.name(documents=["a.ipynb"])
        await alice.until(lambda: alice.closed is not None)
        tasks.cancel_scope.cancel()
    assert alice.closed is not None
    assert alice.closed[0] == 4410


async def test_a_guest_with_edit_edits(server: RoomServer) -> None:
    shared = await server.share(edit=True)
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, bearing(shared["token"])) as guest,
    ):
        guest.type(0, "!")
        await alice.until(lambda: alice.sources[0] == "one!")


async def test_a_room_that_is_none_or_no_more_is_said_with_its_code(server: RoomServer) -> None:
    told = (await asked_for(server.port, server.session_id, PATH, HEADERS)).json()
    gone = "0" * 32
    cases = [
        ({**told, "sessionId": "other"}, 1003),
        ({**told, "sessionId": ""}, 1003),
        ({**told, "fileId": gone, "sessionId": gone}, 1003),
        ({**told, "fileId": gone}, 4404),
        ({**told, "type": "file"}, 4400),
        ({**told, "format": "text"}, 4400),
    ]
    for wanted, code in cases:
        client = RoomClient()
        await client.connect(server.port, room_of(server.session_id, wanted), HEADERS)
        await client.run()
        assert client.closed is not None
        assert client.closed[0] == code, wanted
        if code == 1003:  # JupyterLab reads this, and offers to load the page anew
            assert json.loads(client.closed[1])["reloadable"] is True


def test_a_guest_is_named_as_its_share_and_others_as_their_principal() -> None:
    shared = SharedNotebook("s", "/workspace/a.ipynb")
    guest = Grant("alice", "Grace", "t1", frozenset({"notebooks:read"}), notebook=shared)
    own = Grant("alice", "a page", "t2", frozenset({"notebooks"}))
    assert (author_of(guest).name, author_of(own).name) == ("Grace (guest)", "alice")
    assert not author_of(guest).is_agent


async def test_a_client_that_says_again_what_it_was_told_may(server: RoomServer) -> None:
    """Some clients send on whatever changes their document, what came from here too."""
    told = (await asked_for(server.port, server.session_id, PATH, HEADERS)).json()
    async with in_room(server.port, server.session_id, PATH, HEADERS) as alice:
        notebook = await server.session.notebooks.open(PATH)
        await notebook.edit(lambda n: insert(n, 0, "code", "x"), AGENT)
        await alice.until(lambda: len(alice.sources) == 3)
        alice.send(create_update_message(alice.doc.get_update()))
        alice.type(0, "!")
        with anyio.fail_after(10):
            while notebook.read().cells[0].source != "x!":
                await anyio.sleep(0.01)
        assert alice.closed is None
    assert told["fileId"] == notebook.file_id


async def test_who_comes_again_is_let_in_before_its_lost_connection_is_noticed(
    server: RoomServer,
) -> None:
    alice = RoomClient()
    async with in_room(server.port, server.session_id, PATH, HEADERS, alice):
        alice.name(cursor=1)
        again = RoomClient(alice.doc)
        async with (
            in_room(server.port, server.session_id, PATH, HEADERS) as bob,
            in_room(server.port, server.session_id, PATH, HEADERS, again),
        ):
            again.awareness.set_local_state({"cursor": 1})
            again.name(cursor=2)
            again.type(0, "!")
            await bob.until(lambda: bob.sources[0] == "one!")
            me = alice.doc.client_id
            await bob.until(lambda: bob.awareness.states.get(me, {}).get("cursor") == 2)


async def test_what_ten_peers_edit_at_once_is_the_same_for_all(server: RoomServer) -> None:
    notebook = await server.session.notebooks.open(PATH)
    async with AsyncExitStack() as stack:
        peers = [
            await stack.enter_async_context(in_room(server.port, server.session_id, PATH, HEADERS))
            for _ in range(10)
        ]

        async def work(number: int, peer: RoomClient) -> None:
            peer.insert(number % 2, f"peer {number}")
            for count in range(20):
                peer.type(count % len(peer.cells), f"<{number}.{count}>", at=0)
                if count == 10:
                    await notebook.edit(lambda n: insert(n, -1, "code", f"agent {number}"), AGENT)
                await anyio.sleep(0.001 * number)

        async with anyio.create_task_group() as tasks:
            for number, peer in enumerate(peers):
                tasks.start_soon(work, number, peer)
        whole = 2 + 10 + 10

        def has_all(sources: list[str]) -> bool:
            text = "".join(sources)
            return len(sources) == whole and all(
                f"<{number}.{count}>" in text for number in range(10) for count in range(20)
            )

        for peer in peers:
            await peer.until(lambda peer=peer: has_all(peer.sources), within_s=30)
        ours = [cell.source for cell in notebook.read().cells]
        assert all(peer.sources == ours for peer in peers)


async def test_the_outputs_of_a_cell_may_be_larger_than_other_messages(server: RoomServer) -> None:
    async with (
        in_room(server.port, server.session_id, PATH, HEADERS) as alice,
        in_room(server.port, server.session_id, PATH, HEADERS) as bob,
    ):
        alice.cells[0]["outputs"].append(Map({"output_type": "stream", "text": "x" * 2_000_000}))
        await bob.until(lambda: len(bob.cells[0]["outputs"]) == 1, within_s=20)
        assert alice.closed is None
