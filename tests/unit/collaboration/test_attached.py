"""A document that somebody else keeps: edits are as small as in one of our own."""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_ydoc import YNotebook
from pycrdt import Doc, Map

from sandbox.collaboration import attached
from sandbox.collaboration.attached import AttachedDocument
from sandbox.errors import InvalidRequest, NotFound
from sandbox.notebooks import editing


@pytest.fixture
def doc() -> Doc[Any]:
    return Doc()


@pytest.fixture
def kept(doc: Doc[Any]) -> YNotebook:
    """As jupyter-collaboration keeps it."""
    notebook = YNotebook(doc)
    cell = {"cell_type": "code", "source": "a = 1", "metadata": {}, "outputs": [], "id": "one"}
    notebook.set({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    return notebook


def test_what_is_in_it_is_read_and_read_again_when_others_change_it(
    doc: Doc[Any], kept: YNotebook
) -> None:
    document = AttachedDocument(doc)
    first = document.read()
    assert [(cell.id, cell.source) for cell in first.cells] == [("one", "a = 1")]
    assert document.read() is first
    source = kept.ycells[0]["source"]
    source += "\nb = 2"
    assert document.read().cells[0].source == "a = 1\nb = 2"


def test_an_edit_is_in_it_at_once_and_keeps_a_cell_that_stays(
    doc: Doc[Any], kept: YNotebook
) -> None:
    document = AttachedDocument(doc)
    staying = kept.ycells[0]
    document.edit(lambda notebook: editing.insert(notebook, 0, "markdown", "# Title"))
    document.edit(lambda notebook: editing.edit(notebook, "one", "1", "10", replace_all=False))
    assert [str(cell["source"]) for cell in kept.ycells] == ["# Title", "a = 10"]
    assert str(staying["source"]) == "a = 10"


def test_an_edit_that_fails_changes_nothing(doc: Doc[Any], kept: YNotebook) -> None:
    document = AttachedDocument(doc)
    before = kept.get()
    with pytest.raises(NotFound):
        document.edit(lambda notebook: editing.overwrite(notebook, "none", "x"))
    assert kept.get() == before


def test_a_cell_that_is_gone_is_changed_no_more(doc: Doc[Any], kept: YNotebook) -> None:
    document = AttachedDocument(doc)
    assert document.change_cell("none", lambda cell: cell) is None
    assert document.change_cell("one", lambda cell: cell, "running") is not None
    assert kept.ycells[0]["execution_state"] == "running"


def test_a_document_of_too_many_cells_is_not_read(
    doc: Doc[Any], kept: YNotebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached, "MAX_CELLS", 2)
    kept.ycells.extend([Map({"cell_type": "raw"}) for _ in range(2)])
    with pytest.raises(InvalidRequest):
        AttachedDocument(doc).read()


def test_it_is_observed_no_more_when_it_is_closed(doc: Doc[Any], kept: YNotebook) -> None:
    document = AttachedDocument(doc)
    first = document.read()
    document.close()
    document.close()
    kept.ycells.append(Map({"cell_type": "raw"}))
    assert document.read() is first
