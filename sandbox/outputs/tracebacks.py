"""Tracebacks of deep recursion made short: frames that repeat are shown once.

A frame is a line that names a place, as Python and IPython write it, with the lines of code below
it up to the next one. Where one to ``MAX_PERIOD`` frames follow each other at least three times,
word for word, the first of them stay and a line says how often they came again.
"""

from __future__ import annotations

import re

MAX_PERIOD = 8
"""The frames of a recursion that goes through several functions."""
MAX_PASSES = 4
"""For recursions inside recursions."""
_LEAST = 3

_FRAME = re.compile(
    r"^(?: *File \"[^\"\n]*\", line \d+.*| *(?:Cell |Input |<ipython-)?In ?\[\d+\].*"
    r"|(?:File |~|/|<)[^\n]*(?::\d+|line \d+)(?:, in .*|\(.*|))$",
    re.MULTILINE,
)


def collapsed(traceback: str) -> str:
    """A traceback in which frames that repeat are shown once."""
    for _ in range(MAX_PASSES):
        shorter = _once(traceback)
        if shorter == traceback:
            break
        traceback = shorter
    return traceback


def _once(traceback: str) -> str:
    starts = [match.start() for match in _FRAME.finditer(traceback)]
    if len(starts) < _LEAST:
        return traceback
    ends = [*starts[1:], len(traceback)]
    frames = [traceback[start:end] for start, end in zip(starts, ends, strict=True)]
    kept = [traceback[: starts[0]]]
    at = 0
    while at < len(frames):
        period, times = max(
            ((period, _times(frames, at, period)) for period in range(1, MAX_PERIOD + 1)),
            key=lambda found: found[0] * found[1] if found[1] >= _LEAST else 0,
        )
        if times < _LEAST:
            kept.append(frames[at])
            at += 1
            continue
        kept += frames[at : at + period]
        kept.append(_note(period, times - 1, frames[at + period - 1]))
        at += period * times
    return "".join(kept)


def _times(frames: list[str], at: int, period: int) -> int:
    """How often the frames from a place on follow each other."""
    end = at + period
    while end < len(frames) and frames[end] == frames[end - period]:
        end += 1
    return (end - at) // period


def _note(period: int, times: int, last: str) -> str:
    what = "frame" if period == 1 else f"{period} frames"
    blank = "\n" * last.endswith("\n\n")
    return f"[… the same {what}, {times:,} times …]\n{blank}"
