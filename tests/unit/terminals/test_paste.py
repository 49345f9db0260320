"""Text as it is pasted: what is keys, and that no text ends its own paste."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.terminals.paste import BEGIN, END, is_pasted, pasted, without_marks


@pytest.mark.parametrize("text", ["a\nb", "a\n\tb\n", "all:\n", "\tall", "x\ty", "a\r\nb", "é\n漢"])
def test_text_of_several_lines_or_with_tabs_is_pasted(text: str) -> None:
    assert is_pasted(text) == (text != "all:\n")


@pytest.mark.parametrize(
    "text",
    ["", "ls", "ls\n", "ls\r\n", "\t", "\n", "\n\n", "\x03", "ihello\nyou\x1b:wq\n", "a\n\x9bb"],
)
def test_a_line_and_the_codes_of_keys_are_typed(text: str) -> None:
    assert not is_pasted(text)


def test_line_ends_at_the_end_are_pressed_as_enter() -> None:
    assert pasted("a\n\tb\n") == f"{BEGIN}a\r\tb{END}\r"
    assert pasted("a\r\nb") == f"{BEGIN}a\rb{END}"
    assert pasted("a\nb\n\n") == f"{BEGIN}a\rb{END}\r\r"


@pytest.mark.parametrize("inner", ["", BEGIN, END, BEGIN + END, "x"])
def test_a_mark_within_a_mark_is_taken_out_too(inner: str) -> None:
    split = f"a\n\x1b[20{END}1~{inner}b"
    assert END not in without_marks(split)
    assert BEGIN not in without_marks(f"\x1b[2{BEGIN}00~")


@given(st.lists(st.sampled_from(["a", "\n", "\t", "\x1b", "[", "20", "0", "1", "~", BEGIN, END])))
def test_a_paste_is_ended_by_nothing_in_it(pieces: list[str]) -> None:
    text = without_marks("".join(pieces))
    if is_pasted(text):
        sent = pasted(text)
        assert sent.startswith(BEGIN)
        assert sent.count("\x1b") == 2
        assert sent.rstrip("\r").endswith(END)
