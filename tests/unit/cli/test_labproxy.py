"""The origin of a person's JupyterLab: what is passed on, to which of two servers, and of whom."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import pytest
from anyio.abc import ByteStream, SocketAttribute, SocketStream

from sandbox.cli.labproxy import LabProxy, Upstream

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Behind:
    """A server that notes the heads of its requests, and answers with its name."""

    name: str
    port: int = 0
    heads: list[str] = field(default_factory=list[str])
    more: bytes = b""
    """What came behind the head of the last one."""

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            head, _, self.more = head.partition(b"\r\n\r\n")
            self.heads.append(head.decode() + "\r\n\r\n")
            await stream.send(
                b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nConnection: keep-alive\r\n\r\n"
                + self.name.encode()
            )
            with anyio.move_on_after(0.2), suppress(anyio.EndOfStream):
                self.more += await stream.receive()

    async def connect(self) -> ByteStream:
        return await anyio.connect_tcp("127.0.0.1", self.port)


@dataclass
class Front:
    """The proxy and what is behind it."""

    proxy: LabProxy
    port: int
    lab: Behind
    session: Behind

    async def ask(self, target: str, method: str = "GET", body: str = "", **headers: str) -> str:
        """What a browser is answered that has opened the address."""
        known = {"Host": f"127.0.0.1:{self.port}"}
        known["Cookie"] = f"sandbox-lab-{self.port}={self.proxy.key}"
        lines = [f"{name}: {value}" for name, value in {**known, **headers}.items() if value]
        asked = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", body])
        answer = b""
        with anyio.fail_after(5):
            async with await anyio.connect_tcp("127.0.0.1", self.port) as stream:
                await stream.send(asked.encode())
                try:
                    while True:
                        answer += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
        return answer.decode()


@asynccontextmanager
async def listening(serve: Callable[..., object]) -> AsyncIterator[int]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        yield listener.extra(SocketAttribute.local_port)  # noqa: S610  # no Django
        tasks.cancel_scope.cancel()


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    lab, session = Behind("lab"), Behind("session")
    made: list[LabProxy] = []

    async def serve(stream: SocketStream) -> None:
        await made[0].serve(stream)

    async with (
        listening(lab.serve) as lab.port,
        listening(session.serve) as session.port,
        listening(serve) as port,
    ):
        pages = Upstream(lab.connect, "localhost", "token lab-secret")
        server = Upstream(session.connect, "host:8000", "Bearer secret", "/jupyter/s1")
        made.append(LabProxy(pages, server, port))
        yield Front(made[0], port, lab, session)


async def test_pages_come_from_the_lab_and_all_else_from_the_session(front: Front) -> None:
    assert (await front.ask("/lab/tree/a.ipynb")).endswith("lab")
    assert (await front.ask("/static/lab/main.js")).endswith("lab")
    assert (await front.ask("/api/contents/a.ipynb?content=1&token=x")).endswith("session")
    asked = front.session.heads[0]
    assert asked.startswith("GET /jupyter/s1/api/contents/a.ipynb?content=1 HTTP/1.1\r\n")
    assert "Authorization: Bearer secret" in asked
    assert "Cookie" not in asked
    assert front.proxy.key not in "".join((*front.lab.heads, *front.session.heads))


async def test_the_browser_gets_no_cookie_and_no_second_request_of_a_connection(
    front: Front,
) -> None:
    answer = await front.ask("/lab")
    assert "Set-Cookie" not in answer
    assert "Connection: close" in answer


async def test_what_follows_a_request_that_switches_to_nothing_is_not_passed_on(
    front: Front,
) -> None:
    second = "GET /api/contents HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = await front.ask("/lab", Upgrade="x", body=second)
    assert answer.endswith("lab")
    assert "Connection: close" in answer
    assert front.lab.more == b""


@pytest.mark.parametrize(
    ("target", "method", "headers", "status"),
    [
        ("/lab", "GET", {"Cookie": ""}, 403),
        ("/lab", "GET", {"Cookie": "sandbox-lab-1=x"}, 403),
        ("/lab?token=wrong", "GET", {"Cookie": ""}, 403),
        ("/lab", "GET", {"Host": "evil.example"}, 421),
        ("/api/contents", "GET", {"Origin": "http://evil.example"}, 403),
        ("/api/contents", "PUT", {"Transfer-Encoding": "chunked"}, 411),
        ("/api/contents", "PUT", {"Content-Length": "-1"}, 400),
        ("/api/contents", "PUT", {"Content-Length": "5", "content-length": "0"}, 400),
        ("/api/contents", "GET", {"X-A": "b\rX-C: d"}, 400),
        ("/api/contents", "GET", {"X-A": "b\nX-C: d"}, 400),
        ("/api/contents/\nX-C:d", "GET", {}, 400),
        ("/lab/../api/terminals", "GET", {}, 404),
        ("/lab/%2e%2e/api/terminals", "GET", {}, 404),
        ("/lab/..%2fapi/terminals", "GET", {}, 404),
        ("/lab\\..\\api", "GET", {}, 404),
        ("/terminals/websocket/1", "GET", {}, 404),
        ("/lab/api/extensions", "POST", {}, 404),
        ("/lab/api/build", "POST", {}, 404),
        ("/tree", "GET", {}, 404),
        ("/labx", "GET", {}, 404),
    ],
)
async def test_nothing_else_is_passed_on(
    front: Front, target: str, method: str, headers: dict[str, str], status: int
) -> None:
    answer = await front.ask(target, method, **headers)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert front.lab.heads == []
    assert front.session.heads == []


async def test_the_key_in_the_address_becomes_a_cookie_of_this_origin(front: Front) -> None:
    target = f"/lab/tree/a.ipynb?x=1&token={front.proxy.key}"
    answer = await front.ask(target, Cookie="")
    assert answer.startswith("HTTP/1.1 302 ")
    assert "Location: /lab/tree/a.ipynb?x=1\r\n" in answer
    assert "HttpOnly; SameSite=Strict" in answer
    for path in ("//evil.example/", "/\\evil.example/"):
        elsewhere = await front.ask(f"{path}?token={front.proxy.key}", Cookie="")
        assert "Location: /lab\r\n" in elsewhere
