"""An event loop in a thread, for contenders whose interface is asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")


class Background:
    """One loop, which any thread may use."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def wait(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Do some work in the loop; what comes of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
