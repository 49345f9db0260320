"""What differs between two values of a notebook, done to its document with as little as possible.

A cell that stays keeps its place and its text in the document, and so does whoever types in it at
that moment: only the characters that differ are taken out and put in. A document has no way to move
a cell, so one that moves is made anew; so is one that gets another type, as JupyterLab does it.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, cast

from pycrdt import Array, Map, Text

from sandbox.collaboration.ycells import made_cell, made_output, storable
from sandbox.notebooks.models import Cell, Json, Notebook
from sandbox.outputs.plain import encodable

MAX_COMPARED = 600
"""The characters of either side, between what they begin and end with alike, that are compared."""
_MISSING: Any = object()


def change_notebook(ycells: Array[Any], ymeta: Map[Any], before: Notebook, after: Notebook) -> None:
    """Make a document that shows one value show another one; within one transaction."""
    if after.metadata is not before.metadata and after.metadata != before.metadata:
        change_mapping(ymeta, "metadata", before.metadata, after.metadata)
    if after.cells is before.cells:
        return
    old = {cell.id: at for at, cell in enumerate(before.cells)}
    kept = [
        (at, old[cell.id])
        for at, cell in enumerate(after.cells)
        if cell.id in old and before.cells[old[cell.id]].cell_type == cell.cell_type
    ]
    staying = {kept[at][1] for at in _longest_rise([index for _, index in kept])}
    for first, last in _runs(at for at in range(len(before.cells)) if at not in staying):
        del ycells[first:last]
    fresh: list[Map[Any]] = []
    for at, cell in enumerate(after.cells):
        index = old.get(cell.id, -1)
        if index not in staying:
            fresh.append(made_cell(cell))
            continue
        _insert(ycells, at - len(fresh), fresh)
        fresh = []
        if cell is not (was := before.cells[index]):
            change_cell(ycells[at], was, cell)
    _insert(ycells, len(after.cells) - len(fresh), fresh)


def _insert(ycells: Array[Any], at: int, made: list[Map[Any]]) -> None:
    for offset, each in enumerate(made):
        ycells.insert(at + offset, each)


def _runs(indices: Iterator[int]) -> list[tuple[int, int]]:
    """Ascending indices as ranges, the last one first."""
    runs: list[tuple[int, int]] = []
    for at in indices:
        if runs and runs[-1][1] == at:
            runs[-1] = (runs[-1][0], at + 1)
        else:
            runs.append((at, at + 1))
    return runs[::-1]


def _longest_rise(values: Sequence[int]) -> list[int]:
    """The positions of a longest rising subsequence of distinct values."""
    tails: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    for at, value in enumerate(values):
        place = bisect_left(tails, value)
        before.append(ends[place - 1] if place else -1)
        tails[place : place + 1] = [value]
        ends[place : place + 1] = [at]
    found: list[int] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        found.append(at)
        at = before[at]
    return found[::-1]


def change_cell(ycell: Map[Any], before: Cell, after: Cell) -> None:
    """Make a cell of a document, of the same type, show another value."""
    if after.source != before.source:
        if isinstance(text := ycell.get("source"), Text):
            change_text(text, before.source, encodable(after.source))
        else:
            ycell["source"] = Text(encodable(after.source))
    if after.metadata is not before.metadata and after.metadata != before.metadata:
        change_mapping(ycell, "metadata", before.metadata, after.metadata)
    if after.outputs is not before.outputs:
        change_outputs(ycell, before.outputs, after.outputs)
    if after.execution_count != before.execution_count:
        ycell["execution_count"] = after.execution_count
    if after.attachments != before.attachments:
        ycell["attachments"] = storable(after.attachments or {})


def change_mapping(ymap: Map[Any], name: str, before: Json, after: Json) -> None:
    """Make a map in a map show another value, key by key."""
    found = ymap.get(name)
    if not isinstance(found, Map):
        ymap[name] = Map(storable(after))
        return
    inner = cast("Map[Any]", found)
    for key in before.keys() - after.keys():
        if key in inner:
            del inner[key]
    for key, value in after.items():
        if before.get(key, _MISSING) != value:
            inner[encodable(key)] = storable(value)


def change_outputs(ycell: Map[Any], before: Sequence[Json], after: Sequence[Json]) -> None:
    """Make the outputs of a cell show others: what is alike at either end stays, and a stream that
    goes on is added to."""
    youtputs = ycell.get("outputs")
    if not isinstance(youtputs, Array) or len(cast("Array[Any]", youtputs)) != len(before):
        ycell["outputs"] = Array([made_output(output) for output in after])
        return
    array = cast("Array[Any]", youtputs)
    head = _alike(before, after)
    shorter = min(len(before), len(after)) - head
    tail = min(_alike(before[::-1], after[::-1]), shorter)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    kept = 0
    while kept < min(len(old), len(new)) and _go_on(array[head + kept], old[kept], new[kept]):
        kept += 1
    if len(old) > kept:
        del array[head + kept : head + len(old)]
    for offset, output in enumerate(new[kept:]):
        array.insert(head + kept + offset, made_output(output))


def _alike(left: Sequence[Json], right: Sequence[Json]) -> int:
    count = 0
    for one, other in zip(left, right, strict=False):
        if one is not other and one != other:
            break
        count += 1
    return count


def _go_on(youtput: Any, before: Json, after: Json) -> bool:
    """Make a stream in a document show another text of it; False where it is none."""
    names = [(each.get("output_type"), each.get("name")) for each in (before, after)]
    if names[0] != names[1] or names[0][0] != "stream" or not isinstance(youtput, Map):
        return False
    text = cast("Map[Any]", youtput).get("text")
    if not isinstance(text, Text) or str(text) != before["text"]:
        return False
    change_text(text, before["text"], encodable(after["text"]))
    return True


def change_text(text: Text, before: str, after: str) -> None:
    """Make a text of a document, which is ``before``, another one; its offsets are in UTF-8."""
    for start, end, put_in in reversed(list(_changes(before, after))):
        first = len(before[:start].encode())
        if end > start:
            del text[first : first + len(before[start:end].encode())]
        if put_in:
            text.insert(first, put_in)


def _changes(before: str, after: str) -> Iterator[tuple[int, int, str]]:
    """What is replaced in a text, ascending: from where to where, and by what."""
    shorter = min(len(before), len(after))
    head = _common(before, after, shorter)
    tail = _common(before[::-1], after[::-1], shorter - head)
    old, new = before[head : len(before) - tail], after[head : len(after) - tail]
    if not old or not new or max(len(old), len(new)) > MAX_COMPARED:
        if old or new:
            yield head, head + len(old), new
        return
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind != "equal":
            yield head + a, head + b, new[c:d]


def _common(left: str, right: str, most: int) -> int:
    """How many characters two texts begin with alike, at most so many; by halves, as slices are
    compared much faster than characters."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
