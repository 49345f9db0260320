"""A unified diff of a replacement: what is shown of it, in time linear in the text.

The places of change are known, so nothing is compared, and only what is shown is built: of a
million changes the first ones, of a long one its beginning. What is left out is said in brackets.
Texts are bytes in UTF-8 here, which take a quarter of the memory that they may take as ``str``.

https://www.gnu.org/software/diffutils/manual/html_node/Detailed-Unified.html
"""

from __future__ import annotations

from collections.abc import Iterator

CONTEXT_LINES = 3
MAX_CONTEXT_LINE = 1000
"""Bytes that are shown of a line that did not change."""
MAX_SHOWN = 16 * 1024
"""Bytes that are shown of either side of a change; past as many, no further change is."""
OVERHEAD = 4
"""Of each change, for the signs of its lines."""
NO_NEWLINE = b"\\ No newline at end of file\n"

_Span = tuple[int, int]
"""Where lines that change begin and end in the text, in bytes."""


def replacement_diff(path: str, text: bytes, old: bytes, new: bytes) -> str:
    """The diff between a text and itself with every ``old``, not empty, replaced by ``new``."""
    shown = [f"--- a/{path}\n+++ b/{path}\n".encode("utf-8", "replace")]
    at = line = shift = 0
    spans = list(_first(_changes(text, old, new), len(new) - len(old)))
    for hunk in _hunks(text, spans):
        start, end = _back(text, hunk[0][0]), _forward(text, hunk[-1][1])
        line += text.count(b"\n", at, start)
        lines: list[bytes] = []
        at, size, grown = start, 0, 0
        for first, last in hunk:
            before = text[first:last]
            after = before.replace(old, new)
            lines += _unchanged(text[at:first])
            lines += (*_changed(b"-", before), *_changed(b"+", after))
            size += _count(text[at:first]) + _count(before)
            grown += _count(after) - _count(before)
            at = last
        lines += _unchanged(text[at:end])
        size += _count(text[at:end])
        where = f"@@ -{_span(line, size)} +{_span(line + shift, size + grown)} @@\n"
        shown.append(where.encode())
        shown += lines
        line += text.count(b"\n", start, at)
        shift += grown
    if spans and (left := text.count(old, spans[-1][1])):
        shown.append(b"[%d more replacements are not shown]\n" % left)
    return b"".join(shown).decode("utf-8", "ignore")  # a cut may have divided a character


def _changes(text: bytes, old: bytes, new: bytes) -> Iterator[_Span]:
    """The lines that change; those that overlap are one."""
    spans_lines = b"\n" in old
    joins = old.endswith(b"\n") and not new.endswith(b"\n")
    span: _Span | None = None
    at = text.find(old)
    while at >= 0:
        first = text.rfind(b"\n", 0, at) + 1
        last = _line_end(text, at + len(old) - 1)
        if joins and (new or at != first):  # what remains of the line meets the next one
            last = _line_end(text, last)
        if span is not None and first < span[1]:
            span = span[0], last
        else:
            if span is not None:
                yield span
            span = first, last
        if span[1] - span[0] > MAX_SHOWN:
            break
        # The rest of the line is in the span already.
        at = text.find(old, at + len(old) if spans_lines else last)
    if span is not None:
        yield span


def _first(spans: Iterator[_Span], growth: int) -> Iterator[_Span]:
    """As many changes as are shown."""
    room = MAX_SHOWN
    for first, last in spans:
        if room <= 0:
            return
        room -= 2 * (last - first) + max(growth, 0) + OVERHEAD
        yield first, last


def _hunks(text: bytes, spans: list[_Span]) -> Iterator[list[_Span]]:
    hunk: list[_Span] = []
    for span in spans:
        if hunk and text.count(b"\n", hunk[-1][1], span[0]) > 2 * CONTEXT_LINES:
            yield hunk
            hunk = []
        hunk.append(span)
    if hunk:
        yield hunk


def _back(text: bytes, at: int) -> int:
    """Where the context before a line begins."""
    for _ in range(CONTEXT_LINES):
        at = text.rfind(b"\n", 0, max(at - 1, 0)) + 1
    return at


def _forward(text: bytes, at: int) -> int:
    """Where the context behind a line ends."""
    for _ in range(CONTEXT_LINES):
        at = _line_end(text, at)
    return at


def _line_end(text: bytes, at: int) -> int:
    end = text.find(b"\n", at)
    return len(text) if end < 0 else end + 1


def _count(text: bytes) -> int:
    """The lines of a text, the last of which may have no end."""
    return text.count(b"\n") + (bool(text) and not text.endswith(b"\n"))


def _lines(text: bytes) -> list[bytes]:
    lines = text.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def _unchanged(text: bytes) -> Iterator[bytes]:
    for line in _lines(text):
        more = len(line) - MAX_CONTEXT_LINE
        cut = line[:MAX_CONTEXT_LINE] + b" [%d more bytes are not shown]\n" % more
        yield _shown(b" ", cut if more > 0 else line)


def _changed(sign: bytes, text: bytes) -> Iterator[bytes]:
    more = len(text) - MAX_SHOWN
    for line in _lines(text[:MAX_SHOWN]):
        yield _shown(sign, line if more <= 0 or line.endswith(b"\n") else line + b"\n")
    if more > 0:
        yield b"[%d more bytes are not shown]\n" % more


def _span(start: int, size: int) -> str:
    first = start + 1 if size else start
    return f"{first}" if size == 1 else f"{first},{size}"


def _shown(sign: bytes, line: bytes) -> bytes:
    return sign + line if line.endswith(b"\n") else sign + line + b"\n" + NO_NEWLINE
