"""Markup made text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.markup import MAX_MARKUP, drawing_text, page_text
from sandbox.outputs.plain import is_plain
from sandbox.outputs.tables import MAX_ROWS

TAGS = st.sampled_from(
    [
        *("<p>", "</p>", "<table>", "</table>", "<tr>", "<td>", "<th>", "</td>", "<li>", "<ol>"),
        *("</ol>", "<pre>", "</pre>", "<a href='x'>", "</a>", "<script>", "</script>", "<style>"),
        *("<title>", "</title>", "<img alt=x>", "<!--", "-->", "<![CDATA[", "<!x", "<?", "<", ">"),
        *("&amp;", "&#x202e;", "&#27;[31m", "&#0;", "&", "word", "\n", "<text>", "<g id=text_1>"),
    ]
)


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("<p>cell value 17</p>", "cell value 17"),
        ("<h2>A &amp; B</h2>text<br>more  \n words", "## A & B\ntext\nmore words"),
        ("<ul><li>one<li>two<ol><li>a</li></ol></ul>", "- one\n- two\n  1. a"),
        ("<pre>a\n  b\n</pre>", "a\n  b"),
        ("<script>if (a < b) alert('<p>x</p>')</script>seen", "seen"),
        ("<STYLE>p > a {}</STYLE>seen<style>", "seen"),
        ("<title>page</title><noscript>no</noscript>seen", "seen"),
        ("<a href='https://e.org/x'>link</a>", "link (https://e.org/x)"),
        ("<a href='out.csv'>out.csv</a>", "out.csv"),
        ("<a href='#here'>link</a>", "link"),
        ("<img src='data:image/png;base64,AAAA' alt='a cat'>", "[picture: a cat]"),
        ("<iframe src='https://e.org'></iframe>", "[frame: https://e.org]"),
        ("<audio controls><source src='data:audio/wav;base64,A'></audio>", "[audio]"),
        ("&#x202e;&#27;red", "\\u202ered"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("<b>bold", "bold"),
        ("<![nonsense", ""),
        ("", ""),
    ],
)
def test_html_is_read_as_its_text(markup: str, shown: str) -> None:
    assert page_text(markup) == shown


def test_a_data_frame_is_rows_with_a_note_of_those_left_out() -> None:
    rows = "".join(f"<tr><th>{n}</th><td>{n * n}</td></tr>" for n in range(100))
    head = "<thead><tr><th></th><th>a</th></tr></thead>"
    shown = page_text(
        f"<div><style scoped>.x{{}}</style><table class='dataframe'>{head}<tbody>{rows}</tbody>"
        "</table><p>100 rows × 1 columns</p></div>"
    ).split("\n")

    assert shown[:3] == [" | a", "--- | ---", "0 | 0"]
    assert shown[-2:] == ["99 | 9801", "100 rows × 1 columns"]
    assert len(shown) == MAX_ROWS + 3
    assert sum("rows left out" in line for line in shown) == 1


def test_a_table_in_a_cell_is_words_of_it() -> None:
    inner = "<table><tr><td>x</td></tr><tr><td>y</td></tr></table>"
    assert page_text(f"<table><tr><td>a{inner}</td><td>b</td></tr></table>") == "a x; y | b"


def test_of_very_long_html_the_beginning_and_the_end_are_read() -> None:
    shown = page_text("<p>BEGIN</p>" + "<p>word</p>" * MAX_MARKUP + "<p>END</p>")
    assert shown.startswith("BEGIN\nword\nword")
    assert "\nword\nEND\n[… " in shown
    assert page_text("<p></p>" * MAX_MARKUP) == ""
    assert shown.endswith(" characters of HTML left out in between …]")


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("<svg><text>label 9</text></svg>", "[SVG picture]\nlabel 9"),
        ('<svg width="3in" height="2in"><title>T</title></svg>', "[SVG picture, 3in × 2in] T"),
        ('<svg viewBox="0 0 10 20"><desc>d</desc></svg>', "[SVG picture, 10 × 20] d"),
        ("<svg><text>a <tspan>b</tspan></text><script>x</script></svg>", "[SVG picture]\na b"),
        ('<svg><g id="text_1"><!-- 0.5 --><path d=""/></g><!-- no --></svg>', "[SVG picture]\n0.5"),
        ("no markup", "[SVG picture]"),
    ],
)
def test_of_a_drawing_size_title_and_labels_are_told(markup: str, shown: str) -> None:
    assert drawing_text(markup) == shown


@given(st.lists(TAGS, max_size=60).map("".join))
def test_whatever_comes_is_made_plain_text(markup: str) -> None:
    for made in (page_text, drawing_text):
        assert is_plain(made(markup))


@pytest.mark.timed
@pytest.mark.parametrize(
    "unit",
    [
        *("<", "<a ", "<a b='", "<!--", "<![", "</", "<?", "<p>", "<table><tr><td>", "<ol><li>"),
        *("<script></script>", "<script>", "<style", "<a =", "&", "&#", "<text>a<b", "<img>"),
        *("<a href=x>y</a>", "<pre>\n", "<title>", "'\"= ", "<td>x", "<div " + "a=b " * 30),
    ],
)
def test_hostile_markup_is_read_in_bounded_time(unit: str) -> None:
    markup = unit * ((1 << 20) // len(unit))
    began = time.thread_time()
    page_text(markup)
    drawing_text(markup)
    assert time.thread_time() - began < 1.0
