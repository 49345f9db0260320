"""Channels as WebSockets below a session: who may have one, and messages as frames.

Bytes are binary messages, objects are JSON in text messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from starlette.websockets import WebSocket

from sandbox.errors import InvalidRequest
from sandbox.server.channels.attachedcommand import serve_command
from sandbox.server.channels.attachedkernel import serve_kernel
from sandbox.server.channels.attachedterminal import serve_terminal
from sandbox.server.channels.channel import Message, Serve, told_of_errors
from sandbox.server.desk import permit_unasked
from sandbox.server.grants import Grant
from sandbox.server.websockets import WebSocketRoute
from sandbox.sessions.manager import SessionManager

CHANNELS: dict[str, tuple[tuple[str, ...], Serve]] = {
    "/sessions/{session_id}/terminal": (
        ("open_terminal", "write_terminal", "read_terminal"),
        serve_terminal,
    ),
    "/sessions/{session_id}/command": (("run_command",), serve_command),
    "/sessions/{session_id}/kernel": (
        ("execute_code",),
        partial(serve_kernel, permit=permit_unasked),
    ),
}
"""What is served below a session, and the tools that do the same."""


def channel_routes(manager: SessionManager) -> list[WebSocketRoute]:
    """The WebSockets of the sessions of a manager."""
    return [
        WebSocketRoute(path, partial(_serve, manager, tools, serve))
        for path, (tools, serve) in CHANNELS.items()
    ]


async def _serve(
    manager: SessionManager, tools: Sequence[str], serve: Serve, websocket: WebSocket
) -> None:
    grant: Grant = websocket.scope["sandbox.grant"]
    session = await manager.get(grant.caller(), websocket.path_params["session_id"])
    for tool in tools:
        permit_unasked(session.policy, tool)
    await websocket.accept()
    channel = SocketChannel(websocket)
    try:
        await told_of_errors(serve, session, channel)
    finally:
        asked: dict[str, Any] = websocket.scope["sandbox.asked"]
        asked["objects"] = channel.digest.hexdigest()


class SocketChannel:
    """The server's end of a channel that is a WebSocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.digest = hashlib.sha256()
        """Of the objects that came: what was run is on record by it, what was typed is not."""

    async def send(self, message: Message) -> None:
        """Send a message, when the client takes it."""
        if isinstance(message, bytes):
            await self._websocket.send_bytes(message)
        else:
            await self._websocket.send_text(json.dumps(message))

    async def receive(self) -> Message | None:
        """The next message; None when the client has gone.

        Raises:
            InvalidRequest: It is text that is no JSON object.
        """
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        if (data := message.get("bytes")) is not None:
            return cast(bytes, data)
        text: str = message.get("text") or ""
        self.digest.update(text.encode())
        try:
            found: object = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest("A text message is not JSON.") from exc
        if not isinstance(found, dict):
            raise InvalidRequest("A text message is not a JSON object.")
        return cast("dict[str, Any]", found)
