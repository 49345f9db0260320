"""How a session ends, and in which words its callers hear of it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from sandbox.errors import LinkLost, SandboxError, SessionLost
from sandbox.sessions.journal import SessionState

Ending = Literal["closed", "expired", "lost", "kept"]
"""``kept`` ends only this controller's part: the container waits for the next one."""

logger = logging.getLogger(__name__)


def ended_error(
    session_id: str, state: SessionState, reason: str, *, is_default: bool = False
) -> SandboxError:
    """The error for whoever uses a session that has ended."""
    which = "Your default session" if is_default else "The session"
    return SessionLost(
        f"{which} {session_id} is {state}: {reason}. Its variables and processes are gone, "
        "and files that are not kept.",
        remedy="The next call opens a new one." if is_default else "open_session opens a new one.",
    )


def still_reconnecting() -> LinkLost:
    """The error for whoever uses a session whose link is being made again."""
    return LinkLost(
        "The connection to the session was lost and is being made again.",
        remedy="Try again in a moment; what runs in the session goes on meanwhile.",
    )


@contextmanager
def ending_step(session_id: str, what: str) -> Generator[None]:
    """A step of a session's end; whatever it fails with is logged, and the next one is taken."""
    try:
        yield
    except SandboxError as exc:
        logger.error("session %s: %s: %s", session_id, what, exc)
    except Exception:  # the outermost edge of a session
        logger.exception("session %s: %s", session_id, what)
