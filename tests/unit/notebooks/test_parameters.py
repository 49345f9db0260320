"""Parameters of a notebook: what is read from the command line, and the cell that sets them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import InvalidRequest
from sandbox.notebooks.models import Notebook
from sandbox.notebooks.parameters import has_parameters, inject, parse_parameter

from .notebooks import ids, notebook


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=1", 1),
        ("x=-2", -2),
        ("x=1.5", 1.5),
        ("x=1e3", 1000.0),
        ("x=True", True),
        ("x=false", False),
        ("x=None", None),
        ("x=null", None),
        ("x=", ""),
        ("x=yes", "yes"),
        ("x=a=b", "a=b"),
        ("x=2026-01-01", "2026-01-01"),
        ("x=[1, 2]", "[1, 2]"),
        ("x=x; import os", "x; import os"),
    ],
)
def test_a_value_is_what_it_reads_as(text: str, value: Any) -> None:
    name, found = parse_parameter(text)
    assert name == "x"
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["", "x", "=1", "a b=1", "1x=1", "class=1", "x;y=1", "é=1"])
def test_what_names_no_variable_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="name=value"):
        parse_parameter(text)


def tagged(value: Notebook, ref: str, tag: str) -> Notebook:
    at = value.index(ref)
    return value.with_cell(at, replace(value.cells[at], metadata={"tags": [tag]}))


PLAIN = notebook("a = 1", "b = 2", "c = 3")


def test_the_cell_stands_behind_the_one_tagged_parameters() -> None:
    made = inject(tagged(PLAIN, "b", "parameters"), {"x": 1, "y": "it's"}, "python")
    assert ids(made).split()[:2] == ["a", "b"]
    cell = made.cells[2]
    assert cell.source == '# Parameters\nx = 1\ny = "it\'s"\n'
    assert cell.tags == {"injected-parameters"}


def test_it_comes_first_where_no_cell_is_tagged() -> None:
    assert not has_parameters(PLAIN)
    assert inject(PLAIN, {"x": 1}, "python").cells[1:] == PLAIN.cells


def test_it_replaces_the_one_of_an_earlier_run_and_keeps_its_id() -> None:
    once = inject(tagged(PLAIN, "a", "parameters"), {"x": 1}, "python")
    again = inject(once, {"x": 2}, "Python")
    assert ids(again) == ids(once)
    assert again.cells[1].source == "# Parameters\nx = 2\n"


def test_without_parameters_nothing_is_injected() -> None:
    assert inject(PLAIN, {}, "fortran") is PLAIN


def test_a_language_that_is_not_known_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="fortran"):
        inject(PLAIN, {"x": 1}, "fortran")


def test_bash_gets_assignments_of_its_own() -> None:
    made = inject(PLAIN, {"a": "x; rm -rf /", "b": True, "c": 2, "d": None}, "bash")
    assert made.cells[0].source == "# Parameters\na='x; rm -rf /'\nb=true\nc=2\nd=\n"


scalars = st.text() | st.integers() | st.floats() | st.booleans() | st.none()


@given(scalars)
def test_python_has_the_value_that_was_given(value: Any) -> None:
    names: dict[str, Any] = {}
    exec(inject(PLAIN, {"x": value}, "python").cells[0].source, names)  # noqa: S102  # the point
    same_nan = isinstance(value, float) and math.isnan(value) and math.isnan(names["x"])
    assert same_nan or (names["x"] == value and type(names["x"]) is type(value))
