"""Tracebacks of deep recursion made short."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.outputs.tracebacks import collapsed

HEAD = "Traceback (most recent call last):\n"
END = "RecursionError: maximum recursion depth exceeded"


def frames(names: str) -> str:
    return "".join(f'  File "x.py", line {ord(name)}, in {name}\n    {name}()\n' for name in names)


def ipython(names: str) -> str:
    return "".join(
        f"Cell In[1], line {ord(name)}, in {name}(n)\n----> 1 def {name}(n): return {name}(n)\n\n"
        for name in names
    )


@pytest.mark.parametrize("period", ["a", "ab", "abc", "abcdefgh"])
@pytest.mark.parametrize("written", [frames, ipython])
def test_frames_that_repeat_are_shown_once(period: str, written: Callable[[str], str]) -> None:
    shown = collapsed(HEAD + written("m" + period * 500 + "z") + END)
    what = "frame" if len(period) == 1 else f"{len(period)} frames"
    note = f"[… the same {what}, 499 times …]\n" + "\n" * (written is ipython)

    assert shown == HEAD + written("m" + period) + note + written("z") + END


def test_a_recursion_inside_a_recursion_is_short_too() -> None:
    shown = collapsed(HEAD + frames(("a" * 50 + "b") * 40) + END)
    assert shown.count("\n") < 20
    assert "[… the same frame, 49 times …]" in shown


@pytest.mark.parametrize(
    "text", ["", "no traceback\n" * 50, HEAD + frames("abc") + END, HEAD + frames("aabb") + END]
)
def test_what_does_not_repeat_stays_as_it_is(text: str) -> None:
    assert collapsed(text) == text


@given(st.text("abc", max_size=60))
def test_what_was_made_short_stays_so_and_keeps_its_ends(names: str) -> None:
    whole = HEAD + frames(names) + END
    shown = collapsed(whole)

    assert collapsed(shown) == shown
    assert len(shown) <= len(whole)
    assert shown.startswith(HEAD + frames(names[:1]))
    assert shown.endswith(END)


def test_python_s_own_traceback_of_a_mutual_recursion_is_short() -> None:
    def even(n: int) -> bool:
        return odd(n + 1)

    def odd(n: int) -> bool:
        return even(n + 1)

    limit = sys.getrecursionlimit()
    try:
        even(0)
    except RecursionError:
        text = traceback.format_exc()
    assert text.count("\n") > limit
    shown = collapsed(text)
    assert "[… the same 2 frames, " in shown
    assert shown.count("\n") < 20
