"""A notebook for a reader: brief or detailed, a page at a time, in bounds."""

from __future__ import annotations

import time

import pytest

from sandbox.errors import InvalidRequest
from sandbox.notebooks.models import Cell, Notebook
from sandbox.notebooks.pages import (
    MAX_LIMIT,
    MAX_PAGE_BYTES,
    MAX_SHOWN_OUTPUTS,
    cell_view,
    output_text,
    read_page,
)

from .notebooks import notebook

STREAM = {"output_type": "stream", "name": "stdout", "text": "\x1b[31mred\x1b[0m\n"}
PLOT = {
    "output_type": "display_data",
    "data": {"image/png": "aGk=", "text/plain": "<Figure>"},
    "metadata": {},
}
ERROR = {"output_type": "error", "ename": "E", "evalue": "no", "traceback": []}
CELL = Cell("a", "code", "\n  x = 1\ny\n", {}, (STREAM, PLOT, ERROR), 4)


def test_a_brief_view_says_what_a_cell_is() -> None:
    view = read_page(Notebook((CELL,))).cells[0]
    assert (view.index, view.cell_id, view.execution_count) == (0, "a", 4)
    assert (view.source, view.line_count) == ("x = 1", 3)
    assert view.outputs == ("stdout, 13 bytes", "image/png, text/plain", "error E: no")


def test_a_detailed_view_has_the_source_and_what_outputs_show_as_text() -> None:
    view = read_page(Notebook((CELL,)), detailed=True).cells[0]
    assert view.source == CELL.source
    assert view.outputs == ("red\n", "<Figure>\n[image/png, 4 bytes]", "E: no")


def test_pages_follow_one_another_to_the_end() -> None:
    value = notebook(*"12345")
    first, last = read_page(value, 0, 3), read_page(value, 3, 3)
    assert [cell.index for cell in (*first.cells, *last.cells)] == [0, 1, 2, 3, 4]
    assert (first.more, last.more, first.total) == (True, False, 5)
    assert read_page(value, 5).cells == ()


@pytest.mark.parametrize(("start", "limit"), [(-1, 1), (6, 1), (0, 0), (0, MAX_LIMIT + 1)])
def test_a_page_that_cannot_be_is_refused(start: int, limit: int) -> None:
    with pytest.raises(InvalidRequest):
        read_page(notebook(*"12345"), start, limit)


def test_a_page_of_long_cells_ends_early_and_says_so() -> None:
    value = Notebook(tuple(Cell(f"c{at}", "code", "x" * 15_000) for at in range(100)))
    page = read_page(value, 0, 100, detailed=True)
    assert 1 < len(page.cells) < 100
    assert page.more
    assert sum(len(cell.source) for cell in page.cells) <= MAX_PAGE_BYTES


def test_one_cell_with_too_much_of_everything_is_bounded() -> None:
    shown = tuple({**STREAM, "text": "x" * 100_000} for _ in range(1000))
    view = cell_view(0, Cell("a", "code", "y" * 1_000_000, {}, shown))
    assert len(view.source) < 20_000
    assert len(view.outputs) == MAX_SHOWN_OUTPUTS + 1
    assert view.outputs[-1] == f"[{1000 - MAX_SHOWN_OUTPUTS} more outputs]"
    assert all(len(text) < 9_000 for text in view.outputs)


def test_an_output_without_text_says_what_it_is() -> None:
    data = {"application/vnd.x+json": {"a": 1}}
    shown = {"output_type": "display_data", "data": data, "metadata": {}}
    assert output_text(shown) == "application/vnd.x+json"


@pytest.mark.timed
def test_a_notebook_of_1000_cells_is_read_brief_in_50_ms() -> None:
    value = Notebook(
        tuple(Cell(f"c{at}", "code", "x = 1\n" * 50, {}, (STREAM,)) for at in range(1000))
    )
    begin = time.perf_counter()
    for start in range(0, 1000, 200):
        read_page(value, start, 200)
    assert time.perf_counter() - begin < 0.05
