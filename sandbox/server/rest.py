"""REST below ``/mcp/v1``: sessions, and their files at any size, streamed both ways."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import anyio.to_thread
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.egress.models import Tightening
from sandbox.errors import FileError, InvalidRequest
from sandbox.files.models import MAX_ENTRIES
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.outputs.redaction import Pieces
from sandbox.server.arguments import at_home
from sandbox.server.auth import GUARDED
from sandbox.server.desk import (
    EXPORT,
    RESULTS,
    Desk,
    caller_of_request,
    grant_of_request,
    may_list,
    permit_unasked,
)
from sandbox.server.download import HARMLESS, Download, etag_header
from sandbox.server.endpoints import Endpoint, Endpoints
from sandbox.server.problems import problem
from sandbox.server.room import with_room
from sandbox.server.scopes import ADMIN
from sandbox.server.tools.policies import policies_of
from sandbox.sessions.session import Session
from sandbox.values import Frozen

MAX_JSON_BODY = 64 * 1024
CHUNK_BYTES = 256 * 1024

_Body = TypeVar("_Body", bound=BaseModel)
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class OpenRequest(Frozen, strict=True):
    """The body of ``POST /sessions``; all of it may be left out."""

    policy: str = ""
    name: str = ""
    workspace: str = ""
    reuse: bool = True


class TightenRequest(Frozen, strict=True):
    """The body of ``POST /sessions/ID/tighten``."""

    network: Literal["", "none"] = ""
    deny: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(
        default_factory=list, max_length=64
    )


class FilesRequest(Frozen):
    """The query of ``GET /sessions/ID/files``."""

    path: str = ""
    max_depth: int = Field(1, ge=1, le=100)
    pattern: str = ""
    start_index: int = Field(0, ge=0, lt=2**31)
    limit: int = Field(MAX_ENTRIES, ge=1, le=MAX_ENTRIES)


class Rest:
    """The REST endpoints over a desk's sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._manager = desk.manager
        self._audit = desk.manager.audit

    def routes(self) -> list[Route]:
        """The endpoints, all behind the gate."""
        sessions, workspaces = f"{GUARDED}/sessions", f"{GUARDED}/workspaces"
        one, file = f"{sessions}/{{session_id}}", f"{sessions}/{{session_id}}/files/{{path:path}}"
        # Each is the same as a tool, and needs the same scope; those of the administrator are none.
        endpoints: tuple[tuple[str, str, str, Endpoint], ...] = (
            (f"{GUARDED}/policies", "GET", "list_policies", self._policies),
            (f"{GUARDED}/admin/sessions", "GET", "", self._everybodys),
            (f"{GUARDED}/admin/sessions/{{session_id}}", "DELETE", "", self._close_anybodys),
            (sessions, "GET", "list_sessions", self._list),
            (sessions, "POST", "open_session", self._open),
            (one, "GET", "get_session", self._show),
            (one, "DELETE", "close_session", self._close),
            (f"{one}/executions", "GET", "list_executions", self._executions),
            (f"{one}/tighten", "POST", "tighten_session", self._tighten),
            (f"{one}/export", "GET", "export_session", self._export),
            (f"{one}/files", "GET", "list_files", self._files),
            (file, "GET", "read_file", self._download),
            (file, "PUT", "write_file", self._upload),
            (file, "DELETE", "delete_file", self._delete),
            (workspaces, "GET", "list_workspaces", self._workspaces),
            (f"{workspaces}/{{name}}", "DELETE", "delete_workspace", self._delete_workspace),
        )
        by_path: dict[str, dict[str, Endpoint]] = {}
        for path, method, tool, endpoint in endpoints:
            by_path.setdefault(path, {})[method] = _scoped(tool, endpoint)
        return [
            Route(path, Endpoints(path, methods, self._audit), methods=list(methods))
            for path, methods in by_path.items()
        ]

    async def _policies(self, request: Request) -> Response:
        found = policies_of(self._manager, caller_of_request(request))
        return _answer(found)

    async def _everybodys(self, request: Request) -> Response:
        found = [
            {"principal": principal, **info.model_dump(mode="json")}
            for principal, info in self._manager.everybodys()
        ]
        return JSONResponse({"sessions": found})

    async def _close_anybodys(self, request: Request) -> Response:
        by = grant_of_request(request).principal
        info = await self._manager.close_anybodys(request.path_params["session_id"], by)
        return _answer(info)

    async def _list(self, request: Request) -> Response:
        infos = self._manager.list(caller_of_request(request))
        return JSONResponse({"sessions": [info.model_dump(mode="json") for info in infos]})

    async def _open(self, request: Request) -> Response:
        wanted = await _body(request, OpenRequest)
        session = await self._manager.open(caller_of_request(request), **wanted.model_dump())
        info = with_room(session)
        location = f"{GUARDED}/sessions/{quote(info.session_id)}"
        return _answer(info, 201, headers={"Location": location})

    async def _show(self, request: Request) -> Response:
        session = await self._session(request)
        return _answer(with_room(session, with_proof=True))

    async def _close(self, request: Request) -> Response:
        caller = caller_of_request(request)
        info = await self._manager.close(caller, request.path_params["session_id"])
        return _answer(info)

    async def _tighten(self, request: Request) -> Response:
        wanted = await _body(request, TightenRequest)
        caller, more = caller_of_request(request), Tightening.of(wanted.network, wanted.deny)
        info = await self._manager.tighten(caller, request.path_params["session_id"], more)
        return _answer(info)

    async def _executions(self, request: Request) -> Response:
        caller, session_id = caller_of_request(request), request.path_params["session_id"]
        await self._manager.ready()
        permit_unasked(self._desk.policy_of(caller, session_id), RESULTS)
        found = await self._manager.history.executions(caller, session_id, may_list)
        return JSONResponse({"executions": [each.model_dump(mode="json") for each in found]})

    async def _export(self, request: Request) -> Response:
        """What a session ran, as a notebook; also some time after its end."""
        caller, session_id = caller_of_request(request), request.path_params["session_id"]
        await self._manager.ready()
        policy = self._desk.policy_of(caller, session_id)
        for tool in EXPORT:
            permit_unasked(policy, tool)
        redactor = self._manager.redactor(caller.principal, session_id)
        notebook = await self._manager.history.notebook(caller, session_id, redactor)
        data = await anyio.to_thread.run_sync(write_ipynb, notebook)
        headers = {"Content-Disposition": 'attachment; filename="session.ipynb"', **HARMLESS}
        return Response(data, media_type="application/x-ipynb+json", headers=headers)

    async def _files(self, request: Request) -> Response:
        session = await self._session(request)
        permit_unasked(session.policy, "list_files")
        asked = _query(request, FilesRequest)
        path, start = at_home(asked.path), asked.start_index
        async with session.use():
            found = await session.files.list(
                path, asked.max_depth, asked.pattern, start, asked.limit
            )
        room = session.policy.workspace
        limits = {"workspace_bytes": room.size_bytes, "workspace_inodes": room.inodes}
        return JSONResponse({**found.model_dump(mode="json"), **limits})

    async def _download(self, request: Request) -> Response:
        session = await self._session(request)
        permit_unasked(session.policy, "read_file")
        path = _path(request)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(session.use())
            part = None
            # A part might hold a part of a secret: then the whole is sent, as HTTP allows.
            if (wanted := request.headers.get("range")) and not session.redactor:
                stat = await session.files.stat(path)
                part = _part(wanted, stat.size) if stat.type == "file" else None
            if part is not None and not part:
                return problem(
                    416, "The range begins after the end of the file.", code="invalid_range"
                )
            start, length = (part.start, len(part)) if part else (0, None)
            reading = await stack.enter_async_context(
                await session.files.open_read(path, start, length)
            )
            pieces = Pieces(session.redactor, keep_length=True)
            head = request.method == "HEAD"
            return Download(reading, stack.pop_all(), part, pieces, head=head)
        raise AssertionError  # pragma: no cover  # every way through the block returns or raises

    async def _upload(self, request: Request) -> Response:
        session = await self._session(request)
        permit_unasked(session.policy, "write_file")
        path = _path(request)
        if path.endswith("/"):
            permit_unasked(session.policy, "make_directory")
            async with session.use():
                return _answer(await session.files.mkdir(path), 201)
        mode = _mode(request.query_params.get("mode", ""))
        condition = (request.headers.get("if-match") or "").strip('"') or None
        try:
            async with session.use():
                was_there = condition is not None or await _is_there(session, path)
                stat = await session.files.write(path, _pieces(request), mode, if_etag=condition)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it; nothing was written
        if was_there:
            return _answer(stat, headers=etag_header(stat))
        at = f"{GUARDED}/sessions/{session.session_id}/files/{session.redactor.text(path)}"
        return _answer(stat, 201, headers={"Location": quote(at), **etag_header(stat)})

    async def _delete(self, request: Request) -> Response:
        session = await self._session(request)
        permit_unasked(session.policy, "delete_file")
        recursive = request.query_params.get("recursive", "") in ("1", "true")
        async with session.use():
            count = await session.files.delete(_path(request), recursive=recursive)
        return JSONResponse({"deleted": count})

    async def _workspaces(self, request: Request) -> Response:
        found = self._manager.workspaces(caller_of_request(request))
        return JSONResponse({"workspaces": [each.model_dump(mode="json") for each in found]})

    async def _delete_workspace(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        await self._manager.delete_workspace(caller_of_request(request), name)
        return JSONResponse({"name": name})

    async def _session(self, request: Request) -> Session:
        """The session in the path: a default one is never opened here."""
        return await self._manager.get(
            caller_of_request(request), request.path_params["session_id"]
        )


def _scoped(tool: str, endpoint: Endpoint) -> Endpoint:
    """An endpoint for callers whose token has the scope of that tool; of none, for admins."""

    async def answer(request: Request) -> Response:
        grant = grant_of_request(request)
        if tool:
            grant.require(tool)
        else:
            grant.require_scope(ADMIN, request.url.path)
        return await endpoint(request)

    return answer


def _answer(
    found: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse(found.model_dump(mode="json"), status, headers=headers)


async def _body(request: Request, model: type[_Body]) -> _Body:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > MAX_JSON_BODY:
            raise InvalidRequest(f"The body is longer than {MAX_JSON_BODY} bytes.")
    request.state.body_digest = hashlib.sha256(data).hexdigest()
    return _validated(model, bytes(data) or b"{}")


def _query(request: Request, model: type[_Body]) -> _Body:
    return _validated(model, dict(request.query_params))


def _validated(model: type[_Body], given: bytes | dict[str, str]) -> _Body:
    try:
        if isinstance(given, bytes):
            return model.model_validate_json(given)
        return model.model_validate(given)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InvalidRequest(
            f"{where}: {first['msg']}.",
            remedy=f"Send any of {', '.join(model.model_fields)}.",
        ) from exc


async def _is_there(session: Session, path: str) -> bool:
    try:
        await session.files.stat(path)
    except FileError:
        return False  # or it cannot be looked at: writing says why
    return True


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    async for piece in request.stream():
        for start in range(0, len(piece), CHUNK_BYTES):
            yield piece[start : start + CHUNK_BYTES]


def _path(request: Request) -> str:
    path: str = request.path_params["path"]
    if not path:
        raise InvalidRequest("The path of a file is missing after /files/.")
    return at_home(path)


def _mode(value: str) -> int | None:
    if not value:
        return None
    if not re.fullmatch(r"[0-7]{3,4}", value):
        raise InvalidRequest("mode must be octal permissions, such as 644.")
    return int(value, 8)


def _part(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; None for the whole when it is of another kind."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return range(max(size - int(found[2]), 0), size)
    first, last = int(found[1]), int(found[2] or size - 1)
    return range(first, min(last + 1, size)) if not found[2] or first <= last else None
