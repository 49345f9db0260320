"""Waiting for what a test cannot be told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio


async def until(condition: Callable[[], Any], timeout_s: float = 20) -> None:
    """Poll until something holds; fails when it does not within the time."""
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(0.005)
