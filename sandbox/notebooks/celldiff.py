"""What an edit changed, as a unified diff in which each cell is a file of its own.

The text of a cell is hostile and large: only few lines are compared line by line, and the time is
linear in the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from sandbox.notebooks.models import Cell, Notebook
from sandbox.outputs.plain import clip

MAX_DIFF_BYTES = 64 * 1024
MAX_COMPARED = 100
"""The lines of either side, between what they begin and end with alike, that are compared."""
CONTEXT_LINES = 3
NOWHERE = "/dev/null"


def cells_diff(pairs: Iterable[tuple[Cell | None, Cell | None]]) -> str:
    """How sources changed: pairs of a cell before and after, None where there is none."""
    return _bounded(
        text_diff(_path("a", old), _path("b", new), _source(old), _source(new))
        for old, new in pairs
    )


def order_diff(before: Notebook, after: Notebook) -> str:
    """How the order of cells changed."""
    texts = ["".join(f"{c.id} {c.title[:60]}\n" for c in each.cells) for each in (before, after)]
    return _bounded([text_diff("a/order", "b/order", *texts)])


def outputs_diff(pairs: Iterable[tuple[Cell, Cell]]) -> str:
    """What outputs and counts went away."""
    return _bounded(
        text_diff(
            f"a/cells/{old.id}/outputs", f"b/cells/{new.id}/outputs", _outputs(old), _outputs(new)
        )
        for old, new in pairs
    )


def text_diff(old_name: str, new_name: str, old: str, new: str) -> str:
    """A unified diff of two texts; empty when they are alike."""
    if old == new and NOWHERE not in (old_name, new_name):
        return ""
    marked = bool(old and new) and old.endswith("\n") != new.endswith("\n")
    before, after = _lines(old, marked=marked), _lines(new, marked=marked)
    head = _alike(before, after)
    tail = _alike(before[head:][::-1], after[head:][::-1])
    start = max(head - CONTEXT_LINES, 0)
    left = before[start : len(before) - max(tail - CONTEXT_LINES, 0)]
    right = after[start : len(after) - max(tail - CONTEXT_LINES, 0)]
    shown = [f"--- {old_name}", f"+++ {new_name}"]
    if max(len(before), len(after)) - head - tail <= MAX_COMPARED:
        matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
        for group in matcher.get_grouped_opcodes(CONTEXT_LINES):
            _, old_start, _, new_start, _ = group[0]
            _, _, old_end, _, new_end = group[-1]
            shown.append(_hunk(start, old_start, old_end, new_start, new_end))
            for kind, a, b, c, d in group:
                shown += (f" {line}" for line in left[a:b] if kind == "equal")
                shown += (f"-{line}" for line in left[a:b] if kind != "equal")
                shown += (f"+{line}" for line in right[c:d] if kind != "equal")
    else:
        shown.append(_hunk(start, 0, len(left), 0, len(right)))
        lead, trail = head - start, min(tail, CONTEXT_LINES)
        shown += (f" {line}" for line in left[:lead])
        shown += (f"-{line}" for line in left[lead : len(left) - trail])
        shown += (f"+{line}" for line in right[lead : len(right) - trail])
        shown += (f" {line}" for line in left[len(left) - trail :])
    return "\n".join(shown) + "\n"


def _hunk(start: int, old_start: int, old_end: int, new_start: int, new_end: int) -> str:
    return (
        f"@@ -{_span(start + old_start, old_end - old_start)}"
        f" +{_span(start + new_start, new_end - new_start)} @@"
    )


def _span(start: int, size: int) -> str:
    first = start + 1 if size else start
    return f"{first}" if size == 1 else f"{first},{size}"


def _alike(left: Sequence[str], right: Sequence[str]) -> int:
    """How many lines both begin with."""
    count = 0
    for one, other in zip(left, right, strict=False):
        if one != other:
            break
        count += 1
    return count


def _lines(text: str, *, marked: bool) -> list[str]:
    """The lines of a text; where it matters, the last one says so when it has no end."""
    *lines, last = text.split("\n")
    if not last:
        return lines
    return [*lines, f"{last}\n\\ No newline at end of file" if marked else last]


def _bounded(diffs: Iterable[str]) -> str:
    shown: list[str] = []
    size, left_out = 0, 0
    for diff in diffs:
        if size > MAX_DIFF_BYTES:
            left_out += 1
            continue
        shown.append(diff)
        size += len(diff)
    if left_out:
        shown.append(f"[{left_out} more changes are not shown]\n")
    return clip("".join(shown), MAX_DIFF_BYTES)


def _path(side: str, cell: Cell | None) -> str:
    return NOWHERE if cell is None else f"{side}/cells/{cell.id}"


def _source(cell: Cell | None) -> str:
    return "" if cell is None else cell.source


def _outputs(cell: Cell) -> str:
    count = [] if cell.execution_count is None else [f"execution_count {cell.execution_count}"]
    kinds = [str(output["output_type"]) for output in cell.outputs]
    return "\n".join((*count, *kinds))
