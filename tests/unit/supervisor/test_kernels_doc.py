"""docs/kernels.md and the table that the reference test goes by say the same."""

from __future__ import annotations

from pathlib import Path

from ...support.referencecells import CASES
from ...support.referencetable import DIFFERENCES

ROOT = Path(__file__).parents[3]


def test_the_document_has_each_difference_with_its_reason_and_no_other() -> None:
    text = (ROOT / "docs" / "kernels.md").read_text()
    table = text.split("|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert table == [f"| {each.what} | {each.why} |" for each in DIFFERENCES]


def test_each_difference_is_of_cases_that_are_asked() -> None:
    asked = {case.name for case in CASES}
    asked |= {f"{case.name}+{n + 1}" for case in CASES for n in range(len(case.queued))}
    named = [name for each in DIFFERENCES for name in (*each.cases, *each.ours, *each.sometimes)]
    assert [name for name in named if name not in asked] == []


def test_no_two_cases_share_a_name() -> None:
    names = [case.name for case in CASES]
    assert sorted(names) == sorted(set(names))
