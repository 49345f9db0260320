"""What is accepted as code, and what of it runs."""

from __future__ import annotations

import pytest

from sandbox.kernels.code import normalized, unfenced


@pytest.mark.parametrize(
    ("given", "ran"),
    [
        ("```python\n1\n```", "1\n"),
        ("```\n1\n\n2\n```\n", "1\n\n2\n"),
        (" \n````py\n1\n````", "1\n"),
        ("~~~python\r\n1\r\n~~~", "1\r\n"),
        ("\ufeff```python\n1\n```", "1\n"),
        ("```python\n```", ""),
    ],
)
def test_code_wholly_within_a_fence_loses_it(given: str, ran: str) -> None:
    assert unfenced(given) == ran


@pytest.mark.parametrize(
    "code",
    [
        *("1", "", "```", "``` ```", "```1```", "```python\n1", "1\n```python\n2\n```"),
        *("```python\n1\n```\n```python\n2\n```", "```python print\n1\n```", "x = '''\n```\n'''"),
    ],
)
def test_code_that_is_not_is_left_as_it_is(code: str) -> None:
    assert unfenced(code) == code


def test_code_is_read_as_python_reads_a_file() -> None:
    assert normalized("\ufeffa\r\nb\n\ufeff\r") == "a\nb\n\ufeff\r"
