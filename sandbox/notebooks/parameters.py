"""Parameters of a notebook: the cell that sets them, behind the one tagged ``parameters``.

As papermill does it, so that notebooks made for it run as they do there.
https://papermill.readthedocs.io/en/latest/usage-parameterize.html
"""

from __future__ import annotations

import keyword
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace

from sandbox.errors import InvalidRequest
from sandbox.notebooks.models import Cell, Notebook, new_cell_id

PARAMETERS = "parameters"
INJECTED = "injected-parameters"
MAX_PARAMETERS = 200

Scalar = str | int | float | bool | None

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,100}")
_WORDS: Mapping[str, Scalar] = {
    **{"True": True, "true": True, "False": False, "false": False},
    **{"None": None, "null": None, "~": None},
}


def parse_parameter(text: str) -> tuple[str, Scalar]:
    """The name and value of ``name=value``: a number, true, false or null where it reads as one.

    Raises:
        InvalidRequest: It is no such text.
    """
    name, sign, value = text.partition("=")
    if not sign or not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InvalidRequest(
            f"{text[:80]!r} is no parameter: it must be name=value, with the name of a variable."
        )
    return name, _scalar(value)


def _scalar(text: str) -> Scalar:
    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def inject(notebook: Notebook, parameters: Mapping[str, Scalar], language: str) -> Notebook:
    """The notebook with a cell that sets these parameters; as it was when there are none.

    The cell replaces one that is there, else stands behind the one tagged ``parameters``, else
    comes first.

    Raises:
        InvalidRequest: The language is not known, or there are too many parameters.
    """
    if not parameters:
        return notebook
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidRequest(f"There are {len(parameters)} parameters; {MAX_PARAMETERS} may be.")
    assign = _ASSIGNMENTS.get(language.lower())
    if assign is None:
        raise InvalidRequest(
            f"Parameters cannot be set in {language[:40]!r}.",
            remedy=f"They can in {', '.join(_ASSIGNMENTS)}.",
        )
    lines = [assign(name, value) for name, value in parameters.items()]
    source = "".join(f"{line}\n" for line in ("# Parameters", *lines))
    made = Cell(new_cell_id(notebook), "code", source, {"tags": [INJECTED]})
    cells = notebook.cells
    if (at := _tagged(notebook, INJECTED)) is not None:
        return notebook.with_cell(at, replace(made, id=cells[at].id))
    after = _tagged(notebook, PARAMETERS)
    at = 0 if after is None else after + 1
    return replace(notebook, cells=(*cells[:at], made, *cells[at:]))


def has_parameters(notebook: Notebook) -> bool:
    """Whether a cell is tagged ``parameters``."""
    return _tagged(notebook, PARAMETERS) is not None


def _tagged(notebook: Notebook, tag: str) -> int | None:
    return next((at for at, cell in enumerate(notebook.cells) if tag in cell.tags), None)


def _python(name: str, value: Scalar) -> str:
    if (isinstance(value, float) and value in (float("inf"), float("-inf"))) or value != value:
        return f"{name} = float({str(value)!r})"
    return f"{name} = {value!r}"


def _bash(name: str, value: Scalar) -> str:
    if isinstance(value, bool):
        return f"{name}={str(value).lower()}"
    return f"{name}={'' if value is None else shlex.quote(str(value))}"


_ASSIGNMENTS: Mapping[str, Callable[[str, Scalar], str]] = {"python": _python, "bash": _bash}
