"""The broker's socket: who may speak to it, how much, how often and for how long."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio

from sandbox.broker.operations import Broker
from sandbox.broker.pace import Pace
from sandbox.broker.relay import relay
from sandbox.errors import (
    ConfigError,
    InfrastructureError,
    InvalidRequest,
    NotPermitted,
    QuotaExceeded,
    SandboxError,
)
from sandbox.link.link import printable
from sandbox.runtimes.broker import protocol

REQUEST_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 30.0
REQUESTS_PER_S, REQUESTS_AT_ONCE = 200, 400
# An engine makes fewer than ten containers a second.
CREATIONS_PER_S, CREATIONS_AT_ONCE = 10, 32
BACKLOG = 128
MAX_LOGGED = 500

_PEER = struct.Struct("iII")  # unix(7), SO_PEERCRED: pid, uid, gid
_DEFECT = InfrastructureError("The broker failed at it.", remedy="Its log says why.")

logger = logging.getLogger("sandbox.broker")


class Server:
    """Answers connections, each for itself.

    Args:
        max_connections: How many at once; a link is one too.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        uids: frozenset[int],
        max_connections: int,
        request_timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> None:
        self._broker = broker
        self._uids = uids
        self._max_connections = max_connections
        self._request_timeout_s = request_timeout_s
        self._connections = 0
        self._requests = Pace(REQUESTS_PER_S, REQUESTS_AT_ONCE)
        self._creations = Pace(CREATIONS_PER_S, CREATIONS_AT_ONCE)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        self._connections += 1
        try:
            try:
                await self._serve(reader, writer)
            except SandboxError as exc:
                logger.warning("refused: %s", printable(exc.message, MAX_LOGGED))
                writer.write(protocol.encode_error(exc))
            except (OSError, EOFError):
                pass  # the controller went away
            except Exception:  # the outermost edge: one connection ends only itself
                logger.exception("a connection failed")
                writer.write(protocol.encode_error(_DEFECT))
            # What was said last is still to arrive, if it is read at all.
            writer.close()
            with suppress(OSError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._connections -= 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer)
        if uid not in self._uids:
            raise NotPermitted(
                f"The user {uid} may not use this broker.",
                remedy=f"Start it with --allow-uid {uid}, if that is the controller's user.",
            )
        if self._connections > self._max_connections:
            raise QuotaExceeded("The broker has as many connections as it may have.")
        await self._requests.turn()
        request = await self._request(reader)
        if isinstance(request, protocol.Create):
            await self._creations.turn()
        if isinstance(request, protocol.OfContainer) and request.op == "connect":
            io = await self._broker.connect(request.container)
            writer.write(protocol.encode_answer(None, None))
            await relay(reader, writer, io)
        else:
            writer.write(await self._broker.answer(request))

    async def _request(self, reader: asyncio.StreamReader) -> protocol.Request:
        try:
            async with asyncio.timeout(self._request_timeout_s):
                line = await reader.readuntil(protocol.END)
        except asyncio.LimitOverrunError as exc:
            raise InvalidRequest(
                f"A request has at most {protocol.MAX_REQUEST_BYTES} bytes."
            ) from exc
        except TimeoutError as exc:
            raise InvalidRequest(
                f"The request did not arrive within {self._request_timeout_s:g} s."
            ) from exc
        except asyncio.IncompleteReadError as exc:
            raise InvalidRequest("The request has no end.") from exc
        return protocol.decode_request(line)


@asynccontextmanager
async def serving(
    broker: Broker, path: Path, *, uids: frozenset[int], max_connections: int
) -> AsyncGenerator[Server]:
    """Listen and answer until the end of the block, then close every connection.

    Args:
        path: Of the socket. It belongs to this process's user, and to its group when others than
            that user may connect.
        uids: Who may connect besides this process's user.

    Raises:
        ConfigError: The socket cannot be made, or something listens there already.
    """
    own = os.geteuid()
    server = Server(broker, uids=uids | {own}, max_connections=max_connections)
    with _bound(path, 0o660 if uids - {own} else 0o600) as listener:
        async with anyio.create_task_group() as tasks:
            accepting = await asyncio.start_unix_server(
                lambda reader, writer: tasks.start_soon(server.handle, reader, writer),
                sock=listener,
                limit=protocol.MAX_REQUEST_BYTES,
                backlog=BACKLOG,
            )
            try:
                yield server
            finally:
                accepting.close()
                tasks.cancel_scope.cancel()


@contextmanager
def _bound(path: Path, mode: int) -> Generator[socket.socket]:
    """A socket bound to a path until the end of the block; one that a dead broker left is replaced.

    Raises:
        ConfigError: It cannot be made, or something listens there already.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            if _answers(path):
                raise ConfigError(
                    f"Something listens at {path} already.",
                    remedy="Stop that broker, or name another socket.",
                )
            path.parent.mkdir(mode=0o750, exist_ok=True)
            if path.is_socket():
                path.unlink()
            # Narrow from its first moment on.
            before = os.umask(0o777 & ~mode)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
        except OSError as exc:
            raise ConfigError(
                f"The socket {path} cannot be made: {exc.strerror or exc}.",
                remedy="Make its folder writable for this user, or name another socket.",
            ) from exc
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    connection: socket.socket = writer.get_extra_info("socket")
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return _PEER.unpack(told)[1]


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
