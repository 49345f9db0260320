"""What a caller must be told besides, such as whose session its call goes on with."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_notices: ContextVar[list[str] | None] = ContextVar("notices", default=None)


@contextmanager
def noticing() -> Generator[list[str]]:
    """Collect what the call must be told that the block serves, in the order in which it came."""
    notices: list[str] = []
    token = _notices.set(notices)
    try:
        yield notices
    finally:
        _notices.reset(token)


def notice(text: str) -> None:
    """Tell the call that this task serves, if it serves one."""
    if (notices := _notices.get()) is not None:
        notices.append(text)
