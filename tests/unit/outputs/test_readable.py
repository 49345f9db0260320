"""The richest text of a mime bundle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.readable import MAX_MADE, is_bare, readable


def bare(kind: str) -> str:
    return f"<IPython.core.display.{kind} object>"


NAMES = st.sampled_from(
    [
        *("text/plain", "text/markdown", "text/latex", "text/html", "image/svg+xml", "image/png"),
        *("application/json", "application/pdf", "application/javascript", "application/geo+json"),
        *("application/vnd.vegalite.v5+json", "application/vnd.plotly.v1+json"),
        "application/vnd.jupyter.widget-view+json",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"text/plain": bare("Latex"), "text/latex": "$E=mc^2$"}, "$E=mc^2$"),
        ({"text/plain": bare("Markdown"), "text/markdown": "# T"}, "# T"),
        ({"text/plain": bare("JSON"), "application/json": {"answer": 42}}, '{"answer":42}'),
        ({"text/plain": bare("HTML"), "text/html": "<p>cell value 17</p>"}, "cell value 17"),
        (
            {"text/plain": bare("SVG"), "image/svg+xml": "<svg><text>label 9</text></svg>"},
            "[SVG picture]\nlabel 9",
        ),
        ({"text/plain": "<a.B at 0x7f00>", "text/html": "<b>x</b>"}, "x"),
        ({"text/plain": "   a\n0  1", "text/html": "<table><tr><td>1"}, "   a\n0  1"),
        ({"text/plain": "x**2", "text/latex": "$x^2$"}, "x**2"),
        ({"text/plain": "Obj()", "text/markdown": "**Obj**"}, "**Obj**"),
        ({"text/plain": ["two ", "lines"]}, "two lines"),
        (
            {"text/plain": "alt.Chart(...)", "application/vnd.vegalite.v5+json": {"mark": "bar"}},
            "[Vega chart]\nbar",
        ),
        (
            {
                "text/plain": "Figure({ 'data': [] })",
                "application/vnd.plotly.v1+json": {"data": [{"type": "bar"}]},
                "text/html": "<script>x</script>",
            },
            "[Plotly figure]\nbar",
        ),
        (
            {
                "text/plain": "IntSlider(value=5)",
                "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
            },
            "[widget] IntSlider(value=5)",
        ),
        ({"application/vnd.jupyter.widget-view+json": {}}, "[widget]"),
        ({"application/geo+json": {"type": "Point"}}, "[GeoJSON] Point"),
        ({"application/pdf": "A" * 4000}, "[PDF, 3,000 bytes]"),
        (
            {"text/plain": bare("Javascript"), "application/javascript": "alert(1)"},
            "[JavaScript, which runs in no browser here, 8 characters]",
        ),
        (
            {"text/plain": bare("HTML"), "text/html": "<script>1</script>"},
            "[HTML that only a browser shows, 18 characters]",
        ),
        ({"text/plain": bare("Image"), "image/png": "AAAA"}, bare("Image")),
        ({"image/png": "AAAA"}, ""),
        ({}, ""),
    ],
)
def test_what_a_reader_gets_is_the_richest_form_that_can_be_read(
    data: dict[str, Any], shown: str
) -> None:
    assert readable(data) == shown


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("<IPython.core.display.Latex object>", True),
        ("<__main__.f.<locals>.Thing object at 0x7f2a>", True),
        ("<IPython.lib.display.YouTubeVideo at 0x7f2a>\n", True),
        ("<Figure size 640x480 with 1 Axes>", True),
        ("<VegaLite 5 object>", True),
        ("alt.LayerChart(...)", True),
        ("<Response [200]>", False),
        ("<p>text</p>", False),
        ("<xarray.Dataset>\nDimensions: (x: 3)", False),
        ("<a.B object at 0x1> and more", False),
        ("Thing(a=1)", False),
        ("", False),
    ],
)
def test_a_text_is_bare_when_it_names_only_a_class(text: str, is_so: bool) -> None:
    assert is_bare(text) is is_so


def test_what_is_made_of_another_form_is_bounded() -> None:
    value = ["x" * 50] * 10_000
    for data in ({"application/json": value}, {"text/html": f"<p>{'y' * 60_000}"}):
        shown = readable(data)
        assert len(shown) < MAX_MADE + 100
        assert "cut …]" in shown


def test_json_nested_without_end_is_no_harm() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert readable({"text/plain": bare("JSON"), "application/json": deep}) == bare("JSON")


@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_whatever_a_bundle_holds_a_text_comes_of_it(data: dict[str, Any]) -> None:
    assert isinstance(readable(data), str)
