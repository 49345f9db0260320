"""Unified diffs of replacements."""

from __future__ import annotations

import re
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.files.diff import MAX_CONTEXT_LINE, MAX_SHOWN, replacement_diff

NO_NEWLINE = "\\ No newline at end of file\n"

TEXTS = st.text("ab\n", max_size=60)


def applied(text: str, diff: str) -> str:
    """The text after the diff, checked line by line against what the diff says was there."""
    lines = text.splitlines(keepends=True)
    result: list[str] = []
    at = 0
    for line in diff.replace("\n" + NO_NEWLINE, "\0").splitlines(keepends=True)[2:]:
        for part in re.split(r"(?<=\0)", line) if "\0" in line else [line]:
            if not part:
                continue
            if header := re.match(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@\n", part):
                start, size = int(header[1]), int(header[2] or 1)
                first = start - 1 if size else start
                result += lines[at:first]
                at = first
                new_start, new_size = int(header[3]), int(header[4] or 1)
                assert len(result) == (new_start - 1 if new_size else new_start)
                continue
            sign, content = part[0], part[1:].removesuffix("\0")
            if sign in " -":
                assert lines[at] == content
                at += 1
            if sign in " +":
                result.append(content)
    return "".join(result + lines[at:])


def diff_of(text: str, old: str, new: str) -> str:
    return replacement_diff("f", text.encode(), old.encode(), new.encode())


@given(TEXTS, st.text("ab\n", min_size=1, max_size=4), st.text("ab\nc", max_size=4))
def test_applying_the_diff_gives_the_new_text(text: str, old: str, new: str) -> None:
    if old in text and old != new:
        assert applied(text, diff_of(text, old, new)) == text.replace(old, new)


def test_a_small_change_shows_three_lines_around_it() -> None:
    text = "".join(f"{n}\n" for n in range(20))

    assert diff_of(text, "10\n", "ten\n") == (
        "--- a/f\n+++ b/f\n@@ -8,7 +8,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n"
    )


def test_a_last_line_without_its_end_is_marked() -> None:
    assert diff_of("one", "one", "two").endswith(f"-one\n{NO_NEWLINE}+two\n{NO_NEWLINE}")


def test_a_deleted_line_is_all_that_is_shown_as_deleted() -> None:
    diff = diff_of("a\nb\nc\n", "b\n", "")

    assert [line for line in diff.splitlines()[3:] if line[0] in "+-"] == ["-b"]


def test_changes_far_apart_are_all_shown_with_their_lines() -> None:
    text = "".join(f"{n} {'x' * 50}\n" for n in range(45_000))

    diff = diff_of(text, "9999 ", "changed ")

    assert re.findall(r"@@ -(\d+),7 \+\1,7 @@", diff) == ["9997", "19997", "29997", "39997"]


@pytest.mark.parametrize(
    ("unit", "old", "new"),
    [
        ("x\ny\n", "x", "z"),
        ("\n\n\n\n", "\n", ""),
        ("a\n\n\n", "\n\n", "\n"),
        ("a\nb\n", "\n", " "),
        ("aaaa", "a", "b"),
        ("äöü\n", "ö", "€"),
    ],
)
def test_of_a_great_many_changes_the_first_are_shown_and_the_rest_is_counted(
    unit: str, old: str, new: str
) -> None:
    """Time and memory are those of the text, and not of as many changes."""
    text = unit * 1_000_000
    tracemalloc.start()
    began = time.process_time()
    try:
        diff = diff_of(text, old, new)
        taken_s, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert len(diff) < 100_000
    assert re.search(r"^\[\d+ more (replacements|bytes) are not shown\]$", diff, re.MULTILINE)
    assert taken_s < 2
    assert peak < 8 * len(text.encode())


def test_lines_that_are_too_long_to_be_shown_say_what_is_left_out() -> None:
    diff = diff_of("k" * 50_000 + "\n" + "c" * 100_000 + "\n", "c", "é")

    assert f" {'k' * MAX_CONTEXT_LINE} [49001 more bytes are not shown]\n" in diff
    assert f"-{'c' * MAX_SHOWN}\n[{100_001 - MAX_SHOWN} more bytes are not shown]\n" in diff
    assert f"+{'é' * (MAX_SHOWN // 2)}\n" in diff
