"""Reading a file for eyes: text by ranges of lines, pictures as images, other bytes as base64."""

from __future__ import annotations

import base64
import json
import mimetypes
from collections.abc import AsyncIterator
from typing import Literal

from mcp_types import CallToolResult, ImageContent
from pydantic import BaseModel

from sandbox.errors import FileError
from sandbox.files import Files, FileStat
from sandbox.redaction import Redactor
from sandbox.server.content import PICTURES
from sandbox.server.tool import printable, reply, text

MAX_READ_BYTES = 192 * 1024
"""Of one answer."""
MAX_SENT_BYTES = 440 * 1024
"""Of a text once escaped for its message, which holds it twice."""
ELSEWHERE = "Download it by REST, or look at parts of it with run_command."


class FileContent(BaseModel):
    """A file's content, or a range of its lines."""

    stat: FileStat
    encoding: Literal["utf-8", "base64"]
    content: str
    first_line: int | None = None
    """From 1; None for other than text."""
    line_count: int | None = None
    """Lines in ``content``; None for other than text."""
    more: bool = False
    """Whether lines follow."""


async def read_content(
    files: Files, path: str, start_line: int, line_limit: int, redactor: Redactor
) -> CallToolResult:
    """Read a file for a tool's answer.

    Args:
        files: The session's files.
        path: A regular file.
        start_line: The first line, from 1.
        line_limit: The most lines.
        redactor: Knows the session's secrets, which are taken out before base64 hides them.

    Raises:
        FileError: It is not a regular file, or is too large for what it holds.
    """
    async with await files.open_read(path) as reading:
        stat = reading.stat
        if stat.size <= MAX_READ_BYTES:
            data = b"".join([piece async for piece in reading])
            if not _is_text(data):
                return _bytes(stat, redactor.bytes(data))
            lines, more = await _lines(_once(data), start_line, line_limit, path)
        else:
            lines, more = await _lines(reading.__aiter__(), start_line, line_limit, path)
    return _text(stat, lines, start_line, more, redactor)


def _text(
    stat: FileStat, lines: list[bytes], start_line: int, more: bool, redactor: Redactor
) -> CallToolResult:
    try:
        content = redactor.bytes(b"".join(lines)).decode()
    except UnicodeDecodeError:
        content = "\0"
    if "\0" in content:
        raise FileError(
            "not_text",
            f"{printable(stat.path)} has {stat.size:,} bytes and is not a text in UTF-8.",
            remedy=ELSEWHERE,
        )
    size = len(json.dumps(content))
    if size > MAX_SENT_BYTES:  # it travels twice, and other than ASCII takes six bytes each
        if len(lines) == 1:
            raise _long_line(stat.path)
        fewer = max(len(lines) * MAX_SENT_BYTES // size // 2, 1)
        return _text(stat, lines[:fewer], start_line, True, redactor)
    found = FileContent(
        stat=stat,
        encoding="utf-8",
        content=content,
        first_line=start_line,
        line_count=len(lines),
        more=more,
    )
    note = f"\n[more: read on with start_line={start_line + len(lines)}]" if more else ""
    return reply(found, text(content + note))


def _bytes(stat: FileStat, data: bytes) -> CallToolResult:
    found = FileContent(stat=stat, encoding="base64", content=base64.b64encode(data).decode())
    mime, _ = mimetypes.guess_type(stat.name)
    line = text(f"{printable(stat.path)}: {stat.size:,} bytes, {mime or 'unknown type'}.")
    if mime in PICTURES:
        return reply(found, ImageContent(type="image", data=found.content, mime_type=mime), line)
    return reply(found, line)


async def _lines(
    pieces: AsyncIterator[bytes], start_line: int, line_limit: int, path: str
) -> tuple[list[bytes], bool]:
    """The lines of a range as far as they fit, and whether others follow."""
    kept: list[bytes] = []
    size, number, pending = 0, 1, b""
    async for piece in pieces:
        *whole, pending = (pending + piece).split(b"\n")
        for line in whole:
            if number >= start_line:
                size += len(line) + 1
                if len(kept) == line_limit or (kept and size > MAX_READ_BYTES):
                    return kept, True
                kept.append(line + b"\n")
            number += 1
        if number < start_line:
            pending = pending if len(pending) <= MAX_READ_BYTES else b"x"
        elif max(len(pending), len(kept[0]) if kept else 0) > MAX_READ_BYTES:
            raise _long_line(path)
    if pending and number >= start_line:
        if len(kept) == line_limit or (kept and size + len(pending) > MAX_READ_BYTES):
            return kept, True
        kept.append(pending)
    return kept, False


def _long_line(path: str) -> FileError:
    return FileError(
        "too_large", f"A line of {printable(path)} is too long to be read.", remedy=ELSEWHERE
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _is_text(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
