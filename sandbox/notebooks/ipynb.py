"""Notebook files: bytes that anybody may have made, to a notebook and back.

What is too large is refused before it is parsed, and what would take too much memory too. Notebooks
of nbformat 3 and of every 4.x are brought to 4.5. What can be mended without a loss, such as a
missing or doubled id, is mended, and the reader is told; anything else that nbformat does not allow
is refused with its place. Metadata is kept whatever is in it, as Jupyter keeps it: a file in which
it is of a kind that nbformat does not allow is written as it was read.

Reading and writing 50 MB takes seconds: on an event loop it belongs into a thread.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from sandbox.errors import InvalidRequest
from sandbox.notebooks.boundedjson import parse_object
from sandbox.notebooks.models import (
    CELL_TYPES,
    MAX_CELLS,
    Cell,
    Notebook,
    derived_id,
    is_cell_id,
)
from sandbox.outputs.plain import encodable

MAX_BYTES = 50 * 1024 * 1024
MAX_OLD_BYTES = 8 * 1024 * 1024
"""Of nbformat 3: bringing it to 4.5 takes a second for each 1 to 3 MB."""
MAX_OUTPUTS = 10_000
"""Of one cell."""
MAX_NOTES = 20
_CELL_KEYS = frozenset(
    ("id", "cell_type", "source", "metadata", "outputs", "execution_count", "attachments")
)
_SPLIT_TYPES = frozenset(("application/javascript", "image/svg+xml"))
_REMEDY = "Open it in Jupyter and save it again, or give another file."


class Opened(NamedTuple):
    """A notebook that was read."""

    notebook: Notebook
    notes: tuple[str, ...]
    """What was mended, in words."""


def read_ipynb(data: bytes, *, max_bytes: int = MAX_BYTES) -> Opened:
    """Read a notebook file.

    Raises:
        InvalidRequest: It is too large, no JSON, or no notebook; the message names the place.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(
            f"The notebook has {len(data):,} bytes; {max_bytes:,} are the most.",
            remedy="Clear the outputs of its largest cells.",
        )
    document = parse_object(data)
    notes: list[str] = []
    major, minor = document.get("nbformat"), document.get("nbformat_minor", 0)
    if type(major) is not int or type(minor) is not int:
        raise InvalidRequest("It is not a notebook: it has no nbformat number.", remedy=_REMEDY)
    if major == 3:
        if len(data) > MAX_OLD_BYTES:
            raise InvalidRequest(
                f"The notebook is of nbformat 3 and has {len(data):,} bytes; of that format "
                f"{MAX_OLD_BYTES:,} are the most.",
                remedy=_REMEDY,
            )
        document = _upgraded(document)
        notes.append("It was of nbformat 3 and was brought to 4.5.")
    elif major != 4:
        raise InvalidRequest(
            f"The notebook is of nbformat {major}; 3 and 4 can be read.", remedy=_REMEDY
        )
    elif minor < 5:
        notes.append(f"It was of nbformat 4.{minor} and was brought to 4.5, with ids of cells.")
    return _Reader(notes).notebook(document)


def write_ipynb(notebook: Notebook) -> bytes:
    """A notebook file of nbformat 4.5, byte for byte as Jupyter writes it."""
    document = {
        "cells": [_written(cell) for cell in notebook.cells],
        "metadata": notebook.metadata,
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)
    return (encodable(text) + "\n").encode()


def _upgraded(document: dict[str, Any]) -> dict[str, Any]:
    """A document of nbformat 3 as one of 4; the ids that it gets are made as any others."""
    from nbformat import v3, v4  # here, for it takes a while to load, and few notebooks are so old

    old, new = cast("Any", v3), cast("Any", v4)  # which say little of their types
    try:
        upgraded = new.upgrade(old.to_notebook_json(document), from_version=3, from_minor=0)
        for cell in upgraded["cells"]:
            cell.pop("id", None)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
        raise InvalidRequest(
            f"The notebook is no valid one of nbformat 3: {type(exc).__name__}: {exc}."[:300],
            remedy=_REMEDY,
        ) from exc
    return upgraded


# --- its parts


class _Reader:
    """Reads one document, and notes what it mends."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._left_out = 0
        self._seen: Counter[tuple[str, str]] = Counter()

    def notebook(self, document: dict[str, Any]) -> Opened:
        """The notebook in a document of nbformat 4."""
        raw = document.get("cells")
        if not isinstance(raw, list):
            raise _wrong("cells", "must be a list")
        cells = cast("list[Any]", raw)
        if len(cells) > MAX_CELLS:
            raise InvalidRequest(f"The notebook has {len(cells):,} cells; {MAX_CELLS:,} may be.")
        metadata = _mapping(document.get("metadata", {}), "metadata")
        metadata = {k: v for k, v in metadata.items() if k not in _TRANSIENT}
        for key in document.keys() - {"cells", "metadata", "nbformat", "nbformat_minor"}:
            self._note(f"{key[:40]!r} is no part of a notebook and was left out.")
        ids = self._ids([_mapping(cell, f"cells[{at}]") for at, cell in enumerate(cells)])
        read = tuple(
            self._cell(cell, cell_id, f"cells[{at}]")
            for at, (cell, cell_id) in enumerate(zip(cells, ids, strict=True))
        )
        more = [f"And {self._left_out} more."] if self._left_out else []
        return Opened(Notebook(read, metadata), (*self._notes, *more))

    def _ids(self, cells: list[dict[str, Any]]) -> Iterator[str]:
        """An id for each cell: its own where it has a good one that no earlier cell has."""
        counts = Counter(cell["id"] for cell in cells if is_cell_id(cell.get("id")))
        taken, given = set(counts), set[str]()
        for at, cell in enumerate(cells):
            wanted: Any = cell.get("id")
            if is_cell_id(wanted) and wanted not in given:
                given.add(wanted)
                yield wanted
                continue
            made = self._made_id(cell, taken)
            taken.add(made)
            if wanted is not None:
                why = "is another cell's" if is_cell_id(wanted) else "is no id"
                self._note(f"cells[{at}] is now {made}: {str(wanted)[:70]!r} {why}.")
            yield made

    def _made_id(self, cell: dict[str, Any], taken: set[str]) -> str:
        about = str(cell.get("cell_type")), _lines(cell.get("source", ""), "source")
        while True:
            made = derived_id(*about, self._seen[about])
            self._seen[about] += 1
            if made not in taken:
                return made

    def _cell(self, cell: dict[str, Any], cell_id: str, at: str) -> Cell:
        cell_type = cell.get("cell_type")
        if cell_type not in CELL_TYPES:
            raise _wrong(f"{at}.cell_type", f"must be one of {', '.join(CELL_TYPES)}")
        for key in cell.keys() - _CELL_KEYS:
            self._note(f"{at}.{key[:40]!r} is no part of a cell and was left out.")
        for key in {"metadata", "source"} - cell.keys():
            self._note(f"{at} had no {key}.")
        metadata = _mapping(cell.get("metadata", {}), f"{at}.metadata")
        found = Cell(
            id=cell_id,
            cell_type=cell_type,
            source=_lines(cell.get("source", ""), f"{at}.source"),
            metadata={key: value for key, value in metadata.items() if key != "trusted"},
        )
        if cell_type == "code":
            return self._with_outputs(found, cell, at)
        if (attachments := cell.get("attachments")) is None:
            return found
        files = _mapping(attachments, f"{at}.attachments")
        read = {name: _bundle(each, f"{at}.attachments[…]") for name, each in files.items()}
        return Cell(found.id, found.cell_type, found.source, found.metadata, attachments=read)

    def _with_outputs(self, found: Cell, cell: dict[str, Any], at: str) -> Cell:
        outputs = cell.get("outputs", [])
        if not isinstance(outputs, list):
            raise _wrong(f"{at}.outputs", "must be a list")
        many = cast("list[Any]", outputs)
        if len(many) > MAX_OUTPUTS:
            raise _wrong(f"{at}.outputs", f"has {len(many):,} items; {MAX_OUTPUTS:,} may be")
        read = tuple(_output(each, f"{at}.outputs[{n}]") for n, each in enumerate(many))
        count = _count(cell.get("execution_count"), f"{at}.execution_count")
        return Cell(found.id, "code", found.source, found.metadata, read, count)

    def _note(self, text: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes.append(text)
        else:
            self._left_out += 1


_TRANSIENT = frozenset(("orig_nbformat", "orig_nbformat_minor", "signature"))


def _output(raw: Any, at: str) -> dict[str, Any]:
    output = _mapping(raw, at)
    kind = output.get("output_type")
    if kind == "stream":
        text = _lines(output.get("text"), f"{at}.text")
        return {"output_type": kind, "name": _str(output.get("name"), f"{at}.name"), "text": text}
    if kind == "error":
        lines = output.get("traceback")
        if not isinstance(lines, list):
            raise _wrong(f"{at}.traceback", "must be a list of texts")
        traceback = [_str(line, f"{at}.traceback") for line in cast("list[Any]", lines)]
        names = {key: _str(output.get(key), f"{at}.{key}") for key in ("ename", "evalue")}
        return {"output_type": kind, **names, "traceback": traceback}
    if kind not in ("display_data", "execute_result"):
        raise _wrong(f"{at}.output_type", "is none that nbformat 4 has")
    shown: dict[str, Any] = {
        "output_type": kind,
        "data": _bundle(output.get("data", {}), f"{at}.data"),
        "metadata": _mapping(output.get("metadata", {}), f"{at}.metadata"),
    }
    if kind == "execute_result":
        shown["execution_count"] = _count(output.get("execution_count"), f"{at}.execution_count")
    return shown


def _bundle(raw: Any, at: str) -> dict[str, Any]:
    return {
        name: value if is_json_type(name) else _lines(value, f"{at}[{name[:60]!r}]")
        for name, value in _mapping(raw, at).items()
    }


def is_json_type(name: str) -> bool:
    """Whether a value of this mime type is JSON rather than text."""
    return name == "application/json" or (
        name.startswith("application/") and name.endswith("+json")
    )


def _mapping(raw: Any, at: str) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise _wrong(at, "must be an object")
    return cast("dict[str, Any]", raw)


def _lines(raw: Any, at: str) -> str:
    """A text, which may be given as a list of its lines."""
    if isinstance(raw, list) and all(isinstance(line, str) for line in cast("list[Any]", raw)):
        return "".join(cast("list[str]", raw))
    return _str(raw, at)


def _str(raw: Any, at: str) -> str:
    if not isinstance(raw, str):
        raise _wrong(at, "must be a text")
    return raw


def _count(raw: Any, at: str) -> int | None:
    if raw is not None and (type(raw) is not int or raw < 0):
        raise _wrong(at, "must be a number from 0 or null")
    return raw


def _wrong(at: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"It is not a valid notebook: {at} {what}.", remedy=_REMEDY)


# --- writing


def _written(cell: Cell) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": cell.id,
        "cell_type": cell.cell_type,
        "source": cell.source.splitlines(keepends=True),
        "metadata": cell.metadata,
    }
    if cell.attachments is not None:
        files = cell.attachments.items()
        told["attachments"] = {name: _split(bundle) for name, bundle in files}
    if cell.cell_type == "code":
        told["execution_count"] = cell.execution_count
        told["outputs"] = [_written_output(output) for output in cell.outputs]
    return told


def _written_output(output: Any) -> dict[str, Any]:
    if "data" in output:
        return {**output, "data": _split(output["data"])}
    if output["output_type"] == "stream":
        return {**output, "text": output["text"].splitlines(keepends=True)}
    return output


def _split(bundle: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.splitlines(keepends=True)
        if isinstance(value, str) and (name.startswith("text/") or name in _SPLIT_TYPES)
        else value
        for name, value in bundle.items()
    }
