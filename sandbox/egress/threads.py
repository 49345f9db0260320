"""Blocking work in threads that hold up nobody, whatever becomes of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

_T = TypeVar("_T")


def in_thread(
    work: Callable[[], _T], name: str, at_end: Callable[[], None] = lambda: None
) -> asyncio.Future[_T]:
    """Do something in a thread of its own, which ends with the process if not by itself.

    Args:
        at_end: Called in the event loop when the thread has ended, whether or not somebody still
            waits.

    Returns:
        What becomes of it; an ``OSError`` when no thread can be started.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def finish(tell: Callable[[], None]) -> None:
        at_end()
        if not answer.done():  # otherwise nobody waits any longer
            tell()

    def run() -> None:
        try:
            tell = partial(answer.set_result, work())
        except Exception as exc:  # whoever waits for it says what it means
            tell = partial(answer.set_exception, exc)
        with suppress(RuntimeError):  # the controller has ended meanwhile
            loop.call_soon_threadsafe(finish, tell)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as exc:
        at_end()
        answer.set_exception(OSError(f"no thread can be started: {exc}"))
    return answer
