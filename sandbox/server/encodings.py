"""In which encoding a file's bytes are text: declared by a byte-order mark, or found out.

https://www.unicode.org/faq/utf_bom.html
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from typing import Literal

from sandbox.outputs.redaction import Pieces, Redactor

TextEncoding = Literal[
    "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"
]
"""As Python names them."""
GUESSES = frozenset({"utf-16-le", "utf-16-be", "cp1252", "latin-1"})
"""What no byte-order mark declares and other encodings could look like."""

_MARKS: tuple[tuple[bytes, TextEncoding], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\f\r\x1b")
_SAMPLE = 4096


def encoding_of(head: bytes, *, is_whole: bool) -> TextEncoding | None:
    """The encoding of what begins so; None when it does not look like text.

    Args:
        is_whole: Whether nothing follows, so that no character can be cut.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding if _decodes(head, encoding, is_whole) else None
    if b"\0" not in head and _decodes(head, "utf-8", is_whole):
        return "utf-8"
    if b"\0" in head:
        return _wide(head, is_whole)
    if not _CONTROLS.isdisjoint(head):
        return None
    return "cp1252" if _decodes(head, "cp1252", is_whole) else "latin-1"


def _wide(head: bytes, is_whole: bool) -> TextEncoding | None:
    """UTF-16 of mostly Latin text, in which every other byte is zero."""
    first, second = head[:_SAMPLE:2].count(0), head[1:_SAMPLE:2].count(0)
    half = min(len(head), _SAMPLE) // 2
    encoding: TextEncoding = "utf-16-le" if second > first else "utf-16-be"
    is_likely = half and max(first, second) > half * 0.7 and not min(first, second)
    return encoding if is_likely and _decodes(head, encoding, is_whole) else None


def _decodes(head: bytes, encoding: TextEncoding, is_whole: bool) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final=is_whole)
    except UnicodeDecodeError:
        return False
    return "\0" not in text


async def as_utf8(
    pieces: AsyncIterator[bytes], encoding: TextEncoding, redactor: Redactor
) -> AsyncIterator[bytes]:
    """The same text in UTF-8, without secrets, which another encoding might disguise."""
    clean = Pieces(redactor, keep_length=True)
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    async for piece in pieces:
        yield decoder.decode(clean.feed(piece)).encode("utf-8", "replace")
    yield decoder.decode(clean.last(), final=True).encode("utf-8", "replace")
