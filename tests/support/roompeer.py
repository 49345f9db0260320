"""A peer of a room of jupyter-collaboration, as JupyterLab is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
from jupyter_ydoc import YNotebook
from pycrdt import (
    Doc,
    YMessageType,
    YSyncMessageType,
    create_sync_message,
    create_update_message,
    handle_sync_message,
)
from tornado.websocket import WebSocketClientConnection, websocket_connect

WAIT_S = 20


class RoomPeer:
    """Its copy of the document, which follows the room and is followed by it."""

    def __init__(self, socket: WebSocketClientConnection) -> None:
        self.doc: Doc[Any] = Doc()
        self.notebook = YNotebook(self.doc)
        self.awareness = 0
        """How often somebody said something of themselves."""
        self._socket = socket
        self._changed = anyio.Event()
        self._is_applying = False

    @property
    def sources(self) -> list[str]:
        """What its cells say."""
        return [str(cell["source"]) for cell in self.notebook.ycells]

    def cell(self, index: int) -> dict[str, Any]:
        """A cell as plain values."""
        return self.notebook.ycells[index].to_py()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until its copy is so."""
        with anyio.fail_after(WAIT_S):
            while not condition():
                await self._changed.wait()

    async def follow(self) -> None:
        """Take what the room says, and tell it what is changed here."""
        self.doc.observe(self._tell)
        await self._socket.write_message(create_sync_message(self.doc), binary=True)
        while isinstance(message := await self._socket.read_message(), bytes):
            if message[0] == YMessageType.AWARENESS:
                self.awareness += 1
            elif message[0] == YMessageType.SYNC:
                await self._take(message)
            self._changed.set()
            self._changed = anyio.Event()

    async def _take(self, message: bytes) -> None:
        self._is_applying = message[1] != YSyncMessageType.SYNC_STEP1
        try:
            reply = handle_sync_message(message[1:], self.doc)
        finally:
            self._is_applying = False
        if reply is not None:
            await self._socket.write_message(reply, binary=True)

    def _tell(self, event: Any) -> None:
        if not self._is_applying:
            self._socket.write_message(create_update_message(event.update), binary=True)


@asynccontextmanager
async def in_room(url: str, token: str, path: str) -> AsyncGenerator[RoomPeer]:
    """Be in the room of a notebook for the time of the block."""
    async with httpx.AsyncClient(params={"token": token}) as http:
        wanted = {"format": "json", "type": "notebook"}
        said = (await http.put(f"{url}api/collaboration/session/{path}", json=wanted)).json()
    room = f"{said['format']}:{said['type']}:{said['fileId']}"
    address = url.replace("http:", "ws:")
    socket = await websocket_connect(
        f"{address}api/collaboration/room/{room}?sessionId={said['sessionId']}&token={token}"
    )
    peer = RoomPeer(socket)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.follow)
        await peer.until(lambda: len(peer.notebook.ycells) > 0)
        yield peer
        tasks.cancel_scope.cancel()
        socket.close()
