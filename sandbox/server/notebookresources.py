"""Notebooks as resources and a prompt: a notebook, a cell, an output, and cells that are cited.

``notebook://NAME`` has the name that its caller gave it with ``use_notebook``. They are read as the
tools are called: with the same scope and policy, and on record.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote

import anyio.to_thread
from mcp.server.mcpserver import Context, MCPServer, UserMessage
from pydantic import Field

from sandbox.errors import InvalidRequest
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import Cell, Json, Notebook
from sandbox.outputs import mime
from sandbox.outputs.redaction import Redactor
from sandbox.server.desk import Desk
from sandbox.server.executionresources import output_data, output_index
from sandbox.server.notebooksinuse import InUse, in_use
from sandbox.server.notebookviews import MAX_OUTPUTS, outputs_of
from sandbox.server.pictures import picture_type
from sandbox.server.readings import reading
from sandbox.server.results import shortened
from sandbox.server.wording import printable

NOTEBOOK_TOOL = "read_notebook"
CELL_TOOL = "read_cell"
PROMPT = "jupyter_cite"
JSON = "application/json"
NOTEBOOK = "application/x-ipynb+json"
MAX_BYTES = 768 * 1024
"""Of one answer: the official Python client refuses a message above 1 MiB."""
MAX_CITED = 100
"""Cells of one prompt."""
MAX_CITED_TEXT = 64 * 1024


class NotebookResources:
    """The resources and the prompt of the notebooks that a desk's callers use."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def add_to(self, server: MCPServer[Any]) -> None:
        """Serve them."""

        @server.resource(
            "notebook://{name}",
            title="A notebook",
            description="A notebook that you use, in nbformat 4.5.",
            mime_type=NOTEBOOK,
        )
        async def notebook(name: str, ctx: Context[Any, Any]) -> str:  # pyright: ignore[reportUnusedFunction]  # the server calls it
            asked = {"notebook_name": name}
            async with self._used(ctx, NOTEBOOK_TOOL, name, asked) as it:
                return await anyio.to_thread.run_sync(_whole, it.session.redactor, it.live.read())

        @server.resource(
            "notebook://{name}/cells/{cell_id}",
            title="A cell of a notebook",
            description="A cell, as JSON; its outputs are listed, each a resource of its own.",
            mime_type=JSON,
        )
        async def cell(name: str, cell_id: str, ctx: Context[Any, Any]) -> str:  # pyright: ignore[reportUnusedFunction]  # the server calls it
            asked = {"notebook_name": name, "cell_id": cell_id}
            async with self._used(ctx, CELL_TOOL, name, asked) as it:
                found = it.live.read()
                index = found.index(cell_id)
                return await anyio.to_thread.run_sync(
                    _listed, it.session.redactor, name, index, found.cells[index]
                )

        @server.resource(
            "notebook://{name}/cells/{cell_id}/outputs/{index}",
            title="An output of a cell",
            description="A picture as its bytes; any other output as its mime bundle, as JSON.",
            mime_type=JSON,
        )
        async def output(  # pyright: ignore[reportUnusedFunction]  # the server calls it
            name: str, cell_id: str, index: str, ctx: Context[Any, Any]
        ) -> bytes | str:
            asked = {"notebook_name": name, "cell_id": cell_id, "output": index}
            async with self._used(ctx, CELL_TOOL, name, asked) as it:
                found = it.live.read().cell(cell_id)
                at = output_index(index, min(len(found.outputs), MAX_OUTPUTS))
                return await anyio.to_thread.run_sync(_data, it.session.redactor, found, at)

        @server.prompt(
            name=PROMPT,
            title="Cite cells of a notebook",
            description="Put cells of a notebook into a prompt.",
        )
        async def jupyter_cite(  # pyright: ignore[reportUnusedFunction]  # the server calls it
            ctx: Context[Any, Any],
            prompt: Annotated[str, Field(description="What to do with the cells.")],
            cell_indices: Annotated[
                str, Field(description="Which cells, from 0, such as 0-2,4 or 3- for the rest.")
            ],
            notebook_name: Annotated[
                str, Field(description="The name you use it by; empty: the current one.")
            ] = "",
        ) -> UserMessage:
            asked = {"notebook_name": notebook_name, "cell_indices": cell_indices}
            async with self._used(ctx, CELL_TOOL, notebook_name, asked) as it:
                found = it.live.read()
                text = _cited(it.named.name, found, cited(cell_indices, len(found.cells)))
                text = f"{it.session.redactor.text(text)}\n{prompt}"
            return UserMessage(text)

    @asynccontextmanager
    async def _used(
        self, ctx: Context[Any, Any], tool: str, name: str, asked: Mapping[str, str]
    ) -> AsyncGenerator[InUse]:
        """The notebook that a caller calls so, read as with a tool."""
        async with (
            reading(self._desk, ctx, tool, asked),
            in_use(self._desk, ctx, "", tool, name) as used,
        ):
            yield used


def cited(indices: str, count: int) -> list[int]:
    """The cells that a text such as ``0-2,4`` or ``3-`` names, in order, of so many.

    Raises:
        InvalidRequest: It names none, or such as there are not.
    """
    found: set[int] = set()
    for part in filter(None, map(str.strip, indices[:1000].split(","))):
        first, dash, last = (each.strip() for each in part.partition("-"))
        begin = _number(first)
        end = (_number(last) if last else count - 1) if dash else begin
        if begin is None or end is None or (last and end < begin):
            raise InvalidRequest(
                f"{printable(part, 40)!r} names no cells.", remedy="Such as 0-2,4 or 3- do."
            )
        if max(begin, end) >= count:
            there = f"cells 0 to {count - 1}" if count else "no cells"
            raise InvalidRequest(f"The notebook has {there}, and not all of {printable(part, 40)}.")
        found.update(range(begin, min(end, begin + MAX_CITED) + 1))
    if not found:
        raise InvalidRequest("No cell is named.", remedy="Such as 0-2,4 or 3- names some.")
    if len(found) > MAX_CITED:
        raise InvalidRequest(f"At most {MAX_CITED} cells are cited at once.")
    return sorted(found)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _cited(name: str, notebook: Notebook, indices: Iterable[int]) -> str:
    """Cells for a prompt."""
    cells = [(index, notebook.cells[index]) for index in indices]
    share = max(MAX_CITED_TEXT // len(cells), 500)
    parts = [f"These are cells of the notebook {printable(name)!r}:"]
    for index, cell in cells:
        count = "" if cell.execution_count is None else f", execution count {cell.execution_count}"
        parts.append(f"===== Cell {index} ({cell.cell_type}{count}, id {cell.id}) =====")
        parts.append(shortened(cell.source, share))
    return "\n".join([*parts, "===== End of the cells ====="])


def _whole(redactor: Redactor, notebook: Notebook) -> str:
    """A notebook as a file has it."""
    data = write_ipynb(notebook)
    if len(data) > MAX_BYTES:
        raise _too_large("read_notebook pages it")
    return redactor.text(data.decode())


def _listed(redactor: Redactor, name: str, index: int, cell: Cell) -> str:
    """A cell with its outputs listed."""
    base = f"notebook://{quote(name, safe='')}/cells/{cell.id}/outputs"
    outputs = [_about(f"{base}/{at}", each) for at, each in enumerate(outputs_of(cell))]
    told = {
        "index": index,
        "id": cell.id,
        "cell_type": cell.cell_type,
        "source": cell.source,
        "metadata": cell.metadata,
        "execution_count": cell.execution_count,
        "outputs": outputs,
    }
    return _as_json(redactor, told, "read_cell reads parts of it")


def _about(uri: str, output: Json) -> dict[str, Any]:
    data: Mapping[str, Any] = output.get("data") or {}
    sizes = {each: mime.size(value) for each, value in data.items()}
    if output["output_type"] == "stream":
        sizes = {"text/plain": mime.size(output["text"])}
    return {"output_type": output["output_type"], "bytes": sizes, "uri": uri}


def _data(redactor: Redactor, cell: Cell, index: int) -> bytes | str:
    """An output of a cell: a picture as its bytes, any other as JSON."""
    output, remedy = outputs_of(cell)[index], "save it to a file and download that"
    if kind := picture_type(output):
        if len(output["data"][kind]) > MAX_BYTES:
            raise _too_large(remedy)
        return output_data(output)
    return _as_json(redactor, output, remedy)


def _as_json(redactor: Redactor, value: dict[str, Any], remedy: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise _too_large(remedy)
    return redactor.text(text)


def _too_large(remedy: str) -> InvalidRequest:
    return InvalidRequest(f"It has more than {MAX_BYTES:,} bytes: {remedy}.")
