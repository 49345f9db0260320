"""What the supervisor says of a kernel, in words for its caller."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.kernels.answers import MAX_COMMAND, MAX_COMMANDS, cause_of, going_on_in

EXITED = "It exited with code 3: something ended the whole process, as os._exit does."


@pytest.mark.parametrize(
    ("processes", "told"),
    [
        (None, EXITED),
        (0, EXITED),
        (1, f"{EXITED} 1 process that it had left was ended."),
        (2, f"{EXITED} 2 processes that it had left were ended."),
        (-1, EXITED),
        ("many", EXITED),
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


def of(*commands: Any, count: Any = 1) -> dict[str, Any]:
    return {"event": "going_on", "processes": count, "commands": list(commands)}


SLEEP = {"pid": 7, "command": "sleep 9"}


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (of(SLEEP), "goes on in the background: 'sleep 9' (pid 7)"),
        (
            of(SLEEP, SLEEP, count=2),
            "goes on in the background: 'sleep 9' (pid 7), 'sleep 9' (pid 7)",
        ),
        (of(SLEEP, count=9), "goes on in the background: 'sleep 9' (pid 7) and 8 more"),
        (of(SLEEP, count=-9), "goes on in the background: 'sleep 9' (pid 7)"),
        (of(), ""),
        (of("sleep", None, {"pid": "7", "command": "x"}, {"pid": 7, "command": b"x".hex}), ""),
        ({"commands": {"pid": 7}}, ""),
        ({}, ""),
    ],
    ids=["one", "two", "more", "too few", "none", "of other types", "no list", "nothing"],
)
def test_what_a_cell_leaves_running_is_told_in_words(event: dict[str, Any], told: str) -> None:
    assert going_on_in(event) == told


def test_what_is_said_of_processes_is_bounded_and_plain() -> None:
    hostile = {"pid": 2**21, "command": "\x1b]0;owned\x07" + "A" * 10_000}
    told = going_on_in(of(*[hostile] * 1000, count=1000))
    assert told.count("pid") == MAX_COMMANDS
    assert len(told) < MAX_COMMANDS * (MAX_COMMAND + 40)
    assert "\x1b" not in told
