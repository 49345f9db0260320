"""A served controller asked over REST, and over the WebSockets of its sessions."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from sandbox.cli.remoteerrors import of_problem
from sandbox.cli.websocket import SocketClient, connect
from sandbox.errors import InfrastructureError, InvalidRequest

PREFIX = "/mcp/v1"
TIMEOUT_S = 120.0
MAX_ANSWER_BYTES = 16 * 1024 * 1024


class RestClient:
    """A client of one server; an async context manager.

    Args:
        url: Of the server, with or without ``/mcp/v1``.

    Raises:
        InvalidRequest: The URL is none of a server.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url = base_of(url)
        if not _is_url(self.url):
            raise InvalidRequest(
                f"{url[:200]!r} is no URL of a server.",
                remedy="Give one such as http://127.0.0.1:8000 or https://sandbox.example.org.",
            )
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise InvalidRequest(
                f"There is no usable token for {self.url}.",
                remedy="Set SANDBOX_TOKEN to one that `sandbox token create` made there.",
            )
        self.token = token
        self.tls = ssl.create_default_context() if self.url.startswith("https:") else None
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            # Whatever stands between may not pack files: they are taken as they come.
            headers={"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(TIMEOUT_S, connect=10),
            verify=self.tls or False,
            trust_env=False,  # a proxy of this machine's has nothing to do with a server on it
        )

    async def __aenter__(self) -> RestClient:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        *path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | int] | None = None,
    ) -> Any:
        """Send a request for a path, given in its parts, and return its JSON answer.

        Raises:
            SandboxError: As the server says, or it does not answer.
        """
        request = self._http.build_request(method, _target(path), json=body, params=query)
        return self._told(*await self._answer(request))

    @asynccontextmanager
    async def download(self, *path: str) -> AsyncGenerator[tuple[int, AsyncIterator[bytes]]]:
        """A file: its size as the server says it, and its bytes."""
        with self._translated():
            async with self._http.stream("GET", _target(path)) as answer:
                if answer.status_code >= 400:
                    self._told(answer.status_code, await _content(answer))
                size = answer.headers.get("Content-Length", "")
                yield int(size) if size.isdecimal() else 0, answer.aiter_raw()

    async def upload(self, pieces: AsyncIterator[bytes], mode: str, *path: str) -> None:
        """Write a file of so many pieces, with permissions in octal."""
        query = {"mode": mode} if mode else {}
        request = self._http.build_request("PUT", _target(path), content=pieces, params=query)
        self._told(*await self._answer(request))

    @asynccontextmanager
    async def channel(self, *path: str) -> AsyncGenerator[SocketClient]:
        """A channel of a session, until the block ends."""
        target = urlsplit(self.url).path + _target(path)
        async with connect(self.url, target, self.token, self.tls) as channel:
            yield channel

    @asynccontextmanager
    async def kernel(self, session_id: str, kernel_id: str) -> AsyncGenerator[SocketClient]:
        """A kernel as a client of a Jupyter Server has it, until the block ends."""
        session, kernel = (quote(each, safe="") for each in (session_id, kernel_id))
        target = f"{urlsplit(self.url).path}/jupyter/{session}/api/kernels/{kernel}/channels"
        async with connect(self.url, target, self.token, self.tls) as channel:
            yield channel

    async def _answer(self, request: httpx2.Request) -> tuple[int, bytes]:
        with self._translated():
            answer = await self._http.send(request, stream=True)
            try:
                return answer.status_code, await _content(answer)
            finally:
                await answer.aclose()

    def _told(self, status: int, content: bytes) -> Any:
        """What an answer says.

        Raises:
            SandboxError: It is an error.
        """
        try:
            told: object = json.loads(content or b"null")
        except (ValueError, RecursionError) as exc:
            raise InfrastructureError(
                f"{self.url} answered with something else than JSON (status {status}).",
                remedy="Look whether that is the address of a sandbox server.",
            ) from exc
        if status < 400:
            return told
        if status == 401:
            raise InvalidRequest(
                f"{self.url} does not take this token.",
                remedy="Set SANDBOX_TOKEN or --token to one that it gave out.",
            )
        raise of_problem(told, f"{self.url} answered with status {status}.")

    @contextmanager
    def _translated(self) -> Generator[None]:
        try:
            yield
        except httpx2.HTTPError as exc:
            raise InfrastructureError(
                f"{self.url} does not answer: {exc or type(exc).__name__}.",
                remedy="Start it with `sandbox serve`, or look at --url and SANDBOX_URL.",
            ) from exc


def base_of(url: str) -> str:
    """The URL of a server without what is served there."""
    return url.rstrip("/").removesuffix(PREFIX)


async def _content(answer: httpx2.Response) -> bytes:
    content = bytearray()
    async for piece in answer.aiter_raw():
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            raise InfrastructureError("The server's answer is too long.")
    return bytes(content)


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # looked at when it is asked for
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _target(path: tuple[str, ...]) -> str:
    """The address of a path; of a file in a session the last part may have slashes of its own."""
    return "/".join((PREFIX, *(quote(part, safe="/" if part is path[-1] else "") for part in path)))
