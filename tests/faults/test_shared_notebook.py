"""The controller is killed while peers edit a notebook together; nothing acknowledged is lost."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from pycrdt import create_sync_message

from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import Cell, Notebook
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.calls import call, written
from ..support.roomclient import RoomClient, in_room
from ..support.served import Served, close_all, serve

NAME = "shared.ipynb"
PEERS = 3
ROUNDS = 12

pytestmark = pytest.mark.anyio


def port_of(served: Served) -> int:
    return int(served.base.rpartition(":")[2])


async def acknowledged(client: RoomClient) -> None:
    """Wait until the room has answered a question that was asked after all that was typed."""
    client.is_synced = False
    client.send(create_sync_message(client.doc))
    await client.until(lambda: client.is_synced)


async def test_nothing_that_was_acknowledged_is_lost_and_all_documents_are_equal(
    folder: Path, engine: DockerRuntime
) -> None:
    clients = [RoomClient() for _ in range(PEERS)]
    kept: list[set[str]] = [set() for _ in clients]
    with serve(folder) as first:
        async with first.client() as mcp:
            cells = [Cell("text", "markdown", "begin"), Cell("code", "code", "x = 1")]
            content = write_ipynb(Notebook(tuple(cells))).decode()
            await call(mcp, "write_file", path=NAME, content=content)
            session_id = (await call(mcp, "list_sessions"))["sessions"][0]["session_id"]
        with anyio.CancelScope() as until_killed:
            async with AsyncExitStack() as rooms:
                for client in clients:
                    room = in_room(port_of(first), session_id, NAME, first.headers, client)
                    await rooms.enter_async_context(room)
                async with anyio.create_task_group() as typing:
                    for client, words in zip(clients, kept, strict=True):
                        typing.start_soon(type_words, client, clients.index(client), words)
                # Typed and sent, and not waited for: it may or may not have come.
                for number, client in enumerate(clients):
                    client.type(0, f" last-{number}")
                first.process.kill()
                first.process.wait(30)
                until_killed.cancel()
    assert all(len(words) == ROUNDS for words in kept)
    with serve(folder) as second:
        async with AsyncExitStack() as rooms:
            for client in clients:  # each comes back with the document that it has
                room = in_room(port_of(second), session_id, NAME, second.headers, client)
                await rooms.enter_async_context(room)
            fresh = await rooms.enter_async_context(
                in_room(port_of(second), session_id, NAME, second.headers)
            )
            for client in (*clients, fresh, *clients):
                await acknowledged(client)
            await fresh.until(lambda: all(each.sources == fresh.sources for each in clients))
            text = fresh.sources[0]
            for words in kept:
                assert [word for word in words if word not in text] == []
            assert [f"last-{n}" in text for n in range(PEERS)] == [True] * PEERS
            assert fresh.sources[1:] == ["x = 1"]
            async with second.client() as mcp:
                with anyio.fail_after(20):
                    while (await file_of(mcp))[0] != text:
                        await anyio.sleep(0.2)
                again = await call(mcp, "execute_code", code="print('goes on')")
                assert written(again) == "goes on\n"
        await anyio.to_thread.run_sync(close_all, second)


async def type_words(client: RoomClient, number: int, words: set[str]) -> None:
    """Type words, each known to be kept when the room has answered."""
    for turn in range(ROUNDS):
        word = f" w{number}-{turn}"
        client.type(0, word)
        await acknowledged(client)
        words.add(word)


async def file_of(mcp: object) -> list[str]:
    """What the cells of the file say."""
    found = await call(mcp, "run_command", command=f"cat {NAME}")  # type: ignore[arg-type]
    return [cell.source for cell in read_ipynb(found["stdout"].encode()).notebook.cells]
