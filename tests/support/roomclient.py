"""A client of a notebook's room, as JupyterLab's collaboration is one: Yjs over a WebSocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import quote

import anyio
import httpx
from pycrdt import (
    Array,
    Awareness,
    Doc,
    Map,
    Text,
    create_awareness_message,
    create_sync_message,
    create_update_message,
    handle_sync_message,
    read_message,
)

from .wsclient import BINARY, CLOSE, WsClient, frame


class RoomClient:
    """One client; :meth:`run` takes what comes."""

    def __init__(self, doc: Doc[Any] | None = None) -> None:
        self.doc = doc or Doc[Any]()
        self.cells = cast("Array[Any]", self.doc.get("cells", type=Array))
        self.meta = cast("Map[Any]", self.doc.get("meta", type=Map))
        self.state = cast("Map[Any]", self.doc.get("state", type=Map))
        self.awareness = Awareness(self.doc)
        self.closed: tuple[int, str] | None = None
        self.raw: list[bytes] = []
        """Messages of kind 2."""
        self.is_synced = False
        self._ws: WsClient
        self._is_remote = False
        self._changed = anyio.Event()

    async def connect(self, port: int, path: str, headers: dict[str, str]) -> None:
        """Enter the room at a path."""
        self._ws = await WsClient.to(port, path, headers)
        assert self._ws.answer.status == 101, self._ws.answer
        self.is_synced, self.closed = False, None
        self.doc.observe(self._mine)
        self.send(create_sync_message(self.doc))

    def send(self, message: bytes) -> None:
        """Send one message."""
        self._ws.say(frame(BINARY, message))

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._ws.say(data)

    def name(self, **state: Any) -> None:
        """Say something of oneself."""
        self.awareness.set_local_state(state)
        told = self.awareness.encode_awareness_update([self.awareness.client_id])
        self.send(create_awareness_message(told))

    async def run(self) -> None:
        """Take what the room says, until it is over."""
        while True:
            opcode, data = await self._ws.heard(patience_s=3600)
            if opcode == BINARY:
                self._take(data)
            elif opcode == CLOSE or opcode == 0:
                code = int.from_bytes(data[:2], "big") if data else 0
                self.closed = code, data[2:].decode()
                self._tell()
                return

    def _take(self, message: bytes) -> None:
        if message[0] == 0:
            self._is_remote = True
            try:
                reply = handle_sync_message(message[1:], self.doc)
            finally:
                self._is_remote = False
            self.is_synced = self.is_synced or message[1] == 1
            if reply is not None:
                self.send(reply)
        elif message[0] == 1:
            self.awareness.apply_awareness_update(read_message(message[1:]), "room")
        else:
            self.raw.append(message)
        self._tell()

    def _mine(self, event: Any) -> None:
        if not self._is_remote:
            self.send(create_update_message(event.update))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, condition: Any, within_s: float = 10) -> None:
        """Wait until something is true of what has come."""
        with anyio.fail_after(within_s):
            while not condition():
                await self._changed.wait()

    def leave(self) -> None:
        """Go away without a word."""
        self._ws.close()

    # --- what is in it

    @property
    def sources(self) -> list[str]:
        """What its cells say."""
        return [str(cell["source"]) for cell in self.cells]

    def insert(self, at: int, source: str) -> None:
        """Put a code cell in."""
        self.cells.insert(
            at,
            Map(
                {
                    "id": f"c{self.doc.client_id:x}{len(self.cells):x}"[:64],
                    "cell_type": "code",
                    "source": Text(source),
                    "metadata": Map({}),
                    "outputs": Array([]),
                    "execution_count": None,
                }
            ),
        )

    def type(self, cell: int, text: str, at: int | None = None) -> None:
        """Type into a cell; at its end when no place is named."""
        source = self.cells[cell]["source"]
        source.insert(len(source) if at is None else at, text)


async def asked_for(
    port: int, session_id: str, path: str, headers: dict[str, str], kind: str = "notebook"
) -> httpx.Response:
    """What a server answers who asks for the document of a path."""
    url = f"http://127.0.0.1:{port}/jupyter/{session_id}/api/collaboration/session/{quote(path)}"
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        wanted = {"format": "json" if kind == "notebook" else "text", "type": kind}
        return await client.put(url, content=json.dumps(wanted), headers=headers)


def room_of(session_id: str, told: dict[str, str]) -> str:
    """The path of the room that a server named."""
    room = f"{told['format']}:{told['type']}:{told['fileId']}"
    base = f"/jupyter/{session_id}/api/collaboration/room"
    return f"{base}/{room}?sessionId={told['sessionId']}"


@asynccontextmanager
async def in_room(
    port: int,
    session_id: str,
    path: str,
    headers: dict[str, str],
    client: RoomClient | None = None,
) -> AsyncIterator[RoomClient]:
    """A client in the room of a notebook, synchronised, until the block ends."""
    answer = await asked_for(port, session_id, path, headers)
    assert answer.status_code == 200, answer.text
    client = client or RoomClient()
    try:
        async with anyio.create_task_group() as tasks:
            await client.connect(port, room_of(session_id, answer.json()), headers)
            tasks.start_soon(client.run)
            await client.until(lambda: client.is_synced)
            yield client
            tasks.cancel_scope.cancel()
    finally:
        client.leave()
