"""Signals that end a command, what the first Ctrl-C does instead, and what stays ignored."""

from __future__ import annotations

import os
import signal
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
