"""Folders of the host while sessions have them: looked at again, for what the host puts there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio

from sandbox.container.mounts import search
from sandbox.container.sockets import Search
from sandbox.container.spec import Mount
from sandbox.sessions.session import Session

EVERY_S = 60.0

logger = logging.getLogger(__name__)


async def search_folders(sessions: Callable[[], Iterable[Session]]) -> None:
    """Search the folders of all sessions for sockets and FIFOs, again and again until cancelled."""
    said: set[str] = set()
    while True:
        await anyio.sleep(EVERY_S)
        said = await search_once(sessions(), said)


async def search_once(sessions: Iterable[Session], said: Iterable[str] = ()) -> set[str]:
    """Search each folder once, and end the sessions that could reach the host through it; what was
    ``said`` before need not be said again.

    A folder that can no longer be searched to its end is said in the log and costs no session: it
    was searched when the session was opened.

    Returns:
        What is wrong with folders now, each in a sentence.
    """
    came: dict[Mount, Search] = {}
    wrong: set[str] = set()
    for session in tuple(sessions):
        for mount in session.sandbox.searched_mounts if session.is_usable else ():
            if mount not in came:
                came[mount] = await search(mount)
            if found := came[mount].found:
                session.begin_end(
                    "closed", f"{found} came into {mount.target}, and leads to the host"
                )
    for mount, each in came.items():
        if each.found:
            wrong.add(f"{mount.source}: {each.found} leads to a program of the host")
        elif each.unsearched:
            wrong.add(f"{mount.source} is not searched for sockets: {each.unsearched}")
    for sentence in sorted(wrong - set(said)):
        logger.warning("%s", sentence)
    return wrong
