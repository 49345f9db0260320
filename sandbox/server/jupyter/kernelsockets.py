"""The WebSocket of one client at one kernel."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import anyio
import anyio.to_thread
from starlette.websockets import WebSocket

from sandbox.errorgroups import one_error
from sandbox.kernels.conversation import Conversation, converse
from sandbox.server.credentials import KERNEL_SUBPROTOCOL
from sandbox.server.desk import Desk
from sandbox.server.jupyter.kernelframes import Frames, PlainFrames, SplitFrames
from sandbox.server.jupyter.visits import permit_all, visited
from sandbox.server.websockets import WebSocketRoute

CHANNELS = "/jupyter/{session_id}/api/kernels/{kernel_id}/channels"
MAX_REMEMBERED = 512
"""Clients whose place in the log of a kernel is known, so that they go on there."""
AT_ONCE_BYTES = 32 * 1024
"""Longer messages are read in a thread."""


class KernelSockets:
    """Serves the WebSockets of kernels. A client that comes back hears what it missed meanwhile."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._places: OrderedDict[tuple[str, str, str], int] = OrderedDict()

    def routes(self) -> list[WebSocketRoute]:
        """The one path."""
        return [WebSocketRoute(CHANNELS, self._serve, subprotocol=KERNEL_SUBPROTOCOL)]

    async def _serve(self, websocket: WebSocket) -> None:
        session = await visited(self._desk, websocket, ("execute_code",))
        kernel_id: str = websocket.path_params["kernel_id"]
        client = websocket.query_params.get("session_id", "")[:200]
        place = (session.session_id, kernel_id, client)
        frames: Frames = PlainFrames()
        if KERNEL_SUBPROTOCOL in websocket.scope["subprotocols"]:
            frames = SplitFrames()
        async with (
            session.use(),
            converse(
                session.kernels,
                kernel_id,
                permit=lambda tool: permit_all(websocket, session, (tool,)),
                client=client,
                position=self._places.pop(place, None) if client else None,
            ) as conversation,
        ):
            await websocket.accept()
            try:
                async with one_error() as tasks:
                    tasks.start_soon(_take, websocket, frames, conversation, tasks.cancel_scope)
                    async for message in conversation.messages():
                        frame = frames.written(message)
                        if isinstance(frame, bytes):
                            await websocket.send_bytes(frame)
                        else:
                            await websocket.send_text(frame)
                    tasks.cancel_scope.cancel()
            finally:
                if client:
                    self._remember(place, conversation.position)

    def _remember(self, place: tuple[str, str, str], position: int) -> None:
        self._places[place] = position
        if len(self._places) > MAX_REMEMBERED:
            self._places.popitem(last=False)


async def _take(
    websocket: WebSocket, frames: Frames, conversation: Conversation, serving: anyio.CancelScope
) -> None:
    """Hand the client's messages to the kernel until it goes; on record is their digest."""
    digest = hashlib.sha256()
    asked: dict[str, Any] = websocket.scope["sandbox.asked"]
    while True:
        received = await websocket.receive()
        if received["type"] == "websocket.disconnect":
            serving.cancel()
            return
        frame: bytes | str = received.get("bytes") or received.get("text") or ""
        digest.update(frame.encode("utf-8", "replace") if isinstance(frame, str) else frame)
        asked["messages"] = digest.hexdigest()
        if len(frame) > AT_ONCE_BYTES:
            message = await anyio.to_thread.run_sync(frames.read, frame)
        else:
            message = frames.read(frame)
        await conversation.send(message)
