"""Edits of a notebook: what they make, what they say, and what they refuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidRequest, NotFound, QuotaExceeded, SandboxError
from sandbox.notebooks import editing
from sandbox.notebooks.celldiff import MAX_DIFF_BYTES, text_diff
from sandbox.notebooks.models import MAX_CELLS, MAX_SOURCE, Cell, Notebook

from . import notebooks as made
from .notebooks import ids, notebook

ABCD = notebook("1", "2", "3", "4")


@pytest.mark.parametrize(
    ("index", "after"), [(0, "x a b c d"), (2, "a b x c d"), (4, "a b c d x"), (-1, "a b c d x")]
)
def test_a_cell_is_inserted_before_an_index_or_at_the_end(index: int, after: str) -> None:
    edited = editing.insert(ABCD, index, "markdown", "# T\n", cell_id="x")
    assert ids(edited.notebook) == after
    assert edited.cell_ids == ("x",)
    assert edited.diff == "--- /dev/null\n+++ b/cells/x\n@@ -0,0 +1 @@\n+# T\n"
    assert ids(ABCD) == "a b c d"


def test_an_inserted_cell_gets_an_id_of_its_own() -> None:
    value = notebook("1")
    for _ in range(20):
        value = editing.insert(value, -1, "code", "x").notebook
    assert len({cell.id for cell in value.cells}) == 21


def test_a_source_is_overwritten_and_outputs_stay() -> None:
    shown = ({"output_type": "stream", "name": "stdout", "text": "1"},)
    value = Notebook((Cell("a", "code", "x = 1\ny = 2\n", {"k": 1}, shown, 3),))
    edited = editing.overwrite(value, "a", "x = 1\ny = 3\n")
    assert edited.notebook.cells == (Cell("a", "code", "x = 1\ny = 3\n", {"k": 1}, shown, 3),)
    assert edited.diff == (
        "--- a/cells/a\n+++ b/cells/a\n@@ -1,2 +1,2 @@\n x = 1\n-y = 2\n+y = 3\n"
    )
    assert editing.overwrite(value, 0, "x = 1\ny = 2\n").diff == ""


def test_an_exact_text_is_replaced() -> None:
    value = notebook("a = 1\nb = 1\n")
    assert editing.edit(value, 0, "a = 1", "a = 2").notebook.cells[0].source == "a = 2\nb = 1\n"
    every = editing.edit(value, "a", "1", "2", replace_all=True)
    assert every.notebook.cells[0].source == "a = 2\nb = 2\n"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("1", "2", "2 times"),
        ("absent", "2", "does not contain"),
        ("", "2", "nothing to replace"),
        ("1", "1", "nothing to replace"),
        ("a", "x" * MAX_SOURCE, "characters"),
        ("a", "\ud800", "UTF-8"),
    ],
)
def test_an_ambiguous_or_impossible_edit_is_refused(old: str, new: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        editing.edit(notebook("a = 1\nb = 1\n"), 0, old, new)


@pytest.mark.parametrize(
    ("ref", "target", "after"),
    [
        (0, 2, "b c a d"),
        ("d", 0, "d a b c"),
        ("a", "d", "b c d a"),
        (1, 1, "a b c d"),
        (-1, -4, "d a b c"),
    ],
)
def test_a_moved_cell_has_the_targets_index(ref: int | str, target: int | str, after: str) -> None:
    edited = editing.move(ABCD, ref, target)
    assert ids(edited.notebook) == after
    assert bool(edited.diff) == (after != "a b c d")


def test_a_move_is_shown_in_the_order_of_cells() -> None:
    diff = editing.move(ABCD, "a", 1).diff
    assert diff == "--- a/order\n+++ b/order\n@@ -1,4 +1,4 @@\n+b 2\n a 1\n-b 2\n c 3\n d 4\n"


def test_cells_are_deleted_by_the_indices_of_before() -> None:
    edited = editing.delete(ABCD, [0, 2, "d", -1])
    assert ids(edited.notebook) == "b"
    assert edited.cell_ids == ("a", "c", "d")
    assert edited.diff.count("+++ /dev/null") == 3


def test_outputs_are_cleared_of_those_named_or_of_all() -> None:
    shown = ({"output_type": "error", "ename": "E", "evalue": "", "traceback": []},)
    value = Notebook(tuple(Cell(name, "code", "1", {}, shown, 2) for name in "ab"))
    one = editing.clear(value, ["b"])
    assert [len(cell.outputs) for cell in one.notebook.cells] == [1, 0]
    assert "-execution_count 2\n-error\n" in one.diff
    every = editing.clear(value)
    assert every.notebook == notebook("1", "1")
    assert editing.clear(every.notebook).diff == ""


@pytest.mark.parametrize("ref", [4, -5, "gone", "", 10**20])
def test_a_cell_that_is_not_there_is_refused_by_every_edit(ref: int | str) -> None:
    for edit in (
        lambda: editing.overwrite(ABCD, ref, "x"),
        lambda: editing.edit(ABCD, ref, "1", "2"),
        lambda: editing.move(ABCD, ref, 0),
        lambda: editing.move(ABCD, 0, ref),
        lambda: editing.delete(ABCD, [0, ref]),
        lambda: editing.clear(ABCD, [0, ref]),
    ):
        with pytest.raises(NotFound, match="no cell"):
            edit()


@pytest.mark.parametrize("index", [5, -2])
def test_a_place_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(NotFound, match="0 to 4"):
        editing.insert(ABCD, index, "code", "")


def test_what_cannot_be_a_cell_is_not_inserted() -> None:
    full = Notebook(tuple(Cell(str(at), "code", "") for at in range(MAX_CELLS)))
    for refused, kind in (
        (lambda: editing.insert(full, 0, "code", ""), QuotaExceeded),
        (lambda: editing.insert(ABCD, 0, "code", "", cell_id="a"), InvalidRequest),
        (lambda: editing.insert(ABCD, 0, "code", "", cell_id="a b"), InvalidRequest),
        (lambda: editing.insert(ABCD, 0, "code", "x" * (MAX_SOURCE + 1)), InvalidRequest),
        (lambda: editing.insert(ABCD, 0, "heading", ""), InvalidRequest),  # type: ignore[arg-type]
    ):
        with pytest.raises(kind):
            refused()


class Edits:
    """Edits that hypothesis makes, whether or not they can be done."""

    refs = st.integers(-8, 8) | st.sampled_from("abcdefgh")
    one = st.one_of(
        st.tuples(st.just("insert"), st.integers(-2, 8), made.texts),
        st.tuples(st.just("overwrite"), refs, made.texts),
        st.tuples(st.just("edit"), refs, made.texts, made.texts),
        st.tuples(st.just("move"), refs, refs),
        st.tuples(st.just("delete"), st.lists(refs, max_size=2)),
        st.tuples(st.just("clear"), st.lists(refs, max_size=2)),
    )


@given(st.lists(Edits.one, max_size=12))
def test_ids_are_never_doubled_and_survive_whatever_is_edited(edits: list[tuple[str, ...]]) -> None:
    value = notebook("1", "2", "3", "4", "5")
    for name, *arguments in edits:
        before = {cell.id: cell for cell in value.cells}
        try:
            if name == "insert":
                edited = editing.insert(value, arguments[0], "code", arguments[1])  # type: ignore[arg-type]
            else:
                edited = getattr(editing, name)(value, *arguments)
        except SandboxError:
            continue
        after = {cell.id: cell for cell in edited.notebook.cells}
        assert len(after) == len(edited.notebook.cells)
        untouched = before.keys() - set(edited.cell_ids)
        assert all(after[cell_id] is before[cell_id] for cell_id in untouched)
        if name == "move":
            assert after == before
        value = edited.notebook


# --- diffs

line = st.sampled_from(["a", "b", "c", ""])
lines = st.lists(line, max_size=30).map("\n".join) | st.lists(line, max_size=150).map("\n".join)


@given(lines, lines)
def test_a_diff_is_one_that_leads_from_the_old_text_to_the_new(old: str, new: str) -> None:
    old, new = old + "\n", new + "\n"
    diff = text_diff("a", "b", old, new)
    assert bool(diff) == (old != new)
    assert applied(diff, old) == new


def applied(diff: str, old: str) -> str:
    """A text with a diff applied, whose context and place must fit."""
    result, source, at = [], old.split("\n")[:-1], 0
    for told in diff.split("\n")[2:-1]:
        if told.startswith("@@"):
            where, count = (told.split()[1][1:] + ",1").split(",")[:2]
            start = int(where) - (count != "0")
            result += source[at:start]
            at = start
        elif told.startswith("+"):
            result.append(told[1:])
        else:
            assert source[at] == told[1:]
            if told.startswith(" "):
                result.append(told[1:])
            at += 1
    return "\n".join([*result, *source[at:]]) + "\n"


def test_a_change_of_the_last_line_end_alone_is_a_change() -> None:
    diff = editing.overwrite(notebook("x"), 0, "x\n").diff
    assert diff.endswith("@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+x\n")


def test_a_diff_is_bounded() -> None:
    value = notebook("x\n" * 200_000)
    diff = editing.overwrite(value, 0, "y\n" * 200_000).diff
    assert len(diff) < MAX_DIFF_BYTES + 200
    many = Notebook(tuple(Cell(f"c{at}", "code", "x" * 1000) for at in range(1000)))
    assert len(editing.delete(many, range(1000)).diff) < MAX_DIFF_BYTES + 200
