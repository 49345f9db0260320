"""What a browser with a person's own JupyterLab speaks to: pages from here, a session from there.

JupyterLab wants its pages and the server that it works with at one origin. This is such an origin,
on loopback: the pages and their settings come from the person's JupyterLab, everything below
``/api`` from the session's Jupyter Server, whose token the browser never sees. Nothing else of
either is reached: the JupyterLab's own files, kernels and terminals are the person's machine.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode

import anyio
from anyio.abc import ByteReceiveStream, ByteStream
from anyio.streams.buffered import BufferedByteReceiveStream

from sandbox.errorgroups import one_error

MAX_HEAD_BYTES = 64 * 1024
HEAD_S = 30.0
CONNECT_S = 10.0
PIECE_BYTES = 64 * 1024
MAX_CONNECTIONS = 256

_TOKEN = "token"  # noqa: S105  # the name of a part of a query
_OWN = ("host", "origin", "referer", "cookie", "authorization", "connection", "x-xsrftoken")
"""Headers that are between the browser and us."""
_CONTROL = re.compile(r"[\0-\x08\n-\x1f\x7f]")
"""What no line of a head has: some servers take it for the end of one."""
_KEPT = ("/lab/api/settings", "/lab/api/workspaces")
"""What the pages may change at the JupyterLab: how it looks."""
_READ = ("/lab", "/static")


@dataclass(frozen=True, slots=True)
class Upstream:
    """One of the two servers behind it."""

    connect: Callable[[], Awaitable[ByteStream]]
    host: str
    authorization: str
    prefix: str = ""
    """What stands before a path there."""


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of a request or a response."""

    first: tuple[str, str, str]
    headers: tuple[tuple[str, str], ...]

    def get(self, name: str) -> str:
        """A header; empty when there is none."""
        return next((value for each, value in self.headers if each.lower() == name), "")

    def without(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """The headers but those."""
        return [(name, value) for name, value in self.headers if name.lower() not in names]


class _Refused(Exception):
    """A request that is not passed on: the status, and why."""

    def __init__(self, status: int, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(why)
        self.status = status
        self.headers = headers


class LabProxy:
    """The origin of one JupyterLab that works in one session.

    Whoever opens the address with the key in it gets a cookie, without which nothing is answered:
    other people of this machine and other pages of the browser have none of it.

    Args:
        port: Where it is served, on 127.0.0.1.
    """

    def __init__(self, lab: Upstream, session: Upstream, port: int) -> None:
        self._lab = lab
        self._session = session
        self._port = port
        self._cookie = f"sandbox-lab-{port}"
        self._hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        self._places = anyio.CapacityLimiter(MAX_CONNECTIONS)
        self.key = secrets.token_urlsafe(32)

    def address(self, path: str) -> str:
        """What a person opens."""
        return f"http://127.0.0.1:{self._port}{path}?{urlencode({_TOKEN: self.key})}"

    async def serve(self, browser: ByteStream) -> None:
        """Serve one connection, which is one request."""
        async with self._places, browser:
            incoming = BufferedByteReceiveStream(browser)
            try:
                with anyio.fail_after(HEAD_S):
                    head = await _read_head(incoming)
                upstream, target = self._routed(head)
                with anyio.fail_after(CONNECT_S):
                    server = await upstream.connect()
                async with server:
                    await self._pass(head, incoming, browser, server, upstream, target)
            except _Refused as exc:
                await _answer(browser, exc)
            except (OSError, TimeoutError):
                await _answer(browser, _Refused(502, "What should answer this does not."))
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    def _routed(self, head: _Head) -> tuple[Upstream, str]:
        """Where a request goes, and what it asks for there.

        Raises:
            _Refused: It goes nowhere.
        """
        method, target, _ = head.first
        path, _, query = target.partition("?")
        if head.get("host") not in self._hosts:
            raise _Refused(421, "This is served at another address.")
        asked = parse_qsl(query, keep_blank_values=True)
        rest = [(name, value) for name, value in asked if name != _TOKEN]
        if not self._is_known(head):
            given = dict(asked).get(_TOKEN, "")
            if method == "GET" and secrets.compare_digest(given.encode(), self.key.encode()):
                there = path if re.match(r"/(?![/\\])", path) else "/lab"
                raise _Refused(
                    302,
                    "",
                    ("Location", there + (f"?{urlencode(rest)}" if rest else "")),
                    (
                        "Set-Cookie",
                        f"{self._cookie}={self.key}; HttpOnly; SameSite=Strict; Path=/",
                    ),
                )
            raise _Refused(403, "Open the address that `sandbox lab` has printed.")
        if head.get("origin") not in ("", *(f"http://{host}" for host in self._hosts)):
            raise _Refused(403, "This is not for other pages.")
        if head.get("transfer-encoding"):
            raise _Refused(411, "Say how long the body is.")
        _length(head)
        if path == "/":
            raise _Refused(302, "", ("Location", "/lab"))
        if not {"..", "."}.isdisjoint(re.split(r"[/\\]", unquote(path))):
            raise _Refused(404, "There is no such page.")
        upstream = self._server_of(method, path)
        asks = f"?{urlencode(rest)}" if rest else ""
        return upstream, f"{upstream.prefix}{path}{asks}"

    def _is_known(self, head: _Head) -> bool:
        parts = (part.strip().partition("=") for part in head.get("cookie").split(";"))
        found = [value for name, _, value in parts if name == self._cookie]
        return any(secrets.compare_digest(each.encode(), self.key.encode()) for each in found)

    def _server_of(self, method: str, path: str) -> Upstream:
        if _below(path, ("/api", "/files")):
            return self._session
        is_read = method in ("GET", "HEAD") and _below(path, _READ)
        is_kept = method in ("PUT", "POST", "DELETE") and _below(path, _KEPT)
        if is_read or is_kept:
            return self._lab
        raise _Refused(404, "There is no such page.")

    async def _pass(
        self,
        head: _Head,
        incoming: BufferedByteReceiveStream,
        browser: ByteStream,
        server: ByteStream,
        upstream: Upstream,
        target: str,
    ) -> None:
        """Pass a request on, and what comes back."""
        upgrade, length = head.get("upgrade"), _length(head)
        headers = [
            ("Host", upstream.host),
            ("Authorization", upstream.authorization),
            ("Connection", "Upgrade" if upgrade else "close"),
            *head.without(_OWN),
        ]
        await server.send(_written((head.first[0], target, "HTTP/1.1"), headers))
        outgoing = BufferedByteReceiveStream(server)
        async with one_error() as tasks:
            tasks.start_soon(_pour_some, incoming, server, length)
            answer = await _read_head(outgoing)
            is_switched = bool(upgrade) and answer.first[1] == "101"
            kept = answer.without(("set-cookie", "connection"))
            kept.append(("Connection", "Upgrade" if is_switched else "close"))
            await browser.send(_written(answer.first, kept))
            if is_switched:  # else it would be another request
                tasks.start_soon(_pour, incoming, server)
            await _pour(outgoing, browser)
            tasks.cancel_scope.cancel()


def _below(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == each or path.startswith(f"{each}/") for each in prefixes)


def _length(head: _Head) -> int:
    lengths = {value for name, value in head.headers if name.lower() == "content-length"} or {"0"}
    length = lengths.pop()
    if lengths:
        raise _Refused(400, "The body has several lengths.")
    if not length.isascii() or not length.isdigit():
        raise _Refused(400, "The length of the body is no number.")
    return int(length)


async def _read_head(stream: BufferedByteReceiveStream) -> _Head:
    try:
        data = await stream.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)
    except anyio.DelimiterNotFound as exc:
        raise _Refused(431, "The headers are too long.") from exc
    except anyio.IncompleteRead as exc:
        raise anyio.EndOfStream from exc
    first, *lines = data.decode("latin-1").split("\r\n")
    if any(map(_CONTROL.search, (first, *lines))):
        raise _Refused(400, "These are no headers.")
    words = [*first.split(" ", 2), "", ""]
    headers = [tuple(part.strip() for part in line.partition(":")[::2]) for line in lines]
    if not all(name and " " not in name for name, _ in headers):
        raise _Refused(400, "These are no headers.")
    return _Head((words[0], words[1], words[2]), tuple((name, value) for name, value in headers))


def _written(first: tuple[str, str, str], headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [" ".join(first).rstrip(), *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def _pour(source: ByteReceiveStream, target: ByteStream) -> None:
    """Pass bytes on until there are no more, or nobody takes them."""
    try:
        while True:
            await target.send(await source.receive(PIECE_BYTES))
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


async def _pour_some(source: ByteReceiveStream, target: ByteStream, count: int) -> None:
    try:
        while count > 0:
            piece = await source.receive(min(count, PIECE_BYTES))
            count -= len(piece)
            await target.send(piece)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return


async def _answer(browser: ByteStream, refused: _Refused) -> None:
    body = str(refused).encode()
    headers = [
        *refused.headers,
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ]
    with anyio.move_on_after(5):
        try:
            await browser.send(_written(("HTTP/1.1", str(refused.status), "-"), headers) + body)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return
