"""Rooms: a session's notebooks edited by several at once, as jupyter-collaboration's clients do.

A client asks for the document of a path and gets its id; the room of that id is a WebSocket. Its
messages are those of Yjs, which :mod:`sandbox.collaboration.peers` speaks, and one kind more, 2: a
client's wish to have the notebook saved, and what came of it. A client that may only read gets
everything and is told, in the form that y-websocket knows, that what it writes is dropped.

https://github.com/jupyterlab/jupyter-collaboration
https://github.com/yjs/y-websocket
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Literal

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.websockets import WebSocket

from sandbox.collaboration.contracts import Author, LiveNotebook
from sandbox.collaboration.lobby import Lobbies
from sandbox.collaboration.peers import AWARENESS, SYNC, Peer
from sandbox.collaboration.varints import Malformed, Reader, varint
from sandbox.errorgroups import one_error
from sandbox.errors import InvalidRequest, NotFound, NotPermitted, SandboxError, SessionLost
from sandbox.server.desk import Desk, permit_unasked
from sandbox.server.grants import Grant, SharedNotebook
from sandbox.server.jupyter.contentmodels import checked
from sandbox.server.jupyter.visits import JupyterRoute, Visit, Wanted, body, failed, told, visited
from sandbox.server.sharing import absolute
from sandbox.server.websockets import WebSocketRoute
from sandbox.sessions.session import Session

ROOM = "/jupyter/{session_id}/api/collaboration/room/{room}"
READS = ("read_notebook",)
"""What a policy must allow where a notebook is followed."""
WRITES = ("insert_cell", "overwrite_cell_source", "delete_cell", "move_cell")
"""What it must allow where it is edited, by all at once and unasked."""
LOBBY = "JupyterLab:globalAwareness"
"""The room of those who have the session open, whichever notebook they look at."""
EXPIRED = 1003
"""The code with which a client is told to load the document anew."""
_RAW = 2
_DENIED = 0


class SessionWanted(Wanted):
    """The body of a request for a document."""

    format: str = ""
    type: str = ""


class Rooms:
    """The rooms of a desk's sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lobbies = Lobbies()

    def routes(self) -> list[JupyterRoute]:
        """What is asked over HTTP."""
        api = "/api/collaboration"
        absent: list[tuple[str, Literal["GET", "PUT", "DELETE"]]] = [
            (f"{api}/fork/{{rest:path}}", "GET"),
            (f"{api}/fork/{{rest:path}}", "PUT"),
            (f"{api}/fork/{{rest:path}}", "DELETE"),
            (f"{api}/timeline/{{rest:path}}", "GET"),
            (f"{api}/undo_redo/{{rest:path}}", "PUT"),
        ]
        return [
            JupyterRoute(f"{api}/session/{{path:path}}", "PUT", (), self._session),
            *(JupyterRoute(path, method, (), _absent) for path, method in absent),
        ]

    def websockets(self) -> list[WebSocketRoute]:
        """The rooms themselves."""
        return [WebSocketRoute(ROOM, self._serve)]

    async def _session(self, visit: Visit) -> Response:
        """Say which room a notebook is in."""
        wanted = await body(visit.request, SessionWanted)
        path = absolute(checked(visit.param("path")))
        shared = SharedNotebook(visit.session.session_id, path)
        visit.grant.require_notebook("notebooks:read", shared)
        for tool in READS:
            permit_unasked(visit.session.policy, tool)
        if wanted.type != "notebook":
            return failed(
                501,
                f"Only notebooks are edited together, not documents of type {wanted.type!r:.40}.",
                "Read and write it as a file.",
            )
        if wanted.format != "json":
            raise InvalidRequest("A notebook has the format json.")
        notebook = await visit.session.notebooks.open(path)
        named = dict.fromkeys(("fileId", "sessionId"), notebook.file_id)
        return told({"format": "json", "type": "notebook", **named})

    async def _serve(self, websocket: WebSocket) -> None:
        session = await visited(self._desk, websocket, ())
        grant, room = _grant(websocket), websocket.path_params["room"]
        for tool in READS:
            permit_unasked(session.policy, tool)
        await websocket.accept()
        if room == LOBBY:
            with self._lobbies.entered(session.session_id, author_of(grant)) as peer:
                await _live(websocket, session, peer, None)
            return
        kind, _, file_id = room.rpartition(":")
        if kind != "json:notebook":
            raise InvalidRequest("A room is json:notebook: and the id that a path was given.")
        asked = websocket.query_params.get("sessionId", "")
        try:
            async with session.use():
                notebook = await session.notebooks.open_by_id(file_id)
        except NotFound:
            if asked != file_id:
                raise
            notebook = None  # it was one once: whoever still has it must load it anew
        if notebook is None or asked != file_id:
            await _expire(websocket)
            return
        shared = SharedNotebook(session.session_id, notebook.path)
        grant.require_notebook("notebooks:read", shared)
        peer = notebook.join(author_of(grant), may_write=may_write(grant, session, shared))
        try:
            await _live(websocket, session, peer, notebook)
        finally:
            peer.leave()


async def _live(
    websocket: WebSocket, session: Session, peer: Peer, notebook: LiveNotebook | None
) -> None:
    """Carry messages both ways, until the client goes or the peer is cut off."""
    async with one_error() as tasks:
        tasks.start_soon(_tell, websocket, peer)
        try:
            await _hear(websocket, session, peer, notebook)
        finally:
            tasks.cancel_scope.cancel()


async def _tell(websocket: WebSocket, peer: Peer) -> None:
    while True:
        await websocket.send_bytes(await peer.receive())


async def _hear(
    websocket: WebSocket, session: Session, peer: Peer, notebook: LiveNotebook | None
) -> None:
    is_told = False
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        if session.is_ending:  # whom no notebook cuts off is in the lobby
            raise SessionLost("The session has ended.")
        data: bytes | None = message.get("bytes")
        if not data:
            raise InvalidRequest("The messages of a room are binary, and have a byte or more.")
        try:
            if data[0] == _RAW:
                async with session.use() if peer.may_write else nullcontext():
                    await _save(data, peer, notebook)
                continue
            await peer.send(data)
            if data[0] == SYNC and peer.may_write:
                session.lease.touch()  # to be there and to read is no use of it
        except NotPermitted as exc:
            if not is_told:
                peer.offer(_denied(exc.message))
            is_told = True
        if data[0] == AWARENESS:
            peer.offer(data)  # y-websocket takes a silent server for a lost one


async def _save(data: bytes, peer: Peer, notebook: LiveNotebook | None) -> None:
    """Do what a message of kind 2 asks for, and say what came of it."""
    try:
        reader = Reader(data)
        reader.varint()
        if reader.text() != "save" or notebook is None:
            return
        number = reader.varint()
    except Malformed as exc:
        raise InvalidRequest(f"The message is malformed: {exc}.") from exc
    status = "failed"
    if peer.may_write:
        try:
            await notebook.save()
            status = "success"
        except SandboxError:
            pass  # the notebook says what stands in its way, to everybody
    told = json.dumps({"type": "save", "responseTo": number, "status": status}).encode()
    peer.offer(bytes((_RAW,)) + varint(len(told)) + told)


def _denied(reason: str) -> bytes:
    """What y-websocket shows as a refusal, and others take for nothing."""
    text = reason.encode()
    return bytes((_RAW, _DENIED)) + varint(len(text)) + text


async def _expire(websocket: WebSocket) -> None:
    """Have a client load the document anew that knows one which is no more."""
    told = {"reason": "unknown_session", "sessionId": "", "reloadable": True}
    await websocket.close(EXPIRED, json.dumps(told))


async def _absent(_visit: Visit) -> Response:
    return failed(
        501,
        "There are no forks and no timeline of a session's notebooks.",
        "Copy the notebook to keep a state of it.",
    )


def author_of(grant: Grant) -> Author:
    """Whom the others see: who the token says it is, whatever the client calls itself."""
    return Author(grant.token_id, grant.shown_name, is_agent=False)


def may_write(grant: Grant, session: Session, notebook: SharedNotebook) -> bool:
    """Whether a peer may do what the tools that edit do, without asking anybody."""
    try:
        for tool in WRITES:
            permit_unasked(session.policy, tool)
    except NotPermitted:
        return False
    return grant.may_edit(notebook)


def _grant(connection: HTTPConnection) -> Grant:
    grant: Grant = connection.scope["sandbox.grant"]
    return grant
