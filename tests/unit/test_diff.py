"""Unified diffs of replacements."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from sandbox.diff import NO_NEWLINE, replacement_diff

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


@given(TEXTS, st.text("ab\n", min_size=1, max_size=4), st.text("ab\nc", max_size=4))
def test_applying_the_diff_gives_the_new_text(text: str, old: str, new: str) -> None:
    if old in text and old != new:
        assert applied(text, replacement_diff("f", text, old, new)) == text.replace(old, new)


def test_a_small_change_shows_three_lines_around_it() -> None:
    text = "".join(f"{n}\n" for n in range(20))

    assert replacement_diff("a.txt", text, "10\n", "ten\n") == (
        "--- a/a.txt\n+++ b/a.txt\n@@ -8,7 +8,7 @@\n 7\n 8\n 9\n-10\n+ten\n 11\n 12\n 13\n"
    )


def test_a_last_line_without_its_end_is_marked() -> None:
    assert replacement_diff("f", "one", "one", "two").endswith(
        f"-one\n{NO_NEWLINE}+two\n{NO_NEWLINE}"
    )


def test_a_deleted_line_is_all_that_is_shown_as_deleted() -> None:
    diff = replacement_diff("f", "a\nb\nc\n", "b\n", "")

    assert [line for line in diff.splitlines()[3:] if line[0] in "+-"] == ["-b"]


def test_a_hundred_thousand_changes_take_no_time_to_speak_of() -> None:
    """Comparing the two texts would take hours."""
    text = "x\ny\n" * 100_000

    assert replacement_diff("f", text, "x", "z").count("\n-x") == 100_000
