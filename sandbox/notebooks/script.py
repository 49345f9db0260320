"""A notebook as a script for IPython, for readers and for ``ipython script.py``.

Cells begin with ``# %%``, as editors know them.
https://jupytext.readthedocs.io/en/latest/formats-scripts.html
"""

from __future__ import annotations

from sandbox.notebooks.models import SKIP, Cell, Notebook


def to_script(notebook: Notebook) -> str:
    """Its cells in order; what is no code, or is not to be run, is a comment."""
    return "\n".join(map(_cell, notebook.cells))


def _cell(cell: Cell) -> str:
    if cell.cell_type != "code":
        return f"# %% [{cell.cell_type}]\n{_comment(cell.source)}"
    if SKIP in cell.tags:
        return f"# %% {SKIP}\n{_comment(cell.source)}"
    first, _, rest = cell.source.partition("\n")
    if not first.startswith("%%"):
        return f"# %%\n{cell.source}\n"
    name, _, line = first[2:].partition(" ")
    return f"# %%\nget_ipython().run_cell_magic({name!r}, {line!r}, {rest!r})\n"


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())
