"""What is shown of groups of exceptions, and of errors that IPython cannot draw."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from sandbox.supervisor.pykernel import spawning, tracebacks

from ....support.shells import plain_shell


class Told(NamedTuple):
    """What the error message of a cell says."""

    ename: str
    evalue: str
    text: str
    result: Any


Run = Callable[[str], Told]

NESTED = """
def first():
    raise ValueError("one")
try:
    first()
except ValueError as exc:
    one = exc
try:
    compile("a b", "other.py", "exec")
except SyntaxError as exc:
    two = exc
two.add_note("a note")
raise ExceptionGroup("outer", [one, ExceptionGroup("inner", [two, TypeError("three")])])
"""
SPEECHLESS = """
class Speechless(Exception):
    def __str__(self):
        raise RuntimeError("no words")
"""


@pytest.fixture
def shell() -> Iterator[Any]:
    with plain_shell() as made:
        tracebacks.install(made)
        yield made


@pytest.fixture
def run(shell: Any, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a cell that fails; it must show its error once and print nothing."""

    def run(code: str) -> Told:
        told: list[tuple[str, str, list[str]]] = []
        shell._showtraceback = lambda etype, value, lines: told.append(
            (etype.__name__, str(value), lines)
        )
        result = shell.run_cell(code)
        assert capsys.readouterr() == ("", "")
        ((ename, evalue, lines),) = told
        return Told(ename, evalue, "\n".join(lines), result)

    return run


def test_a_group_is_drawn_as_the_tree_that_python_prints(run: Run) -> None:
    told = run(NESTED)
    assert (told.ename, told.evalue) == ("ExceptionGroup", "outer (2 sub-exceptions)")
    assert told.text.startswith("  + Exception Group Traceback (most recent call last):\n")
    for line in (
        "  +-+---------------- 1 ----------------",
        "    |   Cell In[1], line 2, in first",
        "    | ValueError: one",
        "      +---------------- 2 ----------------",
        "      | SyntaxError: invalid syntax",
        "      | a note",
        "      | TypeError: three",
    ):
        assert line in told.text.splitlines()
    assert "interactiveshell" not in told.text


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError('late') from ExceptionGroup('g', [KeyError('inner')])",
        "try:\n    raise ExceptionGroup('g', [KeyError('inner')])\nexcept* KeyError:\n    1 / 0",
        "try:\n    raise ExceptionGroup('g', [KeyError('inner')])\nexcept Exception:\n    1 / 0",
    ],
)
def test_what_comes_of_a_group_shows_the_group(run: Run, code: str) -> None:
    assert "KeyError: 'inner'" in run(code).text


def test_a_group_behind_from_none_is_not_shown(run: Run) -> None:
    code = "try:\n    raise ExceptionGroup('g', [KeyError('inner')])\nexcept Exception:\n"
    assert "sub-exception" not in run(f"{code}    raise ValueError('late') from None").text


def test_notes_and_causes_of_other_errors_are_shown_as_before(run: Run) -> None:
    told = run("e = ValueError('x')\ne.add_note('a note')\nraise e from KeyError('cause')")
    assert "a note" in told.text
    assert "KeyError: 'cause'" in told.text
    assert "----> 3 raise e" in told.text


@pytest.mark.parametrize(
    "code",
    [
        "raise ExceptionGroup('g', [ValueError(i) for i in range(200_000)])",
        "e = ValueError('deepest')\nfor _ in range(2000):\n"
        "    e = ExceptionGroup('g', [e])\nraise e",
        "e = ValueError('x')\nfor _ in range(20):\n    e = ExceptionGroup('g', [e, e])\nraise e",
        "e = ExceptionGroup('g', [KeyError(1)])\nfor i in range(5000):\n"
        "    n = ValueError(i)\n    n.__cause__ = e\n    e = n\nraise e",
        "raise ExceptionGroup('g', [ValueError('x' * 1_000_000) for _ in range(20)])",
        "raise ExceptionGroup('g', [ValueError('x\\n' * 1_000_000)])",
        "a, b = ExceptionGroup('a', [KeyError()]), ValueError('b')\n"
        "a.__cause__, b.__cause__ = b, a\nraise a",
    ],
    ids=["wide", "deep", "shared", "chain", "long", "lines", "circle"],
)
def test_a_huge_group_is_bounded_and_quick(run: Run, code: str) -> None:
    began = time.monotonic()
    told = run(code)
    assert time.monotonic() - began < 10
    assert 0 < len(told.text) < 500_000


def test_the_first_exceptions_of_a_group_too_large_are_shown_and_the_others_counted(
    run: Run,
) -> None:
    told = run("raise ExceptionGroup('g', [ValueError(i) for i in range(1000)])")
    assert "Cell In[1], line 1" in told.text
    assert "  | ValueError: 14\n  | and 985 more exceptions" in told.text


def test_an_error_without_words_keeps_its_name_and_place(run: Run) -> None:
    told = run(f"{SPEECHLESS}raise Speechless()")
    assert (told.ename, told.evalue) == ("Speechless", tracebacks.FAILED)
    assert "Cell In[1], line 4" in told.text
    assert told.text.endswith(f"Speechless: {tracebacks.FAILED}")


def test_the_reply_to_an_error_without_words_can_be_made(run: Run) -> None:
    error = run(f"{SPEECHLESS}raise Speechless()").result.error_in_exec
    assert (type(error).__name__, str(error)) == ("Speechless", tracebacks.FAILED)


def test_one_without_words_takes_nothing_from_the_others_of_its_group(run: Run) -> None:
    told = run(f"{SPEECHLESS}raise ExceptionGroup('g', [Speechless(), ValueError('two')])")
    assert f"Speechless: {tracebacks.FAILED}" in told.text
    assert "ValueError: two" in told.text


def test_an_error_that_fails_to_draw_itself_is_drawn_all_the_same(run: Run) -> None:
    code = "class E(Exception):\n    def _render_traceback_(self):\n        1 / 0\nraise E('words')"
    told = run(code)
    assert told.text.endswith("E: words")


def test_a_recursion_without_end_is_told_in_a_few_lines_and_at_once(run: Run) -> None:
    began = time.monotonic()
    told = run("def again(n):\n    return again(n + 1)\nagain(0)")
    assert time.monotonic() - began < 2
    assert told.text.count("\n") < 20
    assert "[Previous line repeated" in told.text
    assert told.text.endswith("RecursionError: maximum recursion depth exceeded")


def test_frames_of_ours_at_the_end_are_not_shown(run: Run, shell: Any) -> None:
    shell.user_ns["refusal"] = spawning.refusal
    told = run("refusal(1)")
    assert "Cell In[1], line 1" in told.text
    assert "spawning" not in told.text


def test_colours_are_as_the_shell_has_them(run: Run, shell: Any) -> None:
    assert "\x1b" not in run("raise ExceptionGroup('g', [ValueError('one')])").text
    shell.colors = "neutral"
    told = run("raise ExceptionGroup('g', [ValueError('one')])")
    assert "\x1b[31mValueError\x1b[39m: one" in told.text
    bare = re.sub(r"\x1b\[\d+m", "", told.text)
    assert "    | ValueError: one" in bare.splitlines()


def test_syntax_errors_are_shown_as_before(run: Run) -> None:
    told = run("a b")
    assert told.ename == "SyntaxError"
    assert "Cell In[1], line 1" in told.text


def test_the_last_traceback_can_be_asked_for_again(run: Run, shell: Any) -> None:
    told = run(NESTED)
    again: list[str] = []
    shell._showtraceback = lambda _etype, _value, lines: again.extend(lines)
    shell.run_line_magic("tb", "")
    assert "\n".join(again) == told.text
