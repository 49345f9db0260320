"""What cannot be seen is escaped, and what scripts need is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.invisible import visible, without_invisible
from sandbox.outputs.plain import PlainText, plain
from sandbox.terminals.screen import Display

TAGS = "".join(chr(0xE0000 + ord(letter)) for letter in "rm -rf")
ENGLAND = "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in "gbeng") + "\U000e007f"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("if a\u202e == b", "if a\\u202e == b"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("pass\u200bword", "pass\\u200bword"),
        ("ab\u200dcd\u200c", "ab\\u200dcd\\u200c"),
        ("\ufefffirst", "\\ufefffirst"),
        ("a\u00adb", "a\\u00adb"),
        ("x\U000e0072", "x\\U000e0072"),
        ("x\ufe0f\ufe01", "x\\ufe0f\\ufe01"),
        ("abc\u200f", "abc\\u200f"),
        ("one\u2028two", "one\\u2028two"),
        ("\U0001f3f4" + TAGS, "\U0001f3f4" + "".join(f"\\U{ord(c):08x}" for c in TAGS)),
    ],
)
def test_what_hides_is_shown_as_its_escape(raw: str, shown: str) -> None:
    assert visible(raw) == shown
    assert plain(raw) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain ASCII",
        "\U0001f469\u200d\U0001f4bb",
        "\U0001f3f3\ufe0f\u200d\U0001f308",
        "\U0001f468\U0001f3fd\u200d\U0001f33e",
        "\u2764\ufe0f",
        "1\ufe0f\u20e3",
        ENGLAND,
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0915\u094d\u200d\u0937",
        "\u05d0\u200f!",
        "e\u0301 \u0e01\u0e33 \u0928\u093f",
        "\u845b\U000e0100",
        "Stra\u00dfe \u6f22\u5b57 \u0416",
    ],
)
def test_what_scripts_and_emoji_need_is_left_alone(text: str) -> None:
    assert visible(text) == text
    assert plain(text) == text


def test_no_two_of_them_hide_behind_one_letter() -> None:
    assert visible("\u0915\u200d\u200d") == "\u0915\u200d\\u200d"
    assert visible("\U0001f469\u200d\u200d") == "\U0001f469\u200d\\u200d"
    assert visible("\u2764\ufe0f\ufe0f") == "\u2764\ufe0f\\ufe0f"


@given(
    st.text(st.sampled_from("ab\u0915\u05d0\u200c\u200d\u200f\u202e\ufe0f\U000e0041\U0001f3f4\n"))
)
def test_what_is_shown_stays_as_it_is(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    editor = PlainText()
    assert "".join(map(editor.feed, text)) + editor.finish() == plain(text)


def test_a_screen_shows_it_and_goes_on_after_it() -> None:
    display = Display(2, 60)
    display.write("if a\u202e == b # \u200bhidden \U0001f469\u200d\U0001f4bb end".encode())
    while not display.is_drawn:
        display.draw(1)

    line = display.lines()[0]
    assert line.startswith("if a\\u202e == b # \\u200bhidden ")
    assert line.endswith("end")
    assert without_invisible("\U0001f469\u200d\U0001f4bb") == "\U0001f469\U0001f4bb"
