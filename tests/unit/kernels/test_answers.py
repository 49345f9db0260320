"""What the supervisor says of a kernel, in words for its caller."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.kernels.answers import cause_of


@pytest.mark.parametrize(
    ("processes", "told"),
    [
        (None, "It exited with code 3."),
        (0, "It exited with code 3."),
        (1, "It exited with code 3. 1 process that it had left was ended."),
        (2, "It exited with code 3. 2 processes that it had left were ended."),
        (-1, "It exited with code 3."),
        ("many", "It exited with code 3."),
    ],
)
def test_only_processes_that_were_left_are_told_of(processes: Any, told: str) -> None:
    event = {"event": "exited", "exit_code": 3, "signal": None, "processes": processes}
    assert cause_of(event, is_oom=False) == told


@pytest.mark.parametrize(
    ("full", "told"),
    [
        ({"shm": "bytes"}, "It was ended by SIGBUS: /dev/shm is full."),
        ({"tmp": "inodes", "shm": "bytes"}, "It was ended by SIGBUS: /tmp and /dev/shm are full."),
        ({}, "It was ended by SIGBUS."),
        ({"/etc/passwd": "bytes"}, "It was ended by SIGBUS."),
        (["shm"], "It was ended by SIGBUS."),
        (None, "It was ended by SIGBUS."),
    ],
)
def test_a_full_filesystem_is_told_where_memory_is_mapped_from_it(full: Any, told: str) -> None:
    assert cause_of({"signal": 7, "exit_code": None, "full": full}, is_oom=False) == told
    other = cause_of({"signal": 11, "exit_code": None, "full": full}, is_oom=False)
    assert other == "It was ended by SIGSEGV."
