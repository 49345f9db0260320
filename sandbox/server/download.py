"""A file of a session as an answer to a request, which no browser renders."""

from __future__ import annotations

import mimetypes
from contextlib import AsyncExitStack
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sandbox.files.files import Reading
from sandbox.files.models import FileStat
from sandbox.outputs.redaction import Pieces

CHUNK_BYTES = 256 * 1024
HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of what comes from a sandbox, so that no browser renders it, keeps it or gives it to others."""


class Download(Response):
    """A file, or a part of its bytes, as an attachment that no browser renders."""

    def __init__(
        self,
        reading: Reading,
        resources: AsyncExitStack,
        part: range | None,
        pieces: Pieces,
        *,
        head: bool,
    ) -> None:
        stat = reading.stat
        super().__init__(status_code=206 if part else 200)
        self._reading = reading
        self._pieces = pieces
        self._resources = resources
        self._left = len(part) if part else stat.size
        self._head = head
        mime, _ = mimetypes.guess_type(stat.name)
        name = stat.name.encode("ascii", "replace").decode().replace("?", "_")
        for key, value in {
            "Content-Type": _harmless(mime),
            "Content-Length": str(self._left),
            "Content-Disposition": f'attachment; filename="{_quoted(name)}"; '
            f"filename*=UTF-8''{quote(stat.name, safe='')}",
            **HARMLESS,
            "Accept-Ranges": "bytes",
            **etag_header(stat),
        }.items():
            self.headers[key] = value
        if part:
            self.headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{stat.size}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a file that became shorter meanwhile breaks the connection off."""
        async with self._resources:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            if not self._head:
                await self._send_all(send)
            await send({"type": "http.response.body", "body": b""})

    async def _send_all(self, send: Send) -> None:
        chunk = bytearray()
        async for piece in self._reading:
            chunk += self._pieces.feed(piece)[: self._left - len(chunk)]
            if len(chunk) >= CHUNK_BYTES or len(chunk) == self._left:
                await send({"type": "http.response.body", "body": bytes(chunk), "more_body": True})
                self._left -= len(chunk)
                chunk.clear()
            if not self._left:
                return
        chunk += self._pieces.last()[: self._left - len(chunk)]
        if chunk:
            await send({"type": "http.response.body", "body": bytes(chunk), "more_body": True})


def _harmless(mime: str | None) -> str:
    """A type that no browser runs or renders as a page."""
    kind = (mime or "").partition("/")[0]
    if mime == "image/svg+xml" or kind not in ("image", "audio", "video"):
        return "text/plain; charset=utf-8" if mime == "text/plain" else "application/octet-stream"
    return mime or ""


def _quoted(name: str) -> str:
    return "".join(c for c in name if c.isprintable() and c not in '"\\')


def etag_header(stat: FileStat) -> dict[str, str]:
    return {"ETag": f'"{stat.etag}"'} if stat.etag.isprintable() and stat.etag.isascii() else {}
