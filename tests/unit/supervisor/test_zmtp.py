"""Against libzmq itself, as every kernel uses it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import pytest
import zmq

from sandbox.errors import InfrastructureError
from sandbox.supervisor import zmtp
from sandbox.supervisor.zmtp import Incoming, ZmtpConnection

pytestmark = pytest.mark.anyio


Bind = Callable[..., tuple[Any, str]]


def name() -> str:
    return f"@sandbox-test-{uuid.uuid4().hex}"


@pytest.fixture
def bind() -> Iterator[Bind]:
    """Makes bound sockets of libzmq and tells their addresses."""
    context = zmq.Context()
    made: list[Any] = []

    def make(kind: int, options: Mapping[int, int] | None = None) -> tuple[Any, str]:
        bound, address = context.socket(kind), name()
        made.append(bound)
        for option, value in (options or {}).items():
            bound.setsockopt(option, value)
        bound.bind(f"ipc://{address}")
        return bound, address

    yield make
    for bound in made:
        bound.close(linger=0)
    context.term()


async def connect(kind: str, address: str) -> tuple[ZmtpConnection, asyncio.Queue[Incoming]]:
    received: asyncio.Queue[Incoming] = asyncio.Queue()
    connection = ZmtpConnection(kind, received.put_nowait)
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: connection, address.replace("@", "\0", 1))
    return connection, received


async def test_messages_go_both_ways_whole(bind: Bind) -> None:
    router, address = bind(zmq.ROUTER)
    connection, received = await connect("DEALER", address)
    with anyio.fail_after(10):
        await connection.ready()
        sent = [b"", b"short", bytes(255), bytes(256), bytes(1_000_000)]
        await connection.send(sent)
        identity, *frames = await asyncio.to_thread(router.recv_multipart)
        assert frames == sent
        for _ in range(3):
            router.send_multipart([identity, *sent])
        for _ in range(3):
            message = await received.get()
            assert message == Incoming(sent, sum(map(len, sent)), complete=True)
    connection.close()


async def test_a_subscriber_gets_everything_published(bind: Bind) -> None:
    publisher, address = bind(zmq.XPUB)
    connection, received = await connect("SUB", address)
    with anyio.fail_after(10):
        await connection.ready()
        assert await asyncio.to_thread(publisher.recv) == b"\x01"
        publisher.send_multipart([b"topic", b"body"])
        assert (await received.get()).frames == [b"topic", b"body"]
    connection.close()


async def test_a_message_that_is_too_large_is_skipped_and_the_next_one_comes(bind: Bind) -> None:
    publisher, address = bind(zmq.XPUB)
    connection, received = await connect("SUB", address)
    huge = zmtp.MAX_MESSAGE + 1
    with anyio.fail_after(20):
        await connection.ready()
        await asyncio.to_thread(publisher.recv)
        publisher.send_multipart([b"head", bytes(huge), b"", b"tail"])
        publisher.send_multipart([b"next"])
        assert await received.get() == Incoming([b"head"], huge + 8, complete=False)
        assert (await received.get()).frames == [b"next"]
    connection.close()


async def test_a_message_of_too_many_frames_is_cut(bind: Bind) -> None:
    publisher, address = bind(zmq.XPUB)
    connection, received = await connect("SUB", address)
    with anyio.fail_after(10):
        await connection.ready()
        await asyncio.to_thread(publisher.recv)
        publisher.send_multipart([b"x"] * 1000)
        publisher.send_multipart([b"next"])
        message = await received.get()
        assert (len(message.frames), message.size, message.complete) == (250, 1000, False)
        assert (await received.get()).frames == [b"next"]
    connection.close()


async def test_a_paused_reader_makes_a_patient_publisher_wait(bind: Bind) -> None:
    publisher, address = bind(zmq.XPUB, {zmq.XPUB_NODROP: 1, zmq.SNDHWM: 10})
    connection, received = await connect("SUB", address)
    with anyio.fail_after(20):
        await connection.ready()
        await asyncio.to_thread(publisher.recv)
        connection.pause()
        sent = 0
        publisher.setsockopt(zmq.SNDTIMEO, 500)
        with contextlib.suppress(zmq.Again):
            while sent < 100:
                publisher.send(b"%08d" % sent + bytes(100_000))
                sent += 1
        assert 0 < sent < 100
        connection.resume()
        for number in range(sent):
            assert (await received.get()).frames[0][:8] == b"%08d" % number
    connection.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" * 10,
        bytes(64),
        b"\xff" * 64,
        zmtp._GREETING.replace(b"NULL", b"PLAIN"),
        zmtp._GREETING + b"\x06" + b"\xff" * 8,
        zmtp._GREETING + b"\x04\x06\x05ERROR",
        zmtp._GREETING + b"\x04\x00",
        b"\xff",
    ],
)
async def test_what_does_not_speak_the_protocol_is_let_go(answer: bytes) -> None:
    address = name()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address.replace("@", "\0", 1))
        listener.listen()
        connection, received = await connect("DEALER", address)
        peer, _ = listener.accept()
        with peer, anyio.fail_after(10):
            peer.sendall(answer)
            peer.shutdown(socket.SHUT_WR)
            with pytest.raises(InfrastructureError):
                await connection.ready()
            await connection.wait_lost()
            assert received.empty()
