"""Notebook files: what anybody may have made is read, mended and told of, or refused."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidRequest, SandboxError
from sandbox.notebooks import boundedjson, ipynb
from sandbox.notebooks.boundedjson import MAX_DEPTH
from sandbox.notebooks.ipynb import MAX_OUTPUTS, read_ipynb, write_ipynb
from sandbox.notebooks.models import MAX_CELLS, Notebook, is_cell_id, kernel_of

from . import notebooks as made


def document(*cells: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [*cells], **more}


def code(source: Any = "1", cell_id: str = "a", **more: Any) -> dict[str, Any]:
    about = {"metadata": {}, "outputs": [], "execution_count": None}
    return {"cell_type": "code", "id": cell_id, "source": source, **about, **more}


def read(value: Any) -> ipynb.Opened:
    return read_ipynb(json.dumps(value).encode())


# --- there and back


@given(made.notebooks())
def test_what_is_written_is_read_as_it_was(notebook: Notebook) -> None:
    assert read_ipynb(write_ipynb(notebook)) == (notebook, ())


@given(made.notebooks())
def test_what_is_written_is_valid_and_as_jupyter_writes_it(notebook: Notebook) -> None:
    data = write_ipynb(notebook)
    theirs = nbformat.reads(data.decode(), as_version=4)
    nbformat.validate(theirs)
    assert nbformat.writes(theirs) + "\n" == data.decode()


def test_metadata_that_nobody_knows_is_kept() -> None:
    about = {"kernelspec": {"name": "python3"}, "x-tool": {"deep": [1, {"y": None}]}}
    cell = code(metadata={"collapsed": True, "mine": {"a": [1.5, "b"]}, "tags": ["t"]})
    notebook = read(document(cell, metadata=about)).notebook
    assert notebook.metadata == about
    assert notebook.cells[0].metadata == cell["metadata"]
    assert json.loads(write_ipynb(notebook)) == document({**cell, "source": ["1"]}, metadata=about)


def test_metadata_of_another_kind_than_the_format_wants_is_kept_too() -> None:
    cell = code(source=["1"], metadata={"name": None, "tags": "t"})
    value = document(cell, metadata={"title": 3})
    notebook, notes = read(value)
    assert not notes
    assert json.loads(write_ipynb(notebook)) == value


def test_lines_are_joined_but_lists_in_json_types_stay() -> None:
    shown = {"text/plain": ["a\n", "b"], "application/geo+json": ["a\n", "b"]}
    output = {"output_type": "display_data", "metadata": {}, "data": shown}
    notebook = read(document(code(["x\n", "y"], outputs=[output]))).notebook
    assert notebook.cells[0].source == "x\ny"
    data = notebook.cells[0].outputs[0]["data"]
    assert data == {"text/plain": "a\nb", "application/geo+json": ["a\n", "b"]}


# --- what is mended


def test_a_notebook_of_nbformat_3_is_brought_to_4_5() -> None:
    old = nbformat.v3.new_notebook(
        worksheets=[
            nbformat.v3.new_worksheet(
                cells=[
                    nbformat.v3.new_text_cell("heading", source="Title"),
                    nbformat.v3.new_code_cell(
                        input="1 + 1",
                        prompt_number=3,
                        outputs=[nbformat.v3.new_output("pyout", "2", prompt_number=3)],
                    ),
                ]
            )
        ]
    )
    notebook, notes = read(old)
    assert [cell.source for cell in notebook.cells] == ["# Title", "1 + 1"]
    assert notebook.cells[1].outputs[0]["data"] == {"text/plain": "2"}
    assert notebook.cells[1].execution_count == 3
    assert "nbformat 3" in notes[0]
    assert read(old).notebook == notebook
    nbformat.validate(nbformat.reads(write_ipynb(notebook).decode(), as_version=4))


@pytest.mark.parametrize("minor", range(5))
def test_cells_without_ids_get_some_that_are_the_same_at_each_reading(minor: int) -> None:
    def cell(source: str) -> dict[str, Any]:
        return {name: value for name, value in code(source).items() if name != "id"}

    old = document(cell("x"), cell("x"), cell("y"), nbformat_minor=minor)
    notebook, notes = read(old)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == 3
    assert all(map(is_cell_id, ids))
    assert f"nbformat 4.{minor}" in notes[0]
    old["cells"].insert(0, cell("new"))
    assert [cell.id for cell in read(old).notebook.cells][1:] == ids


def test_doubled_and_impossible_ids_are_replaced_and_told() -> None:
    cells = [code("1", "same"), code("2", "same"), code("3", "not an id"), code("4", "other")]
    notebook, notes = read(document(*cells))
    ids = [cell.id for cell in notebook.cells]
    assert (ids[0], ids[3]) == ("same", "other")
    assert len(set(ids)) == 4
    assert f"cells[1] is now {ids[1]}: 'same' is another cell's." in notes
    assert f"cells[2] is now {ids[2]}: 'not an id' is no id." in notes


def test_a_made_id_is_never_one_that_a_later_cell_has() -> None:
    bare = {name: value for name, value in code("x").items() if name != "id"}
    made_id = read(document(bare)).notebook.cells[0].id
    notebook = read(document(bare, code("y", made_id))).notebook
    assert notebook.cells[1].id == made_id
    assert notebook.cells[0].id != made_id


def test_what_is_missing_and_what_is_too_much_is_told() -> None:
    cell = {"cell_type": "code", "id": "a", "prompt": 1}
    notebook, notes = read(document(cell, extra=1))
    assert notebook.cells[0].source == ""
    assert any("'extra'" in note for note in notes)
    assert any("cells[0].'prompt'" in note for note in notes)
    assert any("cells[0] had no metadata" in note for note in notes)


def test_notes_are_bounded() -> None:
    notes = read(document(*(code("1", "same") for _ in range(100)))).notes
    assert len(notes) == ipynb.MAX_NOTES + 1
    assert notes[-1] == f"And {99 - ipynb.MAX_NOTES} more."


def test_lone_surrogates_do_not_stop_a_notebook_from_being_written() -> None:
    data = json.dumps(document(code("'\ud800'"))).encode()
    notebook = read_ipynb(data).notebook
    assert notebook.cells[0].source == "'?'"
    write_ipynb(notebook)


def test_a_byte_order_mark_is_no_part_of_it() -> None:
    data = b"\xef\xbb\xbf" + json.dumps(document(code())).encode()
    assert read_ipynb(data).notebook.cells[0].source == "1"


# --- what is refused

DEEP = b'{"nbformat": 4, "cells": [], "metadata": ' + b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no JSON"),
        (b"PK\x03\x04\xff", "no JSON"),
        (b"[1]", "no object"),
        (b"{}", "no nbformat"),
        (b'{"nbformat": true}', "no nbformat"),
        (b'{"nbformat": 5, "cells": []}', "nbformat 5"),
        (b'{"nbformat": 2, "worksheets": []}', "nbformat 2"),
        (b'{"nbformat": 3, "worksheets": [{"cells": 1}]}', "nbformat 3"),
        (b'{"nbformat": 3, "worksheets": 1}', "nbformat 3"),
        (b'{"nbformat": 4}', "cells must be a list"),
        (b'{"nbformat": 4, "cells": [], "metadata": {"a": NaN}}', "NaN"),
        (b'{"nbformat": 4, "cells": [], "metadata": {"a": 1e999}}', "too large a number"),
        (b'{"nbformat": 4, "cells": [], "metadata": {"a": -1E+0400}}', "too large a number"),
        (b'{"nbformat": 4, "metadata": {"a": ' + b"9" * 400 + b".0}}", "too large a number"),
        (b'{"nbformat": 4, "cells": [], "metadata": {"a": ' + b"1" * 5000 + b"}}", "no JSON"),
        (DEEP + b"}", "deep"),
        (b"[" * 100_000, "deep"),
    ],
)
def test_what_is_no_notebook_is_refused_and_said(data: bytes, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        read_ipynb(data)


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        (1, r"cells\[0\] must be an object"),
        ({"cell_type": "heading"}, r"cells\[0\]\.cell_type"),
        (code(source=1), "source must be a text"),
        (code(source=["a", 1]), "source must be a text"),
        (code(metadata=[]), r"cells\[0\]\.metadata must be an object"),
        (code(outputs={}), "outputs must be a list"),
        (code(outputs=[1]), r"outputs\[0\] must be an object"),
        (code(outputs=[{"output_type": "pyout"}]), "output_type"),
        (code(outputs=[{"output_type": "stream", "name": "stdout"}]), r"\.text must be"),
        (code(outputs=[{"output_type": "error"}]), "traceback"),
        (code(outputs=[{"output_type": "display_data", "data": {"text/plain": 1}}]), "text/plain"),
        (code(execution_count=-1), "execution_count"),
        (code(execution_count=True), "execution_count"),
        (code(outputs=[{}] * (MAX_OUTPUTS + 1)), "10,001 items"),
        ({"cell_type": "raw", "source": "", "attachments": {"a": 1}}, "attachments"),
    ],
)
def test_what_nbformat_does_not_allow_is_refused_with_its_place(cell: Any, place: str) -> None:
    with pytest.raises(InvalidRequest, match=place):
        read(document(cell))


def test_what_is_too_large_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_given: object, **_more: object) -> None:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(boundedjson.json, "loads", parsed)
    with pytest.raises(InvalidRequest, match="52,428,801 bytes"):
        read_ipynb(b" " * (ipynb.MAX_BYTES + 1))
    for unit in (b"{},", b'"a":', b"[],", b'"",'):
        with pytest.raises(InvalidRequest, match="too many values"):
            read_ipynb(unit * (ipynb.MAX_BYTES // len(unit)))


def test_a_large_notebook_of_nbformat_3_is_refused() -> None:
    old = {"nbformat": 3, "metadata": {"x": "y" * ipynb.MAX_OLD_BYTES}, "worksheets": []}
    with pytest.raises(InvalidRequest, match="of that format"):
        read(old)


def test_too_many_cells_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="cells"):
        read(document(*[1] * (MAX_CELLS + 1)))  # type: ignore[arg-type]


json_values = made.values


@given(
    st.fixed_dictionaries(
        {
            "nbformat": st.sampled_from([3, 4]),
            "cells": st.lists(
                json_values
                | st.fixed_dictionaries(
                    {"cell_type": st.sampled_from(["code", "raw", "x"])},
                    optional={
                        "source": json_values,
                        "metadata": json_values,
                        "outputs": json_values,
                        "id": json_values,
                        "attachments": json_values,
                    },
                ),
                max_size=3,
            ),
        },
        optional={
            "nbformat_minor": json_values,
            "metadata": json_values,
            "worksheets": json_values,
        },
    )
)
def test_whatever_is_in_it_it_is_read_or_refused(value: Any) -> None:
    try:
        notebook = read(value).notebook
    except SandboxError:
        return
    nbformat.validate(nbformat.reads(write_ipynb(notebook).decode(), as_version=4))


def test_the_kernel_of_a_notebook_is_what_its_metadata_says() -> None:
    spec = {"kernelspec": {"name": "ir", "language": "R"}}
    assert kernel_of(Notebook(metadata=spec)) == ("ir", "R")
    assert kernel_of(Notebook(metadata={"language_info": {"name": "bash"}})) == ("", "bash")
    assert kernel_of(Notebook(metadata={"kernelspec": [], "language_info": 3})) == ("", "")
