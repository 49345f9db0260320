"""One plain HTTP request and its answer, passed on by a gateway that sees both.

A connection carries one request: a second one could be hidden behind the first. Both messages are
read and written anew by h11, so what a server reads is what was judged.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

import h11

from sandbox.bulkheads.bulkhead import Section
from sandbox.egress.clients import Plain
from sandbox.egress.dialing import Unreachable
from sandbox.egress.heads import end_to_end
from sandbox.egress.meter import Meter
from sandbox.errors import InfrastructureError
from sandbox.link.wire import PIECE_SIZE

CHUNKS_AT_ONCE = 64
"""Small pieces of a body that are passed on before everything else has its turn."""
MAX_ANSWER_HEAD = 64 * 1024
HANDSHAKE_TIMEOUT_S = 10.0


async def forward(
    asked: Plain,
    head: h11.Request,
    outside: socket.socket,
    meter: Meter,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Pass a request on and its answer back.

    Args:
        outside: The connected socket; closed at the end.
        tls: Makes TLS of it, for the request's host and no other.

    Raises:
        Unreachable: There is no answer; the client has not been told.
        SandboxError: The client gave up.
        OverLimit: The bytes are used up.
    """
    try:
        reader, writer = await asyncio.open_connection(
            sock=outside,
            ssl=tls,
            server_hostname=asked.request.host.text if tls else None,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if tls else None,
            limit=PIECE_SIZE,
        )
    except (OSError, ssl.SSLError) as exc:  # SSLError is an OSError too; its text says more
        reason = exc.reason if isinstance(exc, ssl.SSLError) else exc.strerror
        raise Unreachable(f"TLS with {asked.request.host} failed: {reason or exc}") from exc
    passing = _Passing(asked, reader, writer, meter)
    try:
        await passing.run(head)
    finally:
        writer.transport.abort()


class _Passing:
    """One request on its way out and its answer on its way in."""

    def __init__(
        self,
        asked: Plain,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        meter: Meter,
    ) -> None:
        self._inbound = asked.inbound
        self._client = asked.parser
        self._request = asked.request
        self._server = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_HEAD)
        self._reader = reader
        self._writer = writer
        self._meter = meter
        self._is_answered = False
        self._parsed = 0

    async def run(self, head: h11.Request) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._send(head)
                body = tasks.create_task(self._send_body())
                await self._answer()
                body.cancel()  # an early answer: what is left of the body is of no use
        except BaseExceptionGroup as errors:
            raise self._told(errors.exceptions[0]) from errors
        except (OSError, h11.RemoteProtocolError) as exc:
            raise self._told(exc) from exc
        self._inbound.end()

    async def _send_body(self) -> None:
        while True:
            event = await self._next(self._client)
            if event is h11.NEED_DATA:
                self._client.receive_data(await self._inbound.read())
            elif isinstance(event, h11.Data):
                await self._send(h11.Data(data=event.data))
            else:  # what may follow a chunked body is dropped: no rule has seen it
                await self._send(h11.EndOfMessage())
                return

    async def _answer(self) -> None:
        while True:
            match event := await self._next(self._server):
                case h11.NEED_DATA:
                    data = await self._reader.read(PIECE_SIZE)
                    self._meter.received(len(data))
                    self._server.receive_data(data)
                case h11.InformationalResponse():
                    told = h11.InformationalResponse(
                        status_code=event.status_code, headers=[], reason=event.reason
                    )
                    await self._reply(told)
                case h11.Response():
                    self._is_answered = True
                    headers = [*end_to_end(event.headers.raw_items()), (b"Connection", b"close")]
                    told = h11.Response(
                        status_code=event.status_code, headers=headers, reason=event.reason
                    )
                    await self._reply(told)
                case h11.Data():
                    await self._reply(h11.Data(data=event.data))
                case _:
                    await self._reply(h11.EndOfMessage())
                    return

    async def _next(
        self, parser: h11.Connection
    ) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What comes next; every so often after a turn for all else, for one piece may be many."""
        self._parsed += 1
        if self._parsed % CHUNKS_AT_ONCE == 0:
            await asyncio.sleep(0)
        with Section("a message of HTTP", self._inbound.session_id):
            return parser.next_event()

    async def _send(self, event: h11.Event) -> None:
        data = self._server.send(event)
        if data:
            self._meter.sent(len(data))
            self._writer.write(data)
            await self._writer.drain()

    async def _reply(self, event: h11.Event) -> None:
        data = self._client.send(event)
        if data:
            await self._inbound.write(data)

    def _told(self, error: BaseException) -> BaseException:
        """An error in the gateway's words."""
        if not isinstance(error, OSError | h11.ProtocolError):
            return error
        if self._is_answered:
            return InfrastructureError(f"{self._request} broke off within its answer.")
        why = error.strerror if isinstance(error, OSError) else str(error)
        return Unreachable(f"{self._request} gave no answer: {why or error}")
