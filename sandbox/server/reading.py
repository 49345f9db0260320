"""Reading a file for eyes: text by ranges of lines, a picture as an image, of others what they are.

Text in another encoding than UTF-8 is decoded, and the answer says from which.
"""

from __future__ import annotations

import asyncio
import base64
import json
from codecs import BOM_UTF8
from collections.abc import AsyncIterator
from typing import Literal

from mcp_types import CallToolResult, ImageContent
from pydantic import BaseModel

from sandbox.errors import FileError
from sandbox.files.files import Files
from sandbox.files.models import FileStat
from sandbox.outputs.redaction import Redactor
from sandbox.server.content import PICTURES
from sandbox.server.encodings import GUESSES, TextEncoding, as_utf8, encoding_of
from sandbox.server.filetypes import filetype
from sandbox.server.tool import reply
from sandbox.server.wording import printable

MAX_READ_BYTES = 192 * 1024
"""Of one answer."""
MAX_SENT_BYTES = 440 * 1024
"""Of a text once escaped for its message, which holds it twice."""
READ_TIMEOUT_S = 60.0
"""For all that comes before the last line that is wanted."""
ELSEWHERE = "Download it by REST, or look at parts of it with execute_code or run_command."


class FileContent(BaseModel):
    """A file's content, or a range of its lines."""

    stat: FileStat
    encoding: TextEncoding | Literal["base64"]
    """How the file's bytes are text, or ``content`` its bytes."""
    content: str
    """Empty when the file is no text and too large for an answer."""
    first_line: int | None = None
    """From 1; None for other than text."""
    line_count: int | None = None
    """Lines in ``content``; None for other than text."""
    more: bool = False
    """Whether lines follow, or bytes are left out."""


async def read_content(
    files: Files, path: str, start_line: int, line_limit: int, redactor: Redactor
) -> CallToolResult:
    """Read a file for a tool's answer; secrets are taken out before base64 hides them.

    Raises:
        FileError: It is not a regular file, or a line of it is too long.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S), await files.open_read(path) as reading:
            stat, pieces = reading.stat, aiter(reading)
            # The stat's size is only what the supervisor says.
            head, is_whole = await _head(pieces)
            encoding = encoding_of(head, is_whole=is_whole)
            if encoding is None:
                return _bytes(stat, redactor.bytes(head), is_whole)
            text = _chained(head, pieces)
            if encoding == "utf-8-sig":
                text = _chained(head.removeprefix(BOM_UTF8), pieces)
            elif encoding != "utf-8":
                text = as_utf8(text, encoding, redactor)
            lines, more = await _lines(text, start_line, line_limit, path)
    except TimeoutError as exc:
        raise FileError(
            "too_large",
            f"Line {start_line} of {printable(path)} was not reached in {READ_TIMEOUT_S:g} s.",
            remedy=ELSEWHERE,
        ) from exc
    return _text(stat, encoding, lines, start_line, more, redactor)


async def _head(pieces: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """What comes, up to a piece past ``MAX_READ_BYTES``, and whether that is all."""
    head = bytearray()
    async for piece in pieces:
        head += piece
        if len(head) > MAX_READ_BYTES:
            return bytes(head), False
    return bytes(head), True


def _text(
    stat: FileStat,
    encoding: TextEncoding,
    lines: list[bytes],
    start_line: int,
    more: bool,
    redactor: Redactor,
) -> CallToolResult:
    data = redactor.bytes(b"".join(lines))
    content = data.decode(errors="replace")
    if "\0" in content:
        raise FileError(
            "not_text",
            f"{printable(stat.path)} has {stat.size:,} bytes, and these lines are no text.",
            remedy=ELSEWHERE,
        )
    size = len(json.dumps(content))
    if size > MAX_SENT_BYTES:  # it travels twice, and other than ASCII takes six bytes each
        if len(lines) == 1:
            raise _long_line(stat.path)
        fewer = max(len(lines) * MAX_SENT_BYTES // size // 2, 1)
        return _text(stat, encoding, lines[:fewer], start_line, True, redactor)
    found = FileContent(
        stat=stat,
        encoding=encoding,
        content=content,
        first_line=start_line,
        line_count=len(lines),
        more=more,
    )
    notes = [f"[more: read on with start_line={start_line + len(lines)}]"] if more else []
    if encoding in GUESSES:
        notes.append(f"[decoded as {encoding}, a guess, for it is not UTF-8]")
    elif encoding != "utf-8":
        notes.append(f"[decoded as {encoding}]")
    if content.encode() != data:
        notes.append("[some bytes are not UTF-8; each is shown as �]")
    return reply(found, "\n".join([content, *notes]))


def _bytes(stat: FileStat, data: bytes, is_whole: bool) -> CallToolResult:
    """What is known of a file that is no text, and its bytes when they fit."""
    kind, fact = filetype(data)
    content = base64.b64encode(data).decode() if is_whole else ""
    found = FileContent(stat=stat, encoding="base64", content=content, more=not is_whole)
    facts = [
        f"{stat.size:,} bytes",
        f"{kind.name} ({kind.mime})" if kind else f"no text; begins with {data[:12].hex(' ')}",
        fact,
    ]
    line = f"{printable(stat.path)}: {', '.join(filter(None, facts))}."
    if kind and kind.mime in PICTURES and is_whole:
        return reply(found, ImageContent(type="image", data=content, mime_type=kind.mime), line)
    where = "Its bytes are in the structured result as base64." if is_whole else ""
    if kind and kind.mime in PICTURES:
        where = "It is too large to be shown: make a smaller one with execute_code and read that."
    advice = kind.advice if kind else ""
    return reply(found, " ".join(filter(None, (line, where, advice, ELSEWHERE))))


async def _lines(
    pieces: AsyncIterator[bytes], start_line: int, line_limit: int, path: str
) -> tuple[list[bytes], bool]:
    """The lines of a range as far as they fit, and whether others follow."""
    kept: list[bytes] = []
    size, before, pending = 0, start_line - 1, bytearray()
    async for piece in pieces:
        if before:
            ends = piece.count(b"\n")
            if ends < before:
                before -= ends
                continue
            piece, before = piece.split(b"\n", before)[-1], 0
        *ends_of_lines, rest = piece.split(b"\n")
        for end in ends_of_lines:
            size += len(pending) + len(end) + 1
            if len(kept) == line_limit or (kept and size > MAX_READ_BYTES):
                return kept, True
            if size > MAX_READ_BYTES:
                raise _long_line(path)
            kept.append(bytes(pending) + end + b"\n")
            pending.clear()
        pending += rest
        if size + len(pending) > MAX_READ_BYTES:
            if kept:
                return kept, True
            raise _long_line(path)
    if pending:
        if len(kept) == line_limit:
            return kept, True
        kept.append(bytes(pending))
    return kept, False


def _long_line(path: str) -> FileError:
    return FileError(
        "too_large", f"A line of {printable(path)} is too long to be read.", remedy=ELSEWHERE
    )


async def _chained(head: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in pieces:
        yield piece
