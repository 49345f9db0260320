"""A ZeroMQ socket on the event loop: nothing is lost, and nobody waits for what is there."""

from __future__ import annotations

from collections.abc import Generator

import anyio
import anyio.lowlevel
import pytest
import zmq

from sandbox.jupyter.zmqsocket import AsyncSocket

pytestmark = pytest.mark.anyio

WAIT_S = 10


@pytest.fixture
def context() -> Generator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


def pair(
    context: zmq.Context[zmq.Socket[bytes]], room: int = 1000
) -> tuple[AsyncSocket, AsyncSocket]:
    ends = [context.socket(zmq.PAIR) for _ in range(2)]
    for end in ends:
        end.setsockopt(zmq.SNDHWM, room)
        end.setsockopt(zmq.RCVHWM, room)
    ends[0].bind("inproc://pair")
    ends[1].connect("inproc://pair")
    return AsyncSocket(ends[0]), AsyncSocket(ends[1])


async def test_messages_come_whole_and_in_order_while_both_ends_send(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    one, other = pair(context, room=2)
    count = 500

    async def send(socket: AsyncSocket) -> None:
        for n in range(count):
            await socket.send([b"head", b"", str(n).encode()])

    async def receive(socket: AsyncSocket) -> None:
        for n in range(count):
            assert await socket.receive() == [b"head", b"", str(n).encode()]

    with anyio.fail_after(WAIT_S):
        async with anyio.create_task_group() as tasks:
            for socket in (one, other):
                tasks.start_soon(send, socket)
                tasks.start_soon(receive, socket)
    one.close()
    other.close()


async def test_what_finds_no_room_is_not_sent_and_who_waits_goes_on_when_there_is_some(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    one, other = pair(context, room=1)
    taken, got = 0, list[list[bytes]]()
    with anyio.fail_after(WAIT_S):
        while one.offer([str(taken).encode()]):
            taken += 1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.send, [b"last"])
            got.extend([await other.receive() for _ in range(taken + 1)])
    assert got == [*([str(n).encode()] for n in range(taken)), [b"last"]]
    one.close()
    other.close()


async def test_once_closed_nobody_waits_for_room(
    context: zmq.Context[zmq.Socket[bytes]],
) -> None:
    one, other = pair(context, room=1)
    with anyio.fail_after(WAIT_S):
        while one.offer([b"x"]):
            pass
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.send, [b"never"])
            await anyio.lowlevel.checkpoint()
            one.close()
            one.close()
        await one.send([b"never"])
    other.close()
