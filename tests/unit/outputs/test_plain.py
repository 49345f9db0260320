"""Text for terminals made plain."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.plain import MAX_LINE, MAX_SEQUENCE, PlainText, clip, is_plain, plain

PIECES = st.sampled_from(
    [
        *("a", "bc", "é", "漢", " ", "\n", "\t", "\r", "\r\n", "\b", "\x07", "\x00", "\x7f"),
        *("\x1b", "\x1b[", "\x1b[31m", "\x1b[0K", "\x1b[2K", "\r\x1b[K", "\x1b]0;title", "\x07"),
        *("\x1b\\", "\x1bP1$r", "\x1b(B", "\x1b=", "m", "0", ";", "K", "\ud800", "\x85", "\x9b"),
    ]
)
TEXTS = st.lists(PIECES, max_size=40).map("".join)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38;2;1;2;3mtrue\x1b[m colour", "true colour"),
        ("\x1b]0;a title\x07after", "after"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice\x1b\\text", "text"),
        ("\x9b31mC1\x9b0m", "C1"),
        ("\x1b(Bcharset\x1b=", "charset"),
        ("nul\x00 bell\x07 del\x7f", "nul bell del"),
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        ("10%\r20%\r30%\n", "30%\n"),
        ("longer line\rshort", "shortr line"),
        ("longer line\r\x1b[Kshort", "short"),
        ("gone\x1b[2K\rkept", "kept"),
        ("|\b/\b-\bdone", "done"),
        ("\b\bnothing to erase", "nothing to erase"),
        ("lone \ud800 surrogate", "lone ? surrogate"),
        ("an unfinished \x1b[3", "an unfinished "),
    ],
)
def test_a_text_looks_as_a_reader_saw_it_last(raw: str, shown: str) -> None:
    assert plain(raw) == shown


@given(TEXTS)
def test_nothing_but_text_is_left_whatever_comes(raw: str) -> None:
    shown = plain(raw)

    assert is_plain(shown)
    assert plain(shown) == shown


@given(TEXTS, st.lists(st.integers(0, 80), max_size=6))
def test_it_does_not_matter_where_a_text_is_cut_into_pieces(raw: str, cuts: list[int]) -> None:
    editor = PlainText()
    ends = [*sorted(cuts), len(raw)]
    shown = "".join(
        editor.feed(raw[start:end]) for start, end in zip([0, *ends], ends, strict=False)
    )

    assert shown + editor.finish() == plain(raw)


def test_a_progress_bar_of_a_million_updates_takes_the_memory_of_one_line() -> None:
    editor = PlainText()
    for _ in range(100):
        assert editor.feed("\r".join(f"{n:>6} of many" for n in range(1000)) + "\r") == ""

    assert editor.line == "   999 of many"


def test_a_sequence_that_never_ends_is_given_up() -> None:
    editor = PlainText()
    shown = editor.feed("\x1b]0;")
    for _ in range(50):
        shown += editor.feed("x" * 1000)

    assert len(shown + editor.finish()) >= 50_000 - 2 * MAX_SEQUENCE


def test_a_line_that_never_ends_is_handed_on() -> None:
    editor = PlainText()

    assert len(editor.feed("x" * (MAX_LINE + 1))) == MAX_LINE + 1
    assert editor.line == ""


@pytest.mark.parametrize("unit", ["\rX", "a\b", "\x1b[", "\x1b]", "\x1bP", "\x1b[2K", "\r\x1b[K"])
def test_the_work_is_linear_for_every_kind_of_sequence(unit: str) -> None:
    """Quadratic work on this much would take minutes."""
    line = "y" * 60_000
    assert is_plain(plain(line + unit * 200_000))


def test_a_long_text_is_clipped_to_head_and_tail_and_stays_so() -> None:
    text = "head" + "x" * 10_000 + "tail"
    shown = clip(text, 100)

    assert shown.startswith("head")
    assert shown.endswith("tail")
    assert "[… 9,908 bytes cut …]" in shown
    assert clip(shown, 100) == shown


@pytest.mark.parametrize("unit", ["a\b", "\r", "\x1b[1m", "\x9b1m", "\ra"])
def test_a_tiny_piece_costs_little_however_long_its_line_is(unit: str) -> None:
    """The whole line was drawn again for each of them, in milliseconds."""
    editor = PlainText()
    editor.feed("y" * (MAX_LINE - 8))
    began = time.thread_time()
    for _ in range(2000):
        editor.feed(unit)
    assert time.thread_time() - began < 0.5


def test_what_is_erased_to_the_end_of_the_line_is_gone() -> None:
    assert plain("12345\r12\x1b[K\n") == "12\n"
