"""Terminals, as a Jupyter Server has them: opened and closed by REST, used over a WebSocket.

The WebSocket speaks terminado's lists: ``["stdin", text]``, ``["set_size", rows, columns, …]`` from
the client, ``["setup", {}]``, ``["stdout", text]``, ``["disconnect", 1]`` to it.
"""

from __future__ import annotations

import codecs
import json
from contextlib import suppress
from functools import partial
from typing import Any, cast

import anyio
from starlette.responses import Response
from starlette.websockets import WebSocket

from sandbox.errorgroups import one_error
from sandbox.errors import Conflict, InvalidRequest, NotFound, NotPermitted
from sandbox.server.desk import Desk
from sandbox.server.jupyter.about import timestamp
from sandbox.server.jupyter.visits import (
    JupyterRoute,
    Visit,
    Wanted,
    body,
    done,
    permit_all,
    told,
    visited,
)
from sandbox.server.websockets import WebSocketRoute
from sandbox.sessions.session import Session
from sandbox.terminals.models import TerminalInfo
from sandbox.terminals.terminals import MAX_COLS, MAX_ROWS

SOCKET = "/jupyter/{session_id}/terminals/websocket/{name}"
MAX_TYPED = 4 * 1024
"""Characters typed at once; the rest of a message follows."""
MAX_TEXT = 64 * 1024


class TerminalWanted(Wanted):
    """The body of ``POST /api/terminals``."""

    cwd: str | None = None


def routes() -> list[JupyterRoute]:
    """The terminals of a session."""
    one = "/api/terminals/{name}"
    return [
        JupyterRoute("/api/terminals", "GET", ("list_terminals",), _list),
        JupyterRoute("/api/terminals", "POST", ("open_terminal",), _open),
        JupyterRoute(one, "GET", ("list_terminals",), _show),
        JupyterRoute(one, "DELETE", ("close_terminal",), _close),
    ]


def websockets(desk: Desk) -> list[WebSocketRoute]:
    """A terminal's screen and keys."""
    return [WebSocketRoute(SOCKET, partial(_serve, desk))]


def _model(session: Session, info: TerminalInfo) -> dict[str, Any]:
    latest = session.terminals.last_activity_at or session.info().created_at
    return {"name": info.terminal_id, "last_activity": timestamp(latest)}


def _named(session: Session, name: str) -> TerminalInfo:
    for info in session.terminals.infos:
        if info.terminal_id == name:
            return info
    raise NotFound(f"There is no terminal {name!r:.80}.", remedy="List or open terminals.")


async def _list(visit: Visit) -> Response:
    session = visit.session
    return told([_model(session, each) for each in session.terminals.infos])


async def _open(visit: Visit) -> Response:
    wanted = await body(visit.request, TerminalWanted)
    cwd = (wanted.cwd or "").strip("/")
    return told(_model(visit.session, await visit.session.terminals.open(cwd=cwd)))


async def _show(visit: Visit) -> Response:
    return told(_model(visit.session, _named(visit.session, visit.param("name"))))


async def _close(visit: Visit) -> Response:
    await visit.session.terminals.close(_named(visit.session, visit.param("name")).terminal_id)
    return done()


async def _serve(desk: Desk, websocket: WebSocket) -> None:
    session = await visited(desk, websocket, ("read_terminal", "write_terminal"))
    terminal_id = _named(session, websocket.path_params["name"]).terminal_id
    async with session.use():
        await websocket.accept()
        await _send(websocket, "setup", {})
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async with one_error() as tasks:
            tasks.start_soon(
                partial(_take, may_resize=_may_resize(websocket, session)),
                *(session, terminal_id, websocket, tasks.cancel_scope),
            )
            async for read in session.terminals.follow(terminal_id):
                if read.missed:
                    await _send(websocket, "stdout", f"\r\n[{read.missed} bytes missed]\r\n")
                if text := decoder.decode(b"".join(read.entries)):
                    await _send(websocket, "stdout", text)
            await _send(websocket, "disconnect", 1)
            tasks.cancel_scope.cancel()


async def _send(websocket: WebSocket, kind: str, value: object) -> None:
    await websocket.send_text(json.dumps([kind, value]))


def _may_resize(websocket: WebSocket, session: Session) -> bool:
    """Whether its client may say how large it is; pages say so unasked, and are not sent away."""
    try:
        permit_all(websocket, session, ("resize_terminal",))
    except NotPermitted:
        return False
    return True


async def _take(
    session: Session,
    terminal_id: str,
    websocket: WebSocket,
    serving: anyio.CancelScope,
    *,
    may_resize: bool,
) -> None:
    """Type what comes, until the client goes."""
    while True:
        received = await websocket.receive()
        if received["type"] == "websocket.disconnect":
            serving.cancel()
            return
        kind, *values = _parsed(received.get("text"))
        if kind == "stdin" and values and isinstance(values[0], str):
            text = values[0][:MAX_TEXT]
            with suppress(Conflict):  # its program has ended, or does not read: the keys are lost
                for at in range(0, len(text), MAX_TYPED):
                    await session.terminals.write(terminal_id, text[at : at + MAX_TYPED])
        elif kind == "set_size" and len(values) >= 2:
            rows, cols = (each if type(each) is int else 0 for each in values[:2])
            if may_resize and 1 <= rows <= MAX_ROWS and 1 <= cols <= MAX_COLS:
                await session.terminals.resize(terminal_id, rows, cols)
        else:
            raise InvalidRequest("A terminal takes stdin and set_size.")


def _parsed(text: str | None) -> list[Any]:
    """A message of the client: a list that begins with a word."""
    if not text or len(text) > 2 * MAX_TEXT:
        raise InvalidRequest("A terminal's message is a JSON list of bounded length.")
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("A terminal's message is a JSON list.") from exc
    if not isinstance(found, list) or not found:
        raise InvalidRequest("A terminal's message is a JSON list with a word first.")
    return cast("list[Any]", found)
