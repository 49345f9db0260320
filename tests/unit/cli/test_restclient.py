"""Asking a served controller, or what is in its place, over REST."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from sandbox.cli import restclient
from sandbox.cli.restclient import RestClient
from sandbox.errors import InfrastructureError

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


@asynccontextmanager
async def client(body: bytes, asked: list[bytes]) -> AsyncIterator[RestClient]:
    """A client of a server that answers everything so, until the other end hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        with suppress(OSError):
            writer.write(HEAD + body)
            await writer.drain()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with RestClient(f"http://127.0.0.1:{port}", "secret-token") as made:
            yield made


async def test_an_answer_is_the_json_that_it_says_and_asked_for_unpacked() -> None:
    asked: list[bytes] = []
    with anyio.fail_after(10):
        async with client(b'{"x": 1}', asked) as rest:
            assert await rest.call("GET", "sessions", query={"n": 2}) == {"x": 1}
    assert asked[0].startswith(b"GET /mcp/v1/sessions?n=2 HTTP/1.1\r\n")
    assert b"accept-encoding: identity\r\n" in asked[0].lower()
    assert b"authorization: bearer secret-token\r\n" in asked[0].lower()


async def test_a_file_comes_as_it_is_asked_for_unpacked() -> None:
    asked: list[bytes] = []
    with anyio.fail_after(10):
        async with client(b"as it is", asked) as rest, rest.download("x", "a b") as (_, pieces):
            assert b"".join([piece async for piece in pieces]) == b"as it is"
    assert asked[0].startswith(b"GET /mcp/v1/x/a%20b HTTP/1.1\r\n")
    assert b"accept-encoding: identity\r\n" in asked[0].lower()


async def test_an_answer_that_is_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restclient, "MAX_ANSWER_BYTES", 100_000)
    with anyio.fail_after(10), pytest.raises(InfrastructureError, match="too long"):
        async with client(b" " * 10_000_000, []) as rest:
            await rest.call("GET", "sessions")


async def test_what_is_no_json_is_said() -> None:
    with anyio.fail_after(10), pytest.raises(InfrastructureError, match="else than JSON"):
        async with client(b"<html>", []) as rest:
            await rest.call("GET", "sessions")
