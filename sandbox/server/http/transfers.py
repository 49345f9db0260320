"""Files of a session, of any size and streamed both ways, and folders page by page."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import quote

from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from sandbox.errors import FileError, InvalidRequest
from sandbox.files.models import MAX_ENTRIES, FileList, FileStat
from sandbox.outputs.redaction import Pieces
from sandbox.server import arguments as arg
from sandbox.server.auth import GUARDED
from sandbox.server.desk import permit_unasked
from sandbox.server.download import HARMLESS, Download, etag_header
from sandbox.server.http.operation import OCTETS, EndpointGroup, NoArguments, endpoint
from sandbox.server.http.paging import next_page
from sandbox.server.http.place import Http
from sandbox.server.problems import problem
from sandbox.sessions.session import Session
from sandbox.values import Frozen

CHUNK_BYTES = 256 * 1024

_FILES = "/sessions/{session_id}/files"
_FILE = f"{_FILES}/{{path:path}}"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class FilesAsked(Frozen):
    """Which part of a folder is wanted."""

    path: arg.OptionalPath = ""
    max_depth: int = Field(1, ge=1, le=100)
    pattern: arg.Pattern = ""
    start_index: int = Field(0, ge=0, lt=2**31)
    limit: int = Field(MAX_ENTRIES, ge=1, le=MAX_ENTRIES)


class UploadAsked(Frozen):
    """How a file is written."""

    mode: arg.Mode = ""


class DeletionAsked(Frozen):
    """How a file is deleted."""

    recursive: bool = Field(False, description="Also a folder that is not empty.")


class WorkspaceFiles(FileList):
    """A page of a folder, and what the workspace may hold."""

    workspace_bytes: int
    workspace_inodes: int


class Removed(BaseModel):
    """What a deletion did."""

    deleted: int
    """Files and folders together."""


class TransferEndpoints(EndpointGroup):
    """Files as their bytes."""

    @endpoint(
        "List files",
        Http("GET", _FILES),
        tool="list_files",
        arguments=FilesAsked,
        result=WorkspaceFiles,
    )
    async def list_folder(self, request: Request, wanted: FilesAsked) -> Response:
        """List files and folders, sorted by path, with what the workspace may hold."""
        session = await self._session(request, "list_files")
        start = wanted.start_index
        async with session.use():
            found = await session.files.list(
                wanted.path, wanted.max_depth, wanted.pattern, start, wanted.limit
            )
        room = session.policy.workspace
        limits = {"workspace_bytes": room.size_bytes, "workspace_inodes": room.inodes}
        end = start + len(found.entries)
        more = next_page(request, end) if found.entries and end < found.total else {}
        return JSONResponse({**found.model_dump(mode="json"), **limits}, headers=more)

    @endpoint(
        "Download a file",
        Http("GET", _FILE),
        tool="read_file",
        media=(OCTETS, "text/plain", "image/*", "audio/*", "video/*"),
        headers={
            "Range": "One range of bytes, such as bytes=0-1023.",
            "If-None-Match": "An etag: the file is not sent when it still has that.",
            "If-Match": "An etag: the file is refused when it has another.",
        },
        statuses={
            206: "The range of it.",
            304: "It still has the etag of If-None-Match.",
            412: "It has another etag than that of If-Match.",
            416: "The range begins after its end.",
        },
    )
    async def download_file(self, request: Request, _: NoArguments) -> Response:
        """Answer a file's bytes, as an attachment that no browser renders."""
        session = await self._session(request, "read_file")
        path = _path(request)
        headers = request.headers
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(session.use())
            part = None
            wanted = headers.get("range", "")
            # A part might hold a part of a secret: then the whole is sent, as HTTP allows.
            if wanted and not session.redactor:
                stat = await session.files.stat(path)
                if (since := headers.get("if-range")) and not _names(since, stat):
                    wanted = ""
                part = _part(wanted, stat.size) if stat.type == "file" else None
            if part is not None and not part:
                return problem(
                    416, "The range begins after the end of the file.", code="invalid_range"
                )
            start, length = (part.start, len(part)) if part else (0, None)
            reading = await stack.enter_async_context(
                await session.files.open_read(path, start, length)
            )
            if (match := headers.get("if-match")) and not _names(match, reading.stat):
                return _changed()
            if (known := headers.get("if-none-match")) and _names(known, reading.stat):
                return Response(status_code=304, headers={**HARMLESS, **etag_header(reading.stat)})
            pieces = Pieces(session.redactor, keep_length=True)
            head = request.method == "HEAD"
            return Download(reading, stack.pop_all(), part, pieces, head=head)
        raise AssertionError  # pragma: no cover  # every way through the block returns or raises

    @endpoint(
        "Upload a file",
        Http("PUT", _FILE, 201, is_bytes=True),
        tool="write_file",
        arguments=UploadAsked,
        result=FileStat,
        headers={
            "If-Match": "An etag: only written over a file that still has that.",
            "If-None-Match": "*: only written where there is nothing.",
        },
        statuses={
            200: "What was there is replaced.",
            412: "What is there is not as If-Match or If-None-Match says.",
            507: "The workspace is full.",
        },
    )
    async def upload_file(self, request: Request, wanted: UploadAsked) -> Response:
        """Write a file with the body as its bytes; missing folders are made. With a slash at the
        end of the path, make a folder."""
        session = await self._session(request, "write_file")
        path = _path(request)
        mode = int(wanted.mode, 8) if wanted.mode else None
        if path.endswith("/"):
            permit_unasked(session.policy, "make_directory")
            async with session.use():
                return _answer(await session.files.mkdir(path), 201)
        match = request.headers.get("if-match", "").strip()
        condition = match.removeprefix("W/").strip('"') if match not in ("", "*") else None
        only_new = request.headers.get("if-none-match", "").strip() == "*"
        try:
            async with session.use():
                was_there = condition is not None or await _is_there(session, path)
                if (was_there and only_new) or (match == "*" and not was_there):
                    return _changed()
                stat = await session.files.write(path, _pieces(request), mode, if_etag=condition)
        except FileError as exc:
            if condition is not None and exc.reason in ("conflict", "not_found"):
                return _changed()
            raise
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it; nothing was written
        if was_there:
            return _answer(stat)
        at = f"{GUARDED}/sessions/{session.session_id}/files/{session.redactor.text(path)}"
        return _answer(stat, 201, {"Location": quote(at)})

    @endpoint(
        "Delete a file",
        Http("DELETE", _FILE),
        tool="delete_file",
        arguments=DeletionAsked,
        result=Removed,
        headers={"If-Match": "An etag: only a file that still has that is deleted."},
        statuses={412: "It has another etag than that of If-Match."},
    )
    async def remove_file(self, request: Request, wanted: DeletionAsked) -> Response:
        """Delete a file, or a folder; of a link the link itself."""
        session = await self._session(request, "delete_file")
        path = _path(request)
        async with session.use():
            match = request.headers.get("if-match")
            if match and not _names(match, await session.files.stat(path)):
                return _changed()
            count = await session.files.delete(path, recursive=wanted.recursive)
        return JSONResponse({"deleted": count})


def _answer(stat: FileStat, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    more = {**(headers or {}), **etag_header(stat)}
    return JSONResponse(stat.model_dump(mode="json"), status, more)


def _changed() -> Response:
    return problem(
        412,
        "The file is not as If-Match or If-None-Match says; nothing was done.",
        "Read it again: its ETag is another one.",
        code="precondition_failed",
    )


def _names(header: str, stat: FileStat) -> bool:
    """Whether a list of etags holds that of a file."""
    given = (each.strip().removeprefix("W/").strip('"') for each in header.split(","))
    return header.strip() == "*" or stat.etag in given


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
    return arg.at_home(path)


def _part(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; None for the whole when it is of another kind."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return range(max(size - int(found[2]), 0), size)
    first, last = int(found[1]), int(found[2] or size - 1)
    return range(first, min(last + 1, size)) if not found[2] or first <= last else None
