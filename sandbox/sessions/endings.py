"""How a session ends, and in which words its callers hear of it."""

from __future__ import annotations

from typing import Literal

from sandbox.errors import SandboxError, SessionLost
from sandbox.runtimes.base import ContainerInfo
from sandbox.sessions.journal import SessionState

Ending = Literal["closed", "expired", "lost", "kept"]
"""``kept`` ends only this controller's part: the container waits for the next one."""


def cause_of_end(info: ContainerInfo) -> str:
    """Why a container no longer runs, in words; empty when it does."""
    match info.state:
        case "missing":
            return "its container was removed from outside"
        case "exited" if info.exit_code is None and not info.oom_killed:
            return "its container was removed from outside"  # which is still going on
        case "exited" if info.oom_killed:
            return "its container ran out of memory as a whole"
        case "exited":
            return f"its container ended (exit code {info.exit_code})"
        case _:
            return ""


def ended_error(
    session_id: str, state: SessionState, reason: str, *, is_default: bool = False
) -> SandboxError:
    """The error for whoever uses a session that has ended.

    Args:
        session_id: Which one.
        state: How it ended.
        reason: Why, in words.
        is_default: Whether the caller meant its default session.
    """
    which = "Your default session" if is_default else "The session"
    return SessionLost(
        f"{which} {session_id} is {state}: {reason}. Its variables and processes are gone, "
        "and files that are not kept.",
        remedy="The next call opens a new one." if is_default else "open_session opens a new one.",
    )
