"""Files inside the container."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp_types import CallToolResult
from pydantic import BaseModel

from sandbox.errors import InvalidRequest
from sandbox.files import EditResult, FileList, FileStat
from sandbox.server import arguments as arg
from sandbox.server.desk import Desk
from sandbox.server.reading import FileContent, read_content
from sandbox.server.tool import printable, reply, strict, text


class Deleted(BaseModel):
    """What delete_file removed."""

    path: str
    deleted: int
    """Files and folders together."""


class FileTools:
    """The tools that act on files."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def tools(self) -> list[Tool]:
        """The tools of this group."""
        return [
            strict(self.list_files, "List files", reads=True),
            strict(self.read_file, "Read a file", reads=True),
            strict(self.write_file, "Write a file", destroys=True, repeatable=True),
            strict(self.edit_file, "Edit a file", destroys=True),
            strict(self.delete_file, "Delete a file", destroys=True),
            strict(self.move_file, "Move a file", destroys=True),
            strict(self.make_directory, "Make a folder", repeatable=True),
            strict(self.stat_file, "Look at a file", reads=True),
        ]

    async def list_files(
        self,
        ctx: Context[Any, Any],
        path: arg.OptionalPath = "",
        max_depth: arg.Depth = 1,
        start_index: arg.StartIndex = 0,
        limit: arg.Limit = 25,
        pattern: arg.Pattern = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileList]:
        """List files and folders inside the sandbox, sorted by path.

        Answers entries start_index to start_index + limit of all that match, and how many there
        are in all; sizes are in bytes.
        """
        async with self._desk.session(ctx, session_id, "list_files") as session:
            found = await session.files.list(path, max_depth, pattern, start_index, limit)
        lines = [_line(entry) for entry in found.entries]
        lines.append(f"[{len(found.entries)} of {found.total} entries, from {start_index}]")
        return reply(found, text("\n".join(lines)))

    async def read_file(
        self,
        ctx: Context[Any, Any],
        path: arg.Path,
        start_line: arg.Line = 1,
        line_limit: arg.LineCount = 2000,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileContent]:
        """Read a file of the sandbox: text by ranges of lines, a picture as an image, other bytes
        as base64.

        At most 256 KiB come at once; `more` says that lines follow, which start_line then asks
        for. Files of any size can be downloaded by REST.
        """
        async with self._desk.session(ctx, session_id, "read_file") as session:
            return await read_content(session.files, path, start_line, line_limit, session.redactor)

    async def write_file(
        self,
        ctx: Context[Any, Any],
        path: arg.Path,
        content: arg.Content,
        encoding: arg.Encoding = "utf-8",
        mode: arg.Mode = "",
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileStat]:
        """Write a whole file, replacing what was there in one step; missing folders are made.

        Text is written as UTF-8; for any other bytes give them as base64. Files above 2 MiB are
        uploaded by REST.
        """
        data = content.encode() if encoding == "utf-8" else _decoded(content)
        async with self._desk.session(ctx, session_id, "write_file") as session:
            stat = await session.files.write(path, data, mode=int(mode, 8) if mode else None)
        return reply(stat, text(f"Wrote {stat.size} bytes to {printable(stat.path)}."))

    async def edit_file(
        self,
        ctx: Context[Any, Any],
        path: arg.Path,
        old_string: arg.Replaced,
        new_string: arg.Replacement,
        replace_all: arg.ReplaceAll = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, EditResult]:
        """Replace an exact text in a file and answer the change as a unified diff.

        old_string must occur exactly once, unless replace_all is true; give more of the text
        around it to make it unique.
        """
        async with self._desk.session(ctx, session_id, "edit_file") as session:
            edit = await session.files.edit(path, old_string, new_string, replace_all)
        return reply(edit, text(f"Replaced {edit.replacements} times.\n{edit.diff}"))

    async def delete_file(
        self,
        ctx: Context[Any, Any],
        path: arg.Path,
        recursive: arg.Recursive = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, Deleted]:
        """Delete a file or an empty folder; with recursive a folder and all that is in it. A link
        is deleted itself, never what it points to."""
        async with self._desk.session(ctx, session_id, "delete_file") as session:
            count = await session.files.delete(path, recursive=recursive)
        return reply(Deleted(path=path, deleted=count), text(f"Deleted {count} entries."))

    async def move_file(
        self,
        ctx: Context[Any, Any],
        source: arg.Path,
        target: arg.Path,
        overwrite: arg.Overwrite = False,
        session_id: arg.SessionId = "",
    ) -> Annotated[CallToolResult, FileStat]:
        """Move or rename a file or folder inside the sandbox."""
        async with self._desk.session(ctx, session_id, "move_file") as session:
            stat = await session.files.move(source, target, overwrite=overwrite)
        return reply(stat, text(f"Moved to {printable(stat.path)}."))

    async def make_directory(
        self, ctx: Context[Any, Any], path: arg.Path, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, FileStat]:
        """Make a folder, with the folders above it that are missing."""
        async with self._desk.session(ctx, session_id, "make_directory") as session:
            stat = await session.files.mkdir(path, parents=True)
        return reply(stat, text(f"{printable(stat.path)} is there."))

    async def stat_file(
        self, ctx: Context[Any, Any], path: arg.Path, session_id: arg.SessionId = ""
    ) -> Annotated[CallToolResult, FileStat]:
        """Look at one file or folder: type, size in bytes, permissions, time of change (Unix time
        in seconds), and an etag that changes with the content."""
        async with self._desk.session(ctx, session_id, "stat_file") as session:
            stat = await session.files.stat(path)
        return reply(stat, text(_line(stat)))


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
