"""A fork through a process that borrows memory: who its parent is, and what it has."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FORK = """
import os, select, signal, sys
from sandbox.supervisor.pykernel import forking, vforking
if sys.argv[1] == "ordinary":
    vforking._routine = None
assert (vforking._routine is None) == (sys.argv[2] == "none")
os.register_at_fork(after_in_child=lambda: seen.append("child"))
os.register_at_fork(before=lambda: seen.append("before"))
seen, here = [], os.getpid()
reading, writing = os.pipe()
before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
def become():
    seen.append("become")
pid = forking.fork_orphan(become)
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
if not pid:
    numbers = [os.getpid(), os.getppid() != here, seen[0], *seen[-2:]]
    os.write(writing, repr(numbers).encode())
    os._exit(0)
select.select([reading], [], [], 10)
try:
    os.wait()
except ChildProcessError:
    print("no child", "become" not in seen, os.read(reading, 999).decode() == repr(
        [pid, True, "before", "child", "become"]))
def fail():
    raise RuntimeError("no")
try:
    forking.fork_orphan(fail)
except forking.ForkFailed as exc:
    print(exc)
"""


@pytest.mark.parametrize("way", ["borrowing", "ordinary"])
def test_a_fork_is_nobodys_child_and_runs_all_handlers(way: str) -> None:
    has_code = way == "borrowing" and platform.machine() == "x86_64"
    words = [sys.executable, "-c", FORK, way, "some" if has_code else "none"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.stdout.splitlines() == ["no child True True", "RuntimeError: no"], done.stderr
