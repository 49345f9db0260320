"""Reading a file for eyes: text by ranges of lines, a picture as an image, of others what they are.

Text in another encoding than UTF-8 is decoded, and the answer says from which.
"""

from __future__ import annotations

import asyncio
import base64
import json
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from mcp_types import CallToolResult, ImageContent
from pydantic import BaseModel, Field

from sandbox.errors import FileError
from sandbox.files.files import Files
from sandbox.files.models import FileStat
from sandbox.outputs.redaction import Redactor
from sandbox.server.content import told
from sandbox.server.encodings import GUESSES, TextEncoding, as_utf8, encoding_of
from sandbox.server.filetypes import filetype
from sandbox.server.pictures import Header, Picture, Shown, header
from sandbox.server.wording import printable

MAX_READ_BYTES = 192 * 1024
"""Of one answer."""
MAX_GIVEN_BYTES = 16 * 1024
"""Of a file that is no text, which is given as base64: it is of use to programs only."""
MAX_PICTURE_BYTES = 6 * 1024 * 1024
"""Of a picture that is made smaller to be shown."""
MAX_SENT_BYTES = 440 * 1024
"""Of a text once escaped for its message, which holds it twice."""
READ_TIMEOUT_S = 60.0
"""For all that comes before the last line that is wanted."""
ELSEWHERE = "Download it by REST, or look at parts of it with execute_code or run_command."

Show = Callable[[Picture], Awaitable[Shown]]


class FileContent(BaseModel):
    """A file's content, or a range of its lines."""

    stat: FileStat
    encoding: TextEncoding | Literal["base64"]
    """How the file's bytes are text, or ``content`` its bytes."""
    content: str
    """Empty for a picture, which is shown, and for what is no text and too large for an answer."""
    first_line: int | None = None
    """From 1; None for other than text."""
    line_count: int | None = None
    """Lines in ``content``; None for other than text."""
    more: bool
    """Whether lines follow, or bytes are left out."""
    notes: list[str] = Field(default_factory=list[str])


async def read_content(
    files: Files,
    path: str,
    start_line: int,
    line_limit: int,
    redactor: Redactor,
    show: Show,
    *,
    structured: bool = True,
) -> CallToolResult:
    """Read a file for a tool's answer; secrets are taken out before base64 hides them.

    Args:
        show: Decides how a picture is shown.
        structured: Whether the caller gets the structured result, where a file's bytes are.

    Raises:
        FileError: It is not a regular file, or a line of it is too long.
    """
    try:
        async with asyncio.timeout(READ_TIMEOUT_S), await files.open_read(path) as reading:
            stat, pieces = reading.stat, aiter(reading)
            # The stat's size is only what the supervisor says.
            head, is_whole = await _head(pieces)
            encoding = encoding_of(head, is_whole=is_whole)
            if encoding is None and header(head):
                if not is_whole:
                    head, is_whole = await _head(_chained(head, pieces), MAX_PICTURE_BYTES)
                if is_whole:
                    return await _picture(stat, redactor.bytes(head), show)
            if encoding is None:
                return _bytes(stat, redactor.bytes(head), is_whole=is_whole and structured)
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


async def _head(
    pieces: AsyncIterator[bytes], limit_bytes: int = MAX_READ_BYTES
) -> tuple[bytes, bool]:
    """What comes, up to a piece past the limit, and whether that is all."""
    head = bytearray()
    async for piece in pieces:
        head += piece
        if len(head) > limit_bytes:
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
    notes = [f"more: read on with start_line={start_line + len(lines)}"] if more else []
    if encoding in GUESSES:
        notes.append(f"decoded as {encoding}, a guess, for it is not UTF-8")
    elif encoding != "utf-8":
        notes.append(f"decoded as {encoding}")
    if content.encode() != data:
        notes.append("some bytes are not UTF-8; each is shown as �")
    found = FileContent(
        stat=stat,
        encoding=encoding,
        content=content,
        first_line=start_line,
        line_count=len(lines),
        more=more,
        notes=notes,
    )
    return told(found, ["\n".join([content, *(f"[{note}]" for note in notes)])])


async def _picture(stat: FileStat, data: bytes, show: Show) -> CallToolResult:
    """A picture as one, and what it is in words."""
    known = header(data) or Header("", 0, 0)
    encoded = base64.b64encode(data).decode()
    shown = await show(Picture(1, 0, known.mime, encoded, known.width, known.height))
    line = f"{printable(stat.path)}: {shown.words()}"
    if shown.why_not:
        line += f", for {shown.why_not}. {ELSEWHERE}"
    found = FileContent(stat=stat, encoding="base64", content="", more=False, notes=[line])
    image = ImageContent(type="image", data=shown.data, mime_type=shown.mime)
    return told(found, [line, image] if shown.data else [line])


def _bytes(stat: FileStat, data: bytes, *, is_whole: bool) -> CallToolResult:
    """What is known of a file that is no text, and its bytes when they fit and can be given."""
    kind, fact = filetype(data)
    is_given = is_whole and len(data) <= MAX_GIVEN_BYTES
    facts = [
        f"{stat.size:,} bytes",
        f"{kind.name} ({kind.mime})" if kind else f"no text; begins with {data[:12].hex(' ')}",
        fact,
    ]
    line = f"{printable(stat.path)}: {', '.join(filter(None, facts))}."
    where = "Its bytes are in the structured result as base64." if is_given else ""
    if header(data):
        where = "It is too large to be shown: make a smaller one with execute_code and read that."
    advice = kind.advice if kind else ""
    said = " ".join(filter(None, (line, where, advice, ELSEWHERE)))
    content = base64.b64encode(data).decode() if is_given else ""
    found = FileContent(
        stat=stat, encoding="base64", content=content, more=not is_given, notes=[said]
    )
    return told(found, [said])


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
