"""Signals that end a command, what the first Ctrl-C does instead, and what stays ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from sandbox.cli.signals import ended_by_signals

pytestmark = pytest.mark.anyio


@contextmanager
def handled(number: signal.Signals, how: signal.Handlers) -> Iterator[None]:
    before = signal.signal(number, how)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT])
async def test_a_signal_ends_the_block_and_is_its_exit_code(number: signal.Signals) -> None:
    with anyio.fail_after(5):
        async with ended_by_signals() as ending:
            os.kill(os.getpid(), number)
            await anyio.sleep_forever()
    assert ending.exit_code == 128 + number


async def test_the_first_ctrl_c_does_what_it_is_told_and_the_second_ends() -> None:
    done = anyio.Event()

    async def interrupt() -> None:
        done.set()

    with anyio.fail_after(5):
        async with ended_by_signals() as ending:
            ending.interrupt = interrupt
            os.kill(os.getpid(), signal.SIGINT)
            await done.wait()
            assert ending.number is None
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep_forever()
    assert ending.exit_code == 130


async def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    with handled(signal.SIGHUP, signal.SIG_IGN):
        async with ended_by_signals() as ending:
            os.kill(os.getpid(), signal.SIGHUP)
            await anyio.sleep(0.1)
        assert ending.number is None


DEAF = """
import ctypes, signal, threading
from sandbox.cli.signals import exit_by_signals
with exit_by_signals(signal.SIGTERM):
    elsewhere = threading.Timer(0.3, signal.raise_signal, [signal.SIGTERM])
    elsewhere.start()
    print("waiting", flush=True)
    ctypes.CDLL(None).pause()  # nothing breaks this off that is not sent to this very thread
    print("went on", flush=True)
"""


def test_a_signal_is_heard_by_what_waits_in_c_and_did_not_notice_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "waiting\n")
