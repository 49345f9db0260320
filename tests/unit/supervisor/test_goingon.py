"""What a cell has left running, as the supervisor tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox.supervisor.goingon import MAX_COMMAND, MAX_TOLD, going_on


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(("sleep", f"{60 + n}")) for n in range(MAX_TOLD + 2)]
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_the_first_processes_are_named_and_all_are_counted(
    sleepers: list[subprocess.Popen[bytes]],
) -> None:
    event = going_on([each.pid for each in sleepers], "cell")
    assert event is not None
    assert event["parent_id"] == "cell"
    assert event["processes"] == MAX_TOLD + 2
    pids = sorted(each.pid for each in sleepers)[:MAX_TOLD]
    assert [each["pid"] for each in event["commands"]] == pids
    assert {each["command"].split()[0] for each in event["commands"]} == {"sleep"}


def test_what_has_ended_does_not_go_on() -> None:
    with subprocess.Popen(("true",)) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert going_on([process.pid], "cell") is None
    assert going_on([process.pid], "cell") is None


def test_a_long_command_line_is_cut() -> None:
    with subprocess.Popen(
        ("python3", "-c", "input()", "é" * 5000), stdin=subprocess.PIPE
    ) as process:
        event = going_on([process.pid], "cell")
        process.communicate(b"\n")
    assert event is not None
    assert len(event["commands"][0]["command"].encode()) <= MAX_COMMAND + 3


def test_a_process_that_hides_its_command_line_has_its_name() -> None:
    """``prctl(PR_SET_MM)`` and programs that overwrite their arguments do so."""
    code = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.prctl(15, b"hider", 0, 0, 0)
with open("/proc/self/maps") as maps, open("/proc/self/stat") as stat:
    start, end = map(int, stat.read().rpartition(")")[2].split()[45:47])
ctypes.memset(start, 0, end - start)
print("hidden", flush=True)
input()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen((sys.executable, "-c", code), stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"hidden\n"
        event = going_on([process.pid], "cell")
        process.communicate(b"\n")
    assert event is not None
    assert event["commands"] == [{"pid": process.pid, "command": "[hider]"}]
