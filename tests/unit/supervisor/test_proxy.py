"""The supervisor's port for what goes out."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from sandbox.link.link import Link
from sandbox.link.stream import Stream
from sandbox.supervisor.pipes import PipePair

from ...support.supervisorprocess import SupervisorProcess

pytestmark = pytest.mark.anyio


async def echo(stream: Stream) -> None:
    """A gateway that sends back what comes."""
    assert stream.request == {"op": "egress"}
    async for message in stream:
        await stream.send(message.data)


async def refuse(stream: Stream) -> None:
    """A gateway that gives every connection up."""
    stream.reset()


async def through(
    machine: SupervisorProcess, gateway: Callable[[Stream], Awaitable[None]]
) -> bytes:
    """What comes back of a megabyte that a program sends out."""
    link = await asyncio.to_thread(machine.connect)
    with link:
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        socket.send_fds(link, [b"link"], [their_in, their_out])
        os.close(their_in)
        os.close(their_out)
        made = Link(PipePair(our_in, our_out), initiator=True, hello={}, on_open=gateway)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(made.run())
            await made.greeting()
            reader, writer = await asyncio.open_connection("127.0.0.1", machine.egress_port)

            async def send() -> None:
                try:
                    for _ in range(16):
                        writer.write(bytes(65536))
                        await writer.drain()
                    writer.write_eof()
                except OSError:
                    pass

            sending = tasks.create_task(send())
            try:
                return await reader.read(-1)
            except ConnectionError:
                return b"reset"
            finally:
                sending.cancel()
                writer.transport.abort()
                await made.aclose()


async def test_bytes_and_both_ends_pass_to_the_gateway_and_back(machine: SupervisorProcess) -> None:
    async with asyncio.timeout(20):
        assert await through(machine, echo) == bytes(16 * 65536)


async def test_a_connection_that_is_given_up_is_closed(machine: SupervisorProcess) -> None:
    async with asyncio.timeout(20):
        assert await through(machine, refuse) in (b"", b"reset")


async def test_without_a_link_a_connection_ends_within_a_bound(machine: SupervisorProcess) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", machine.egress_port)
                break
            except ConnectionRefusedError:  # it is still starting
                await asyncio.sleep(0.01)
        assert await reader.read() == b""
        writer.close()
