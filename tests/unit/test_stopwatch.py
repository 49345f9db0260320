"""The stopwatch of the served controllers in tests notes what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, gc, sys, time
from tests.support.stopwatch import watch

def hold_up():
    until = time.thread_time() + 0.08
    while time.thread_time() < until:
        pass

async def main():
    loop = asyncio.get_running_loop()
    loop.call_soon(hold_up)
    await asyncio.sleep(0.01)
    gc.freeze()
    loop.call_soon(hold_up)
    await asyncio.sleep(0.01)

watch(sys.argv[1])
asyncio.run(main())
"""


def test_a_callback_that_takes_long_is_noted_once_the_controller_serves(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", PROGRAM, str(slow)], cwd=root, check=True, timeout=30)
    (line,) = slow.read_text().splitlines()
    assert line.endswith(" s: hold_up")
