"""The way to a session of a served controller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

from pydantic import ValidationError

from sandbox.cli.restclient import RestClient
from sandbox.cli.sessionaccess import MAX_PAGES, ChannelKind, FolderListing
from sandbox.errors import ProtocolError
from sandbox.files.models import FileStat
from sandbox.server.channels.channel import Channel


class RemoteAccess:
    """The way to a session of a served controller."""

    def __init__(self, client: RestClient, session_id: str) -> None:
        self._client = client
        self.session_id = session_id

    async def list(self, path: str, max_depth: int = 1, pattern: str = "") -> FolderListing:
        """List a folder and what is below it."""
        entries: list[FileStat] = []
        found: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            query: dict[str, str | int] = {
                "path": path,
                "max_depth": max_depth,
                "pattern": pattern,
                "start_index": len(entries),
            }
            found = await self._client.call("GET", *self._files, query=query)
            page = [_stat(each) for each in found["entries"]]
            entries += page
            if len(entries) >= found["total"] or not page:
                break
        is_whole = not found["truncated"] and len(entries) >= found["total"]
        room = found["workspace_bytes"], found["workspace_inodes"]
        return FolderListing(tuple(entries), is_whole, *room)

    def read(self, path: str) -> AbstractAsyncContextManager[tuple[int, AsyncIterator[bytes]]]:
        """Open a file."""
        return self._client.download(*self._files, path)

    async def write(self, path: str, pieces: AsyncIterator[bytes], mode: int | None) -> None:
        """Write a file."""
        octal = "" if mode is None else f"{mode:03o}"
        await self._client.upload(pieces, octal, *self._files, path)

    async def mkdir(self, path: str) -> None:
        """Make a folder."""
        await self._client.call("PUT", *self._files, path.rstrip("/") + "/")

    def channel(self, kind: ChannelKind) -> AbstractAsyncContextManager[Channel]:
        """A channel."""
        return self._client.channel("sessions", self.session_id, kind)

    @property
    def _files(self) -> tuple[str, ...]:
        return ("sessions", self.session_id, "files")


def _stat(found: Any) -> FileStat:
    try:
        return FileStat.model_validate(found)
    except ValidationError as exc:
        raise ProtocolError("The server's list of files makes no sense.") from exc
