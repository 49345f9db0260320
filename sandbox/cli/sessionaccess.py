"""A session as a command of the command line uses it, here or at a served controller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import anyio

from sandbox.cli.remoteerrors import error_of
from sandbox.errors import ProtocolError
from sandbox.files.models import FileStat
from sandbox.server.channels.channel import Channel, Message

ChannelKind = Literal["terminal", "command", "kernel"]
ALIVE_S = 300.0
MAX_PAGES = 64
"""Of a listing; there is more than a person copies at once."""


@dataclass(frozen=True, slots=True)
class FolderListing:
    """What there is below a folder of a session, and what its workspace may hold."""

    entries: tuple[FileStat, ...]
    is_whole: bool
    workspace_bytes: int
    workspace_inodes: int


class Access(Protocol):
    """The way to one session."""

    @property
    def session_id(self) -> str:
        """Its id."""
        ...

    async def list(self, path: str, max_depth: int = 1, pattern: str = "") -> FolderListing:
        """List a folder and what is below it, so many levels in all; see ``Files.list``."""
        ...

    def read(self, path: str) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """Open a file: what it says its size is, and its bytes."""
        ...

    async def write(self, path: str, pieces: AsyncIterator[bytes], mode: int | None) -> None:
        """Write a file, with the folders above it."""
        ...

    async def mkdir(self, path: str) -> None:
        """Make a folder, with those above it."""
        ...

    def channel(self, kind: ChannelKind) -> AbstractAsyncContextManager[Channel]:
        """A channel, until the block ends; see ``sandbox.server.channels``."""
        ...


async def heard(channel: Channel, *, alive: Message | None = None) -> Message:
    """The next message of a channel.

    Args:
        alive: What means nothing at the other end, and is sent now and then when that is silent;
            a server ends a connection over which nothing is said for long.

    Raises:
        SandboxError: It says an error, or the other end has gone.
    """
    while True:
        with anyio.move_on_after(None if alive is None else ALIVE_S) as patience:
            message = await channel.receive()
            break
        if patience.cancelled_caught and alive is not None:
            await channel.send(alive)
    if message is None:
        raise ProtocolError("The server ended the connection without a word.")
    if isinstance(message, dict) and isinstance(message.get("error"), dict):
        raise error_of(message["error"])
    return message
