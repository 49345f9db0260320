"""The cells of a shared document as values and back, in the schema of Jupyter's collaboration.

The roots are ``cells``, an array of maps; ``meta``, a map with ``metadata``; and ``state``, which
is of those who edit. A cell's ``source`` is a text, its ``metadata`` a map, its ``outputs`` an
array of maps in which a stream's ``text`` is a text. ``execution_state`` is shown by JupyterLab.

What a document holds may have been put there by anybody: whatever has not this form is mended or
shown as what it is, and reading it never fails.

https://github.com/jupyter-server/jupyter_ydoc
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

from pycrdt import Array, Map, Text

from sandbox.errors import Conflict, InvalidRequest
from sandbox.notebooks.ipynb import MAX_OUTPUTS, is_json_type
from sandbox.notebooks.models import CELL_TYPES, Cell, Json, Notebook
from sandbox.outputs.plain import encodable

IDLE = "idle"
RUNNING = "running"
MAX_DEPTH = 64
MAX_LISTED = 20_000
"""The items of a shared array: more than cells of a notebook or outputs of a cell."""
MAX_VALUES = 250_000
"""Of one output, or a cell without its outputs: as many as a message of a kernel may have."""
MAX_CHANGED, OUTPUT_VALUES = 500_000, 100
"""The values that one edit may put in, for each output so many besides its own: about what half a
second is enough for."""
ONE_BY_ONE = 50
"""The items of a shared array that are found one by one; the library counts to each from the first.
"""
_LARGEST_INT = 2**63 - 1


def plain_value(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Any value of a document as plain JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, Text):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if value is None or isinstance(value, bool | int):
        return value
    if depth <= 0:
        return None
    if isinstance(value, Map | Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {str(key): plain_value(each, depth - 1) for key, each in items}
    if isinstance(value, Array) and len(cast("Array[Any]", value)) > MAX_LISTED:
        return f"[{len(cast('Array[Any]', value)):,} items]"
    if isinstance(value, Array | list | tuple):
        return [plain_value(each, depth - 1) for each in cast("Sequence[Any]", value)]
    return f"[{type(value).__name__}]"


def _number(value: float) -> int | float | None:
    """A number of a document, which makes no difference between 1 and 1.0."""
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


_NESTING = (Mapping, list, tuple)


# --- reading


def read_cell(ycell: Any) -> Cell:
    """A cell as it is in a document; its id is empty where it has none that is a text."""
    if not isinstance(ycell, Map):
        return Cell("", "raw", json.dumps(plain_value(ycell), ensure_ascii=False))
    ymap = cast("Map[Any]", ycell)
    cell_type, cell_id = ymap.get("cell_type"), ymap.get("id")
    if cell_type not in CELL_TYPES:
        cell_type = "raw"
    source = plain_value(ymap.get("source"))
    found = Cell(
        id=cell_id if isinstance(cell_id, str) else "",
        cell_type=cell_type,
        source=_text(source),
        metadata=_object(plain_value(ymap.get("metadata"))),
    )
    if cell_type == "code":
        outputs = read_outputs(ymap.get("outputs"))
        count = plain_value(ymap.get("execution_count"))
        is_count = type(count) is int and count >= 0
        return Cell(
            *(found.id, "code", found.source, found.metadata, outputs, count if is_count else None)
        )
    attachments = plain_value(ymap.get("attachments"))
    if not isinstance(attachments, dict) or not attachments:
        return found
    files = cast("dict[str, Any]", attachments).items()
    read = {name: _bundle(each) for name, each in files if isinstance(each, dict)}
    return Cell(found.id, found.cell_type, found.source, found.metadata, attachments=read)


def read_outputs(youtputs: Any) -> tuple[Json, ...]:
    """The outputs of a code cell."""
    if not isinstance(youtputs, Array | list):
        return ()
    raw = cast("Sequence[Any]", youtputs)
    if isinstance(raw, Array) and len(cast("Array[Any]", raw)) > ONE_BY_ONE:
        with suppress(ValueError, RecursionError):  # of what is no JSON, each item is looked at
            raw = cast("list[Any]", json.loads(str(raw)))
    return tuple(_output(plain_value(raw[at])) for at in range(min(len(raw), MAX_OUTPUTS)))


def _output(raw: Any) -> dict[str, Any]:
    output = _object(raw)
    kind = output.get("output_type")
    if kind == "stream":
        name = "stderr" if output.get("name") == "stderr" else "stdout"
        return {"output_type": kind, "name": name, "text": _text(output.get("text"))}
    if kind == "error":
        lines = output.get("traceback")
        many = cast("list[Any]", lines) if isinstance(lines, list) else []
        names = {key: _text(output.get(key)) for key in ("ename", "evalue")}
        return {"output_type": kind, **names, "traceback": [_text(line) for line in many]}
    if kind in ("display_data", "execute_result"):
        shown: dict[str, Any] = {
            "output_type": kind,
            "data": _bundle(output.get("data")),
            "metadata": _object(output.get("metadata")),
        }
        if kind == "execute_result":
            count = output.get("execution_count")
            shown["execution_count"] = count if type(count) is int and count >= 0 else None
        return shown
    text = json.dumps(raw, ensure_ascii=False)
    return {"output_type": "stream", "name": "stderr", "text": f"[no output: {text[:2000]}]\n"}


def _bundle(raw: Any) -> dict[str, Any]:
    return {
        name: value if is_json_type(name) else _text(value) for name, value in _object(raw).items()
    }


def _object(raw: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}


def _text(raw: Any) -> str:
    """A text, which may be given as its lines; of anything else its JSON."""
    if isinstance(raw, str):
        return raw
    if raw is None:
        return ""
    if isinstance(raw, list) and all(isinstance(line, str) for line in cast("list[Any]", raw)):
        return "".join(cast("list[str]", raw))
    return json.dumps(raw, ensure_ascii=False)


# --- making


def made_cell(cell: Cell) -> Map[Any]:
    """A cell for a document."""
    told: dict[str, Any] = {
        "id": cell.id,
        "cell_type": cell.cell_type,
        "source": Text(encodable(cell.source)),
        "metadata": Map(storable(cell.metadata)),
    }
    if cell.cell_type == "code":
        told["outputs"] = Array([made_output(output) for output in cell.outputs])
        told["execution_count"] = cell.execution_count
        told["execution_state"] = IDLE
    elif cell.attachments:
        told["attachments"] = storable(cell.attachments)
    return Map(told)


def cell_by_cell(cells: Sequence[Cell]) -> Iterator[Callable[[Array[Any]], None]]:
    """What puts cells into an empty array, a cell or an output at a time."""
    for cell in cells:
        yield partial(_put_cell, replace(cell, outputs=()))
        for output in cell.outputs:
            yield partial(_put_output, output)


def _put_cell(cell: Cell, ycells: Array[Any]) -> None:
    ycells.append(made_cell(cell))


def _put_output(output: Json, ycells: Array[Any]) -> None:
    ycells[len(ycells) - 1]["outputs"].append(made_output(output))


def check_parts(notebook: Notebook) -> None:
    """Refuse a notebook of which a part has so many values that putting it in takes too long.

    Raises:
        InvalidRequest: It has one.
    """
    parts: list[tuple[str, Any]] = [("The notebook's metadata", notebook.metadata)]
    for cell in notebook.cells:
        parts.append((f"Cell {cell.id[:64]}", [cell.metadata, cell.attachments]))
        parts += ((f"An output of cell {cell.id[:64]}", output) for output in cell.outputs)
    for what, value in parts:
        if _count(value, MAX_VALUES) > MAX_VALUES:
            raise InvalidRequest(
                f"{what} has more than {MAX_VALUES:,} values.",
                remedy="Show less in it, or work on the file.",
            )


def check_change(before: Notebook, after: Notebook) -> None:
    """Refuse an edit that would put in more than can be at once.

    Raises:
        Conflict: It would.
    """
    known = {cell.id: cell for cell in before.cells}
    left = MAX_CHANGED
    if after.metadata is not before.metadata:
        left -= _count(after.metadata, left)
    for cell in after.cells:
        if cell is (was := known.get(cell.id)):
            continue
        stays = {id(each) for each in was.outputs} if was is not None else set[int]()
        if was is None or cell.metadata is not was.metadata:
            left -= _count(cell.metadata, left)
        for output in cell.outputs:
            if id(output) not in stays:
                left -= OUTPUT_VALUES + _count(output, left)
        if left < 0:
            raise Conflict(
                "So much of the notebook changes at once that it would hold up all others.",
                remedy="Take it in smaller steps, or open a copy of it under another name.",
            )


def _count(value: Any, most: int) -> int:
    """How many values there are in one, as far as it matters."""
    found, waiting = 0, [value]
    while waiting and found <= most:
        value = waiting.pop()
        inner = cast("Mapping[str, Any]", value).values() if isinstance(value, Mapping) else value
        found += len(cast("Sequence[Any]", inner))
        waiting += (each for each in cast("Sequence[Any]", inner) if isinstance(each, _NESTING))
    return found


def made_output(output: Json) -> Map[Any]:
    """An output for a document."""
    told = storable(output)
    if told.get("output_type") == "stream":
        told["text"] = Text(told["text"])
    return Map(told)


def storable(value: Any) -> Any:
    """JSON in the numbers that a document can hold."""
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {encodable(key): storable(each) for key, each in items}
    if isinstance(value, list | tuple):
        return [storable(each) for each in cast("Sequence[Any]", value)]
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _LARGEST_INT:
        return float(value) if abs(value) < 2**1023 else None
    return value
