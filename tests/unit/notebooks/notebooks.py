"""Notebooks for the tests of this room: made by hand, and by hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from sandbox.notebooks.models import Cell, Notebook


def notebook(*sources: str, **metadata: Any) -> Notebook:
    """Code cells with the ids a, b, c … and these sources."""
    ids = "abcdefghijklmnopqrstuvwxyz"
    return Notebook(
        tuple(Cell(ids[at], "code", source) for at, source in enumerate(sources)), metadata
    )


def ids(value: Notebook) -> str:
    """The ids of the cells, in order."""
    return " ".join(cell.id for cell in value.cells)


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
NEVER_WRITTEN = ("trusted", "signature", "orig_nbformat", "orig_nbformat_minor")
TYPED: dict[str, st.SearchStrategy[Any]] = {
    "name": st.just("a name"),
    "tags": st.lists(st.sampled_from(["a", "b"]), unique=True),
    "collapsed": st.booleans(),
    "scrolled": st.sampled_from([True, False, "auto"]),
    "format": st.just("text/plain"),
    "jupyter": st.fixed_dictionaries({"source_hidden": st.booleans()}),
    "execution": st.fixed_dictionaries({"iopub.status.busy": st.just("2026-01-01T00:00:00Z")}),
    "title": st.just("a title"),
    "authors": st.just([{"name": "somebody"}]),
    "kernelspec": st.just({"name": "python3", "display_name": "Python 3"}),
    "language_info": st.just({"name": "python", "codemirror_mode": {"name": "ipython"}}),
}
"""What nbformat gives a kind: anything else under these names is kept too, and is not valid."""


@st.composite
def _metadata(draw: st.DrawFn) -> dict[str, Any]:
    names = texts.filter(lambda key: key not in NEVER_WRITTEN) | st.sampled_from([*TYPED])
    return {
        name: draw(TYPED.get(name, values))
        for name in draw(st.lists(names, unique=True, max_size=3))
    }


metadata = _metadata()
bundles = st.dictionaries(
    st.sampled_from(["text/plain", "text/html", "image/png", "image/svg+xml"]), texts
) | st.dictionaries(st.just("application/vnd.x+json"), values)
counts = st.none() | st.integers(0, 2**31)
outputs = st.one_of(
    st.fixed_dictionaries(
        {"output_type": st.just("stream"), "name": st.just("stdout"), "text": texts}
    ),
    st.fixed_dictionaries(
        {"output_type": st.just("display_data"), "data": bundles, "metadata": metadata}
    ),
    st.fixed_dictionaries(
        {
            "output_type": st.just("execute_result"),
            "data": bundles,
            "metadata": metadata,
            "execution_count": counts,
        }
    ),
    st.fixed_dictionaries(
        {
            "output_type": st.just("error"),
            "ename": texts,
            "evalue": texts,
            "traceback": st.lists(texts, max_size=3),
        }
    ),
)
cell_ids = st.text("abcdefghijklmnopqrstuvwxyzABC0123456789_-", min_size=1, max_size=12)


@st.composite
def cells(draw: st.DrawFn, cell_id: str) -> Cell:
    """A cell of any type."""
    kind = draw(st.sampled_from(["code", "markdown", "raw"]))
    source, about = draw(texts), draw(metadata)
    if kind == "code":
        shown = tuple(draw(st.lists(outputs, max_size=3)))
        return Cell(cell_id, "code", source, about, shown, draw(counts))
    files = st.none() | st.dictionaries(texts, bundles, max_size=2)
    return Cell(cell_id, kind, source, about, attachments=draw(files))


@st.composite
def notebooks(draw: st.DrawFn, most: int = 6) -> Notebook:
    """A notebook of a few cells."""
    names = draw(st.lists(cell_ids, unique=True, max_size=most))
    return Notebook(tuple(draw(cells(name)) for name in names), draw(metadata))
