"""The last lines of a text, which a cursor writes over."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from sandbox.outputs.lastlines import MAX_COLUMN, MAX_LINES, SPARE, LastLines
from sandbox.outputs.plain import PlainText, plain

UP, ERASE = "\x1b[A", "\x1b[2K"
PIECES = st.sampled_from(
    [
        *("a", "bc", "漢", " ", "\t", "\n", "\n\n", "\r", "\r\n", "\b", "word", "\n" * MAX_LINES),
        *(UP, "\x1b[2A", "\x1b[999A", "\x1b[B", "\x1b[1B", "\x1b[C", "\x1b[30C", "\x1b[D"),
        *("\x1b[E", "\x1b[2F", "\x1b[G", "\x1b[5G", "\x1b[999999G", "\x1b[K", "\x1b[1K", ERASE),
        *("\x1b[J", "\x1b[0J", "\x1b[2J", "\x1b[31m", "\x1b[?25l", "\x1b[1;2H", "\x1b", "[", "A"),
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)


def in_pieces(text: str, cuts: list[int], max_chars: int) -> str:
    editor = PlainText(max_chars)
    ends = [*sorted(cuts), len(text)]
    shown = [editor.feed(text[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    return "".join(shown) + editor.finish()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (f"one\ntwo{UP}\rONE", "ONE\ntwo"),
        (f"one\ntwo\n{UP}{ERASE}{UP}{ERASE}all done\n", "all done\n"),
        (f"one\ntwo\n{UP}\x1b[1A\x1b[Jnew\n", "new\n"),
        ("one\ntwo\x1b[Fx\x1b[Ey", "xne\nywo"),
        ("12345\x1b[2D\x1b[K!", "123!"),
        ("12345\x1b[2Gx\x1b[Cy", "1x3y5"),
        ("12345\x1b[3D\x1b[1K", "   45"),
        ("name\x1b[10Gok\n", "name     ok\n"),
        ("one\x1b[99A\x1b[Gtop", "top"),
        ("one\x1b[99Btwo", "onetwo"),
        ("one\ntwo\x1b[A four", "one four\ntwo"),
        ("\x1b[?25lone\x1b[?25h\x1b[1;1H\x1b[2J two", "one two"),
        (f"a\n\nb{UP}\x1b[Gmid", "a\nmid\nb"),
        ("abc\b\bX", "aXc"),
        ("abc\b \b", "ab "),
    ],
)
def test_a_cursor_writes_over_what_it_goes_back_to(raw: str, shown: str) -> None:
    assert plain(raw) == shown


def test_nested_bars_end_as_one_line_each() -> None:
    text: list[str] = []
    for outer in range(4):
        text.append(f"\router {outer}/3")
        for inner in range(101):
            text.append(f"\n\rinner {inner:>3}/100{UP}")
    assert plain("".join(text) + "\n") == "outer 3/3\ninner 100/100"


def test_a_block_of_lines_that_is_drawn_anew_is_seen_once() -> None:
    """As rich draws it: up to its first line, each erased, then all again."""
    frames = [
        "\r\x1b[2K" + "\x1b[1A\x1b[2K" * 3 * bool(n) + f"head\nfile a {n}%\nfile b {n}%\n"
        for n in range(101)
    ]
    assert plain("before\n" + "".join(frames)) == "before\nhead\nfile a 100%\nfile b 100%\n"


def test_what_rich_draws_is_seen_as_it_stands_in_the_end() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=60)
    with Progress(console=console, auto_refresh=False) as progress:
        tasks = [progress.add_task(name, total=50) for name in ("one", "two", "three")]
        for number in range(50):
            for task in tasks:
                progress.advance(task)
            progress.refresh()
            if number == 20:
                console.print("a line in between")
    shown = plain(written.getvalue()).splitlines()

    assert [line.split()[0] for line in shown] == ["a", "one", "two", "three"]
    assert all("100%" in line for line in shown[1:])


def test_a_cursor_goes_up_no_further_than_the_last_lines() -> None:
    lines = [f"line {n}" for n in range(MAX_LINES * 3)]
    shown = plain("\n".join(lines) + "\x1b[999A\rX").split("\n")

    assert len(shown) == len(lines)
    assert [n for n, line in enumerate(shown) if line != lines[n]] == [len(lines) - MAX_LINES]


@given(TEXTS, st.lists(st.integers(0, 120), max_size=8), st.sampled_from([1, 2, 7, 30, 16384]))
@example("abc\r12345", [3], 4)
@example("x" * 20 + "\rab", [9, 11], 8)
def test_pieces_make_no_difference_however_little_is_held(
    raw: str, cuts: list[int], max_chars: int
) -> None:
    assert in_pieces(raw, cuts, max_chars) == in_pieces(raw, [], max_chars)


@given(st.text("ab\n", max_size=400), st.integers(1, 40), st.integers(0, 400))
def test_a_text_without_moves_is_only_handed_on(text: str, max_chars: int, cut: int) -> None:
    assert in_pieces(text, [min(cut, len(text))], max_chars) == text


@given(st.text("ab\n", max_size=400), st.integers(1, 40))
def test_what_is_appended_at_once_is_held_as_if_it_came_in_letters(text: str, size: int) -> None:
    whole, letters = LastLines(size), LastLines(size)
    whole.write(text)
    for letter in text:
        letters.write(letter)

    assert (whole.done(), whole.text, whole.size) == (letters.done(), letters.text, letters.size)
    assert whole.size == sum(map(len, whole.text.split("\n"))) <= size


@given(TEXTS, st.sampled_from([1, 20, 16384]))
def test_what_is_held_stays_within_its_bounds(raw: str, max_chars: int) -> None:
    editor = PlainText(max_chars)
    editor.feed(raw)

    assert editor.size <= max_chars
    assert editor.line.count("\n") < MAX_LINES


def test_a_cursor_that_goes_right_leaves_few_blanks_in_all() -> None:
    assert plain("\x1b[999999Gx") == " " * MAX_COLUMN + "x"
    jumps = "\x1b[999999Gx\n" * 100_000
    assert len(plain(jumps)) <= SPARE + 2 * len("x\n") * 100_000


@pytest.mark.timed
@pytest.mark.parametrize(
    "unit",
    [UP, "\n" + UP, "a" + UP, "\n\r12%" + UP, "\x1b[J", "\x1b[B\x1b[9Cx", "\b", "a\r\n" + UP],
)
def test_a_tiny_move_costs_little_however_much_is_held(unit: str) -> None:
    editor = PlainText()
    editor.feed(("y" * 200 + "\n") * 80)
    began = time.thread_time()
    for _ in range(2000):
        editor.feed(unit)
    assert time.thread_time() - began < 0.5
