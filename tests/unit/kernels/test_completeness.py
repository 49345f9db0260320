"""Whether a kernel wants more lines, as far as it can be believed."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.kernels.answers import MAX_INDENT, completeness
from sandbox.kernels.models import Completeness


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ({"status": "complete"}, Completeness(status="complete")),
        (
            {"status": "incomplete", "indent": "    "},
            Completeness(status="incomplete", indent="    "),
        ),
        ({"status": "incomplete", "indent": "rm -rf ~\n"}, Completeness(status="incomplete")),
        ({"status": "incomplete", "indent": 4}, Completeness(status="incomplete")),
        ({"status": "invalid"}, Completeness(status="invalid")),
        ({"status": ["complete"]}, Completeness(status="unknown")),
        ({}, Completeness(status="unknown")),
    ],
)
def test_a_kernel_says_whether_more_lines_must_come(
    reply: dict[str, Any], found: Completeness
) -> None:
    assert completeness(reply) == found


def test_an_indent_is_bounded() -> None:
    told = completeness({"status": "incomplete", "indent": " " * 10_000})
    assert told.indent == " " * MAX_INDENT
