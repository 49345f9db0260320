"""Files inside the container."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.errors import InvalidRequest
from sandbox.files.files import MAX_EDIT_BYTES
from sandbox.files.models import EditResult, FileList, FileStat
from sandbox.policy.units import KIB, MIB
from sandbox.server import arguments as arg
from sandbox.server.desk import Desk
from sandbox.server.http.place import Http
from sandbox.server.pictures import Picture, Shown
from sandbox.server.reading import MAX_READ_BYTES, FileContent, read_content
from sandbox.server.showing import Showing
from sandbox.server.tool import CallContext, ToolGroup, reply, tool
from sandbox.server.wording import printable
from sandbox.sessions.session import Session


class Deleted(BaseModel):
    """What delete_file removed."""

    path: str
    deleted: int
    """Files and folders together."""


class FileTools(ToolGroup):
    """The tools that act on files."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._showing = Showing(desk.shaping)

    @tool(
        "List files",
        reads=True,
        http="GET /sessions/{session_id}/files, which also says what the workspace may hold",
    )
    async def list_files(
        self,
        ctx: CallContext,
        path: arg.OptionalPath = "",
        max_depth: arg.Depth = 1,
        start_index: arg.StartIndex = 0,
        limit: arg.Limit = 25,
        pattern: arg.Pattern = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileList]:
        """List files and folders, sorted by path: `limit` of them from start_index, and how many
        match in all."""
        async with self._desk.session(ctx, session_id, "list_files") as session:
            found = await session.files.list(path, max_depth, pattern, start_index, limit)
        lines = [_line(entry) for entry in found.entries]
        lines.append(f"[{len(found.entries)} of {found.total} entries, from {start_index}]")
        return reply(found, "\n".join(lines))

    @tool(
        "Read a file",
        reads=True,
        read_kib=MAX_READ_BYTES // KIB,
        http="GET /sessions/{session_id}/files/{path}, which answers the bytes as they are",
    )
    async def read_file(
        self,
        ctx: CallContext,
        path: arg.Path,
        start_line: arg.Line = 1,
        line_limit: arg.LineCount = 2000,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileContent]:
        """Read a file: text by lines, a picture as an image, other bytes as base64.

        At most {read_kib} KiB at once; `more` says that lines follow.
        """
        async with self._desk.session(ctx, session_id, "read_file") as session:
            host = self._desk.shaping.host(ctx.request_context.session)

            async def find_session() -> Session:
                return session

            async def show(picture: Picture) -> Shown:
                return (await self._showing.shown([picture], host, find_session))[0]

            return await read_content(
                session.files,
                path,
                start_line,
                line_limit,
                session.redactor,
                show,
                structured=host.structured,
            )

    @tool(
        "Write a file",
        destroys=True,
        repeatable=True,
        content_mib=arg.MAX_CONTENT // MIB,
        http="PUT /sessions/{session_id}/files/{path}, which takes the bytes as they are",
    )
    async def write_file(
        self,
        ctx: CallContext,
        path: arg.Path,
        content: arg.Content,
        encoding: arg.Encoding = "utf-8",
        mode: arg.Mode = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileStat]:
        """Write a whole file of at most {content_mib} MiB, replacing what was there; missing
        folders are made."""
        data = content.encode() if encoding == "utf-8" else _decoded(content)
        async with self._desk.session(ctx, session_id, "write_file") as session:
            stat = await session.files.write(path, data, mode=int(mode, 8) if mode else None)
        return reply(stat, f"Wrote {stat.size} bytes to {printable(stat.path)}.")

    @tool(
        "Edit a file",
        destroys=True,
        edit_mib=MAX_EDIT_BYTES // MIB,
        http=Http("POST", "/sessions/{session_id}/edit", is_large=True),
    )
    async def edit_file(
        self,
        ctx: CallContext,
        path: arg.Path,
        old_string: arg.Replaced,
        new_string: arg.Replacement,
        replace_all: bool = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, EditResult]:
        """Replace an exact text in a file of up to {edit_mib} MiB and answer the diff.

        old_string must occur exactly once, unless replace_all: give text around it.
        """
        async with self._desk.session(ctx, session_id, "edit_file") as session:
            edit = await session.files.edit(path, old_string, new_string, replace_all)
        return reply(edit, f"Replaced {edit.replacements} times.\n{edit.diff}")

    @tool(
        "Delete a file",
        destroys=True,
        http="DELETE /sessions/{session_id}/files/{path}",
    )
    async def delete_file(
        self,
        ctx: CallContext,
        path: arg.Path,
        recursive: bool = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, Deleted]:
        """Delete a file, or a folder: if not empty, with recursive; of a link the link itself."""
        async with self._desk.session(ctx, session_id, "delete_file") as session:
            count = await session.files.delete(path, recursive=recursive)
        return reply(Deleted(path=path, deleted=count), f"Deleted {count} entries.")

    @tool(
        "Move a file",
        destroys=True,
        http=Http("POST", "/sessions/{session_id}/move"),
    )
    async def move_file(
        self,
        ctx: CallContext,
        source: arg.Path,
        target: arg.Path,
        overwrite: bool = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileStat]:
        """Move or rename a file or folder inside the sandbox."""
        async with self._desk.session(ctx, session_id, "move_file") as session:
            stat = await session.files.move(source, target, overwrite=overwrite)
        return reply(stat, f"Moved to {printable(stat.path)}.")

    @tool(
        "Make a folder",
        repeatable=True,
        http="PUT /sessions/{session_id}/files/{path}/, with a slash at the end",
    )
    async def make_directory(
        self, ctx: CallContext, path: arg.Path, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, FileStat]:
        """Make a folder, with the folders above it that are missing."""
        async with self._desk.session(ctx, session_id, "make_directory") as session:
            stat = await session.files.mkdir(path, parents=True)
        return reply(stat, f"{printable(stat.path)} is there.")

    @tool(
        "Look at a file",
        reads=True,
        http=Http("GET", "/sessions/{session_id}/stat"),
    )
    async def stat_file(
        self, ctx: CallContext, path: arg.Path, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, FileStat]:
        """Look at a file or folder: its type, size, permissions and age."""
        async with self._desk.session(ctx, session_id, "stat_file") as session:
            stat = await session.files.stat(path)
        return reply(stat, _line(stat))


def _line(stat: FileStat) -> str:
    name = printable(stat.path, 500) + ("/" if stat.type == "directory" else "")
    return (
        f"{stat.mode:04o} {stat.size:>10} {name}" if stat.type == "file" else f"{stat.type} {name}"
    )


def _decoded(content: str) -> bytes:
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidRequest(
            f"content is not valid base64: {exc}.",
            remedy="Encode the bytes again, or give text with encoding utf-8.",
        ) from exc
