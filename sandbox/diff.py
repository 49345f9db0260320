"""A unified diff of a replacement, in linear time because the places of change are known.

https://www.gnu.org/software/diffutils/manual/html_node/Detailed-Unified.html
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

CONTEXT_LINES = 3
NO_NEWLINE = "\\ No newline at end of file\n"


@dataclass(slots=True)
class _Change:
    """Lines ``first`` up to, not including, ``last`` that became others."""

    first: int
    last: int
    before: list[str]
    after: list[str]


def replacement_diff(path: str, text: str, old: str, new: str) -> str:
    """The diff between a text and itself with every ``old`` replaced by ``new``.

    Args:
        path: The file's name in the diff.
        text: The text before.
        old: What is replaced; not empty.
        new: What stands there afterwards.
    """
    lines = _lines(text)
    shown = [f"--- a/{path}\n", f"+++ b/{path}\n"]
    shift = 0
    for hunk in _hunks(_changes(text, lines, old, new)):
        start = max(0, hunk[0].first - CONTEXT_LINES)
        end = min(len(lines), hunk[-1].last + CONTEXT_LINES)
        grown = sum(len(change.after) - len(change.before) for change in hunk)
        size = end - start
        shown.append(f"@@ -{_span(start, size)} +{_span(start + shift, size + grown)} @@\n")
        at = start
        for change in hunk:
            shown += (_shown(" ", line) for line in lines[at : change.first])
            shown += (_shown("-", line) for line in change.before)
            shown += (_shown("+", line) for line in change.after)
            at = change.last
        shown += (_shown(" ", line) for line in lines[at:end])
        shift += grown
    return "".join(shown)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def _changes(text: str, lines: list[str], old: str, new: str) -> Iterator[_Change]:
    starts = list(accumulate(map(len, lines), initial=0))
    spans: list[tuple[int, int]] = []
    at = text.find(old)
    while at >= 0:
        first = bisect_right(starts, at) - 1
        last = bisect_right(starts, at + len(old) - 1)
        joins = old.endswith("\n") and not new.endswith("\n")
        if joins and (new or at != starts[first]):  # what remains of the line meets the next one
            last = min(last + 1, len(lines))
        if spans and first < spans[-1][1]:
            first = spans.pop()[0]
        spans.append((first, last))
        at = text.find(old, at + len(old))
    for first, last in spans:
        before = lines[first:last]
        yield _Change(first, last, before, _lines("".join(before).replace(old, new)))


def _hunks(changes: Iterator[_Change]) -> Iterator[list[_Change]]:
    hunk: list[_Change] = []
    for change in changes:
        if hunk and change.first - hunk[-1].last > 2 * CONTEXT_LINES:
            yield hunk
            hunk = []
        hunk.append(change)
    if hunk:
        yield hunk


def _span(start: int, size: int) -> str:
    first = start + 1 if size else start
    return f"{first}" if size == 1 else f"{first},{size}"


def _shown(sign: str, line: str) -> str:
    return sign + line if line.endswith("\n") else f"{sign}{line}\n{NO_NEWLINE}"
