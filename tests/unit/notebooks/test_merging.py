"""Two versions of a notebook made one, or refused with what contradicts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import Conflict
from sandbox.notebooks import editing
from sandbox.notebooks.merging import merge
from sandbox.notebooks.models import Cell, Notebook

from . import notebooks as made
from .notebooks import ids, notebook

BASE = notebook("1", "2", "3", "4", kept=1)


def inserted(value: Notebook, index: int, *names: str) -> Notebook:
    for name in reversed(names):
        value = editing.insert(value, index, "code", name, cell_id=name).notebook
    return value


def moved(value: Notebook, ref: str, target: int) -> Notebook:
    return editing.move(value, ref, target).notebook


def deleted(value: Notebook, *refs: str) -> Notebook:
    return editing.delete(value, refs).notebook


def said(value: Notebook, ref: str, source: str) -> Notebook:
    return editing.overwrite(value, ref, source).notebook


def ran(value: Notebook, ref: str, count: int) -> Notebook:
    at = value.index(ref)
    shown = ({"output_type": "stream", "name": "stdout", "text": str(count)},)
    return value.with_cell(at, replace(value.cells[at], outputs=shown, execution_count=count))


def about(value: Notebook, **metadata: int) -> Notebook:
    return replace(value, metadata={**value.metadata, **metadata})


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        (said(BASE, "a", "x"), said(BASE, "b", "y"), said(said(BASE, "a", "x"), "b", "y")),
        (said(BASE, "a", "x"), ran(BASE, "a", 1), ran(said(BASE, "a", "x"), "a", 1)),
        (said(BASE, "a", "x"), said(BASE, "a", "x"), said(BASE, "a", "x")),
        (said(BASE, "a", "x"), moved(BASE, "a", 3), moved(said(BASE, "a", "x"), "a", 3)),
        (said(BASE, "a", "x"), deleted(BASE, "b"), deleted(said(BASE, "a", "x"), "b")),
        (deleted(BASE, "b"), deleted(BASE, "b", "c"), deleted(BASE, "b", "c")),
        (inserted(BASE, 0, "x"), inserted(BASE, 4, "y"), inserted(inserted(BASE, 4, "y"), 0, "x")),
        (inserted(BASE, 2, "x"), inserted(BASE, 2, "y"), inserted(BASE, 2, "x", "y")),
        (inserted(BASE, 2, "x"), inserted(BASE, 2, "x"), inserted(BASE, 2, "x")),
        (about(BASE, x=1), about(BASE, y=2), about(BASE, x=1, y=2)),
        (about(BASE, kept=2), said(BASE, "a", "x"), about(said(BASE, "a", "x"), kept=2)),
    ],
)
def test_changes_that_do_not_touch_are_both_taken(
    ours: Notebook, theirs: Notebook, merged: Notebook
) -> None:
    assert merge(BASE, ours, theirs) == merged


@pytest.mark.parametrize(
    ("ours", "theirs", "place"),
    [
        (said(BASE, "a", "x"), said(BASE, "a", "y"), r"cell a \(source\)"),
        (ran(BASE, "a", 1), ran(BASE, "a", 2), r"cell a \(outputs\)"),
        (said(BASE, "a", "x"), deleted(BASE, "a"), r"cell a \(deleted"),
        (deleted(BASE, "a"), said(BASE, "a", "x"), r"cell a \(deleted"),
        (moved(BASE, "a", 3), moved(BASE, "d", 0), "the order of cells"),
        (inserted(BASE, 0, "x"), said(inserted(BASE, 0, "x"), "x", "y"), r"cell x \(inserted"),
        (about(BASE, kept=2), about(BASE, kept=3), "the notebook's metadata"),
    ],
)
def test_changes_that_contradict_are_refused_and_named(
    ours: Notebook, theirs: Notebook, place: str
) -> None:
    with pytest.raises(Conflict, match=place):
        merge(BASE, ours, theirs)


def test_a_new_cell_stands_behind_what_is_left_of_those_before_it() -> None:
    ours = inserted(BASE, 2, "x")  # behind b
    theirs = deleted(moved(BASE, "a", 2), "b")
    assert ids(theirs) == "c a d"
    assert ids(merge(BASE, ours, theirs)) == "c a x d"


def test_many_contradictions_are_told_in_bounds() -> None:
    base = Notebook(tuple(Cell(f"c{at}", "code", "1") for at in range(100)))
    sides = [
        Notebook(tuple(replace(cell, source=text) for cell in base.cells)) for text in ("2", "3")
    ]
    with pytest.raises(Conflict, match=r"and 92 more") as caught:
        merge(base, *sides)
    assert len(caught.value.message) < 500


@given(made.notebooks(), made.notebooks())
def test_where_one_side_changed_nothing_the_other_is_taken(base: Notebook, other: Notebook) -> None:
    assert merge(base, other, base) == other
    assert merge(base, base, other) == other
    assert merge(base, other, other) == other


sources = st.sampled_from(["x", "y", "z"])


@st.composite
def disjoint(draw: st.DrawFn) -> tuple[Notebook, Notebook, Notebook]:
    """A notebook and two edits of it that touch different cells."""
    base = notebook(*"12345678")
    names = draw(st.permutations("abcdefgh"))
    sides = []
    for side, mine in (("ours", names[:4]), ("theirs", names[4:])):
        value = base
        for name in mine:
            match draw(st.integers(0, 4)):
                case 0:
                    value = said(value, name, draw(sources))
                case 1:
                    value = deleted(value, name)
                case 2:
                    value = ran(value, name, draw(st.integers(1, 9)))
                case 3:
                    value = inserted(value, value.index(name), f"{side}-{name}")
                case _:
                    pass
        sides.append(value)
    return base, sides[0], sides[1]


@given(disjoint())
def test_a_merge_of_disjoint_edits_has_both_whoever_comes_first(
    versions: tuple[Notebook, Notebook, Notebook],
) -> None:
    base, ours, theirs = versions
    merged = merge(base, ours, theirs)
    other = merge(base, theirs, ours)
    cells = {cell.id: cell for cell in merged.cells}
    assert cells == {cell.id: cell for cell in other.cells}
    before = {cell.id: cell for cell in base.cells}
    for side in (ours, theirs):
        after = {cell.id: cell for cell in side.cells}
        changed = {name for name in {**before, **after} if before.get(name) != after.get(name)}
        assert {name: cells.get(name) for name in changed} == {
            name: after.get(name) for name in changed
        }
        order = [cell.id for cell in merged.cells if cell.id in after]
        assert order == [cell.id for cell in side.cells if cell.id in cells]
