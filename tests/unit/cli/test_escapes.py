"""What a program writes may draw on a person's terminal, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.cli.escapes import MAX_STRING, TerminalFilter

ESC = "\x1b"


def passed(text: str | bytes) -> str:
    return TerminalFilter().feed(text if isinstance(text, bytes) else text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "plain\r\n\ttext ünd 漢字 🙂\b",
        f"{ESC}[1;31mred{ESC}[m{ESC}[38:2::1:2:3m",
        f"{ESC}[2J{ESC}[H{ESC}[10;20f{ESC}[K{ESC}[?25l{ESC}[?25h",
        f"{ESC}[?1049h{ESC}[?2004h{ESC}[?1000;1006h{ESC}[?1049l",
        f"{ESC}7{ESC}8{ESC}M{ESC}={ESC}>{ESC}(0lqk{ESC}(B",
        f"{ESC}[2 q{ESC}[!p{ESC}[1;24r{ESC}[4h{ESC}[3b",
    ],
)
def test_what_draws_passes_unchanged(text: str) -> None:
    assert passed(text) == text


@pytest.mark.parametrize(
    "sequence",
    [
        "]52;c;aGk=\a",
        f"]52;c;?{ESC}\\",
        "]0;a title\a",
        f"]2;a title{ESC}\\",
        f"]8;;http://example.org/{ESC}\\",
        f"]1337;File=name=eA==;size=1:AA=={ESC}\\",
        "]777;notify;a;b\a",
        "]10;?\a",
        f"]4;1;?{ESC}\\",
        f"P$qm{ESC}\\",
        f"P+q544e{ESC}\\",
        f"Ptmux;{ESC}{ESC}]52;c;aGk=\a{ESC}\\",
        f"_Gf=24;AAAA{ESC}\\",
        f"^private{ESC}\\",
        f"Xstring{ESC}\\",
        f"kname{ESC}\\",
        "[6n",
        "[?6n",
        "[5n",
        "[c",
        "[>c",
        "[=c",
        "[21t",
        "[8;5;5t",
        "[>q",
        "[?1$p",
        "[4$p",
        "[x",
        "[5i",
        "[?4i",
        "[>4;2m",
        "[?4m",
        "[?u",
        "[>1u",
        "[3J",
        "[1;2;3;4;5T",
        "[?3h",
        "[12h",
        "[99999999b",
        "[1;2;3;4$r",
        "[2*y",
        "Z",
        "#8",
        "%@",
        " G",
        "n",
        "l",
        "[" + "1;" * 400 + "m",
    ],
)
def test_what_asks_the_terminal_or_reaches_past_the_screen_is_left_out(sequence: str) -> None:
    shown = passed(f"a{ESC}{sequence}b")
    assert ESC not in shown
    assert shown.startswith("a")
    assert shown.endswith("b")
    assert "aGk" not in shown


@pytest.mark.parametrize("control", ["\x05", "\x00", "\x11", "\x13", "\x9b6n", "\x9d52;c;x\x9c"])
def test_controls_that_answer_or_begin_a_sequence_are_left_out(control: str) -> None:
    assert not set(passed(f"a{control}b")) & set(control[0])


def test_eight_bit_controls_that_are_not_utf8_are_left_out() -> None:
    assert "\x9b" not in passed(b"a\x9b6nb")


def test_a_full_reset_keeps_what_was_shown_before() -> None:
    assert f"{ESC}c" not in passed(f"{ESC}c")
    assert f"{ESC}[!p" in passed(f"{ESC}c")


def test_a_control_in_the_midst_of_a_sequence_does_not_hide_it() -> None:
    assert passed(f"{ESC}\n[6n") == ""
    assert passed(f"{ESC}[6\nn") == ""
    assert passed(f"{ESC}[6\x18n") == "n"


def test_modes_that_may_be_set_are_kept_of_those_that_may_not() -> None:
    assert passed(f"{ESC}[?3;25;9999h") == f"{ESC}[?25h"


def test_another_sequence_ends_a_string_that_was_not_ended() -> None:
    assert passed(f"{ESC}]0;title{ESC}[1mbold") == f"{ESC}[1mbold"


def test_a_string_that_never_ends_hides_what_follows_for_a_while_only() -> None:
    shown = passed(f"{ESC}]0;" + "x" * (MAX_STRING + 100) + "seen")
    assert shown.endswith("seen")
    assert len(shown) < 200


def test_the_modes_that_were_changed_are_put_back() -> None:
    screen = TerminalFilter()
    screen.feed(f"{ESC}[?1049h{ESC}[?1000h{ESC}[?25l{ESC}[?2004h{ESC}[?2004l{ESC}[4 q".encode())
    assert screen.is_changed
    restored = screen.restored()
    for sequence in ("[?1049l", "[?1000l", "[?25h", "[0 q", "[m"):
        assert f"{ESC}{sequence}" in restored
    assert "2004" not in restored


@pytest.mark.parametrize("drawn", [f"{ESC}(0", "\x0e", f"{ESC}[31m", f"{ESC}[2;3r", f"{ESC}[4h"])
def test_what_is_left_on_of_drawing_is_put_back_once(drawn: str) -> None:
    screen = TerminalFilter()
    screen.feed(b"text")
    assert not screen.is_changed
    screen.feed(drawn.encode())
    assert screen.is_changed
    assert f"{ESC}[m{ESC}(B\x0f" in screen.restored()
    assert not screen.is_changed


SAFE = re.compile(
    r"\x1b(?:\[\??[0-9;:]*[@-~]|\[[0-6]? q|\[!p|[()*+][0-9A-Z]|[78=>DEHM])|[^\x1b]", re.DOTALL
)


@given(st.lists(st.sampled_from([*"\x1b[]P\\?;:$ 0123456cnhlmqtz\a\x18\n\x05ü"]), max_size=60))
def test_whatever_comes_only_known_sequences_pass_however_it_is_cut(parts: list[str]) -> None:
    text = "".join(parts)
    whole = passed(text)
    assert not SAFE.sub("", whole)
    assert not re.search(r"\x1b\[\??[0-9;:]*[cntxiz]", whole)
    pieces = TerminalFilter()
    assert "".join(pieces.feed(bytes([byte])) for byte in text.encode()) == whole
