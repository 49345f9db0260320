"""The way to a session of a controller in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sandbox.cli.sessionaccess import MAX_PAGES, ChannelKind, FolderListing
from sandbox.files.models import MAX_ENTRIES, FileStat
from sandbox.server.channels.attachedcommand import serve_command
from sandbox.server.channels.attachedkernel import serve_kernel
from sandbox.server.channels.attachedterminal import serve_terminal
from sandbox.server.channels.channel import Channel, Serve, within_process
from sandbox.sessions.session import Session

SERVES: dict[ChannelKind, Serve] = {
    "terminal": serve_terminal,
    "command": serve_command,
    "kernel": serve_kernel,
}


class LocalAccess:
    """The way to a session of a controller in this process."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.session_id = session.session_id

    async def list(self, path: str, max_depth: int = 1, pattern: str = "") -> FolderListing:
        """List a folder and what is below it."""
        entries: list[FileStat] = []
        room = self._session.policy.workspace
        for _ in range(MAX_PAGES):
            async with self._session.use():
                page = await self._session.files.list(
                    path, max_depth, pattern, len(entries), MAX_ENTRIES
                )
            entries += page.entries
            if len(entries) >= page.total or not page.entries:
                whole = not page.truncated
                return FolderListing(tuple(entries), whole, room.size_bytes, room.inodes)
        return FolderListing(tuple(entries), False, room.size_bytes, room.inodes)

    @asynccontextmanager
    async def read(self, path: str) -> AsyncGenerator[tuple[int, AsyncIterator[bytes]]]:
        """Open a file."""
        async with self._session.use(), await self._session.files.open_read(path) as reading:
            yield reading.stat.size, aiter(reading)

    async def write(self, path: str, pieces: AsyncIterator[bytes], mode: int | None) -> None:
        """Write a file."""
        async with self._session.use():
            await self._session.files.write(path, pieces, mode)

    async def mkdir(self, path: str) -> None:
        """Make a folder."""
        async with self._session.use():
            await self._session.files.mkdir(path)

    def channel(self, kind: ChannelKind) -> AbstractAsyncContextManager[Channel]:
        """A channel."""
        return within_process(SERVES[kind], self._session)
