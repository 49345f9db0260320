"""Screens drawn from what programs print, honest or not."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.plain import is_plain
from sandbox.terminals.screen import Display


def drawn(data: bytes, rows: int = 5, cols: int = 20) -> Display:
    display = Display(rows, cols)
    display.write(data)
    while not display.is_drawn:
        display.draw(1.0)
    return display


def test_text_and_cursor_stand_where_a_terminal_shows_them() -> None:
    display = drawn(b"one\r\ntwo\x1b[4;10Hfour\x1b[31m!\x1b[0m")

    assert display.lines() == ["one", "two", "", " " * 9 + "four!", ""]
    assert display.cursor == (4, 15)


def test_text_scrolls_and_lines_are_erased() -> None:
    display = drawn(b"".join(b"%d\r\n" % n for n in range(9)) + b"\x1b[2;1H\x1b[2K")

    assert display.lines() == ["5", "", "7", "8", ""]


def test_what_stood_there_before_a_full_screen_program_comes_back() -> None:
    display = drawn(b"$ vim\r\n")
    display.write(b"\x1b[?1049h\x1b[H~\r\n~\r\n-- INSERT --")
    display.draw(1.0)
    inside = display.lines()
    display.write(b"\x1b[?1049l$ ")
    display.draw(1.0)

    assert inside[:3] == ["~", "~", "-- INSERT --"]
    assert display.lines()[:2] == ["$ vim", "$"]


def test_characters_cut_between_two_writes_are_whole_on_the_screen() -> None:
    display = Display(2, 20)
    for byte in "é漢🙂".encode():
        display.write(bytes([byte]))
        display.draw(1.0)

    assert display.lines()[0] == "é漢🙂"


def test_the_cursor_is_reported_to_a_program_that_asks_and_nothing_else_is() -> None:
    display = drawn(b"abc\x1b[6n\x1b]10;?\x07\x1b[21t\x1b]52;c;?\x07\x1bP+q544e\x1b\\")

    assert display.take_answer() == "\x1b[1;4R"
    assert display.take_answer() == ""


def test_a_flood_of_questions_gets_few_answers() -> None:
    assert len(drawn(b"\x1b[6n" * 10_000).take_answer()) <= 256


def test_a_program_can_ask_for_the_other_form_of_cursor_keys() -> None:
    assert drawn(b"\x1b[?1h").application_cursor
    assert not drawn(b"\x1b[?1h\x1b[?1l").application_cursor


def test_a_line_editor_says_that_it_takes_pastes_and_when_it_reads() -> None:
    display = drawn(b"\x1b[?2004h$ ls\r\n")
    reading = (display.takes_pastes, display.line_begun, display.line_taken)
    display.write(b"\x1b[?2004l\r")
    display.draw(1.0)
    taken = (display.takes_pastes, display.line_taken, display.has_answer)
    display.write(b"made")
    display.draw(1.0)

    assert reading == (True, 1, 0)
    assert taken == (False, 1, False)
    assert display.has_answer


def test_a_program_on_a_screen_of_its_own_is_typed_to() -> None:
    display = drawn(b"\x1b[?1049h\x1b[?2004h")
    assert (display.takes_pastes, display.line_begun) == (False, 0)
    assert drawn(b"\x1b[?2004h\x1b[?1049h\x1b[?1049l").takes_pastes


def test_what_stands_before_the_cursor_is_read_as_a_prompt() -> None:
    assert drawn(b"one\r\n>>> two\x1b[2;5H").before_cursor == ">>> "
    assert drawn(b"").before_cursor == ""


def test_a_smaller_screen_keeps_its_last_lines() -> None:
    display = drawn(b"one\r\ntwo\r\nthree\r\nfour\r\nfive")
    display.resize(2, 10)

    assert display.lines() == ["four", "five"]


@pytest.mark.parametrize(
    "data",
    [
        b"\x1b[?5A\x1b[1;2;3;4;5;6H\x1b[9J\x1b[7K\x1b[99999999999999999999Aok",
        b"\x1b[\xc2\xb2mok",
        b"\x1b[" + b"9" * 5000 + b"mok",
        b"\x1b#8\x1b[?3hok",
        b"\x1b[?6h\x1b[6nok",
        b"\xff\xfe\x80ok",
    ],
)
def test_sequences_without_sense_do_not_stop_what_follows(data: bytes) -> None:
    assert "ok" in "".join(drawn(data).lines())


@given(st.lists(st.binary(max_size=40) | st.text(max_size=10).map(str.encode), max_size=10))
def test_no_bytes_raise_or_reach_the_lines_as_they_are(pieces: list[bytes]) -> None:
    display = drawn(b"\x1b[".join(pieces))

    assert len(display.lines()) == 5
    assert all(is_plain(line) and "\n" not in line for line in display.lines())
    assert 1 <= display.cursor[0] <= 5
    assert 1 <= display.cursor[1] <= 20


@pytest.mark.parametrize(
    "unit",
    [
        b"\n",
        b"\x1b#8",
        b"\x1b[?5h\x1b[?5l",
        b"\x1b[?3h\x1b[?3l",
        b"\x1b[2J",
        b"\x1b[4h\x1b[999L",
        b"a" + "\u0301".encode() * 50,
        b"\x1b7",
        b"\t",
        b"\x1b[?1049h\x1b[?1049l",
    ],
)
def test_drawing_gives_way_soon_whatever_the_bytes_ask_for(unit: bytes) -> None:
    display = Display(200, 300)
    display.write(b"x" * 50_000)
    while not display.is_drawn:
        display.draw(1.0)
    display.write(unit * 1000)
    worst_s = 0.0
    for _ in range(20):
        before = time.process_time()
        display.draw(0.005)
        worst_s = max(worst_s, time.process_time() - before)

    assert worst_s < 0.2


def test_memory_is_bounded_by_the_screen() -> None:
    units = b"\x1b7 \x1b[" + b";" * 300 + b"m\x1b]0;" + b"t" * 300 + b"\x1bP" + b"d" * 300
    display = drawn(units * 10)
    tracemalloc.start()
    for _ in range(5):
        display.write(units * 10 + b"\x1b[" + b"1;" * 2000 + b"\x1b]2;" + b"x" * 4000)
        while not display.is_drawn:
            display.draw(1.0)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size < 256 * 1024
