"""The event loops of a kernel: what a fork of it must make anew of them, and what goes on."""

# What is inside an event loop of asyncio is annotated nowhere.
# pyright: reportPrivateUsage=false
from __future__ import annotations

import asyncio
import gc
import signal
from asyncio import selector_events
from collections.abc import Container, Iterable
from typing import Any, cast

_KIND: Any = cast("Any", selector_events).BaseSelectorEventLoop


def find(own: asyncio.AbstractEventLoop, *, thorough: bool) -> list[Any]:
    """The event loops that a fork can have.

    Args:
        own: The kernel's.
        thorough: Whether to look for those of the user's making, among all objects.
    """
    known: list[Any] = [own]
    if thorough:
        known += [each for each in gc.get_objects() if isinstance(each, _KIND) and each is not own]
    return [each for each in known if not each.is_closed()]


def descriptors(loops: Iterable[Any]) -> set[int]:
    """The descriptors with which loops wait and are woken."""
    return {
        fd
        for loop in loops
        for fd in (loop._selector.fileno(), loop._ssock.fileno(), loop._csock.fileno())
    }


def watched(loops: Iterable[Any]) -> set[int]:
    """The descriptors that tasks of these loops wait for."""
    return {fd for loop in loops for fd in cast("dict[int, Any]", loop._selector.get_map() or {})}


def make_own(loop: Any, kept: Container[int]) -> None:
    """In a fork: give a loop a selector and a self-pipe of its own; timers and tasks stay.

    The old selector is closed, not emptied: it is the other side's as well.

    Args:
        kept: The descriptors that it goes on to wait for.
    """
    old = loop._selector
    keys = cast("dict[int, Any]", old.get_map() or {})
    loop._selector = type(old)()
    for key in keys.values():
        if key.fd in kept:
            loop._selector.register(key.fileobj, key.events, key.data)
    waker, wakes = loop._csock.fileno(), signal.set_wakeup_fd(-1)
    old.close()
    loop._close_self_pipe()
    loop._make_self_pipe()
    signal.set_wakeup_fd(loop._csock.fileno() if wakes == waker else wakes)
