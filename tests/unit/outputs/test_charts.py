"""The words for charts and maps."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.charts import MAX_VIEWS, chart_text, embedded_chart_text
from sandbox.outputs.plain import is_plain

VEGA = "application/vnd.vegalite.v5+json"
PLOTLY = "application/vnd.plotly.v1+json"
MAP = "application/geo+json"

BAR: dict[str, Any] = {
    "title": {"text": ["Sales", "by month"]},
    "mark": {"type": "bar"},
    "encoding": {
        "x": {"field": "date", "timeUnit": "month", "type": "temporal"},
        "y": {"field": "sales", "aggregate": "mean", "title": "Mean"},
        "color": {"value": "red"},
    },
    "data": {"name": "d"},
    "datasets": {"d": [{}] * 1200},
}
KEYS = st.sampled_from(
    [
        *("title", "text", "mark", "type", "encoding", "x", "y", "field", "bin", "data", "values"),
        *("layer", "hconcat", "spec", "datasets", "name", "layout", "xaxis", "bdata", "dtype"),
        *("features", "geometry", "properties", "marks", "url", "mode"),
    ]
)
HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        (
            VEGA,
            BAR,
            "[Vega chart] Sales by month\n"
            "bar: x = month(date) (temporal), y = mean(sales) (titled Mean); 1,200 points",
        ),
        (
            VEGA,
            {"layer": [{"mark": "line"}, {"mark": "point"}], "data": {"url": "d.csv"}},
            "[Vega chart]\nline; data from d.csv\npoint; data from d.csv",
        ),
        (
            "application/vnd.vega.v5+json",
            {"marks": [{"type": "rect"}]},
            "[Vega chart]\nrect",
        ),
        (
            PLOTLY,
            {
                "data": [
                    {"type": "bar", "name": "n", "x": [1, 2, 3], "y": [1, 2, 3]},
                    {
                        "mode": "lines",
                        "y": {"dtype": "f8", "bdata": base64.b64encode(bytes(80)).decode()},
                    },
                ],
                "layout": {
                    "title": {"text": "Heights"},
                    "xaxis": {"title": {"text": "time"}},
                    "yaxis": {"title": "m"},
                },
            },
            "[Plotly figure] Heights\nxaxis = time, yaxis = m\n"
            "bar 'n': 3 points\nscatter lines: 10 points",
        ),
        (
            MAP,
            {
                "features": [
                    {"geometry": {"type": "Point"}, "properties": {"city": "x"}},
                    {"geometry": {"type": "Point"}},
                    {"geometry": None},
                ]
            },
            "[GeoJSON] 3 features: 2 Point, 1 no geometry\nproperties: city",
        ),
        (MAP, {"type": "Polygon", "coordinates": []}, "[GeoJSON] Polygon"),
        ("application/json", {"mark": "bar"}, ""),
    ],
)
def test_a_chart_is_told_in_a_few_lines(name: str, value: Any, shown: str) -> None:
    assert chart_text(name, value) == shown


def test_a_chart_in_a_page_s_script_is_told_too() -> None:
    spec = json.dumps(BAR | {"$schema": "https://vega.github.io/schema/vega-lite/v5.20.1.json"})
    altair = (
        "<div id='v'></div><script>(function(spec, opt){ vegaEmbed(out, spec, opt)"
        f'.catch(e => {{}}); }})({spec}, {{"mode": "vega-lite"}});</script>'
    )
    plotly = (
        '<script>if (document) { Plotly.newPlot( \'id\', [{"type": "bar", "x": [1, 2]}], '
        '{"title": {"text": "Hi"}}, {"responsive": true} ) }</script>'
    )

    assert embedded_chart_text(altair) == chart_text(VEGA, BAR)
    assert embedded_chart_text(plotly) == "[Plotly figure] Hi\nbar: 2 points"
    assert embedded_chart_text("<script>})({'vega': 1})</script>") == ""
    assert embedded_chart_text("<script>Plotly.newPlot('x', [" * 1000) == ""


@pytest.mark.timed
@pytest.mark.parametrize(
    "unit", ["vegaEmbed(" + " " * 200, "})(" + " " * 100, "Plotly.react('a'," + " " * 100]
)
def test_looking_for_a_chart_holds_nothing_up(unit: str) -> None:
    page = "vega Plotly." + unit * (750_000 // len(unit))
    began = time.process_time()
    assert embedded_chart_text(page) == ""
    assert time.process_time() - began < 0.1


@given(st.sampled_from([VEGA, PLOTLY, MAP]), HOSTILE)
def test_whatever_a_chart_holds_is_made_plain_text(name: str, value: Any) -> None:
    assert is_plain(chart_text(name, value))


def test_a_chart_of_very_much_is_told_in_few_lines_all_the_same() -> None:
    deep: dict[str, Any] = {"mark": "x" * 100_000}
    for _ in range(500):
        deep = {"layer": [deep] * 2, "mark": "bar"}
    for name, value in (
        (VEGA, deep),
        (PLOTLY, {"data": [{"name": "y" * 10_000}] * 100_000}),
        (MAP, {"features": [{"properties": {"z" * 5000: 1}}] * 100_000}),
    ):
        shown = chart_text(name, value)
        assert shown.count("\n") <= MAX_VIEWS + 2
        assert len(shown) < 16_000
