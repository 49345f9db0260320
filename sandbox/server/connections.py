"""The connections of the HTTP server: how many there may be, of whom, and how long each may wait.

A connection that has not shown a token is cheap for whoever makes it, so it is the first to go:
when there are too many, in all or of one address, the one that has waited longest makes room for
the new one. A request that is being served for a token is never cut off for it. Behind a proxy all
clients have one address; they still get in, for theirs is the newest connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import time
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.server.framing import MAX_MESSAGE_BYTES, PING_S, BoundedWebSocket

WAITING_S = 15.0
"""For a whole request head, from the connection or the last answer on; and for the answer to one
that shows no token."""
MAX_HEAD_BYTES = 32 * 1024
MAX_DESCRIPTORS = 65_536
TOLD_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class Connections:
    """The open connections of a server; a network of 2**64 counts as one address in IPv6."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._by_address: dict[str, dict[BoundedProtocol, None]] = {}
        """Of each address those that have waited longest first."""
        self.count = 0
        """How many there are."""
        self._told_at = -TOLD_EVERY_S

    def options(self) -> dict[str, Any]:
        """What uvicorn is told of how connections are read."""
        return {
            # h11 bounds what is read before a token is: docs/adr/0006
            "http": self.protocol,
            "h11_max_incomplete_event_size": MAX_HEAD_BYTES,
            "ws": BoundedWebSocket,
            "ws_max_size": MAX_MESSAGE_BYTES,
            "ws_per_message_deflate": False,  # a few bytes could become a great many
            "ws_ping_interval": PING_S,
            "ws_ping_timeout": PING_S,
        }

    def protocol(self, **settings: Any) -> BoundedProtocol:
        """The protocol of a new connection, in the form that uvicorn asks for one."""
        return BoundedProtocol(self, **settings)

    def admit(self, connection: BoundedProtocol) -> bool:
        """Take a new connection, perhaps in the place of another one.

        Returns:
            Whether there is room for it.
        """
        own = self._by_address.get(connection.address, {})
        if len(own) >= self._most_per_address:
            is_room = self._evict(own)
        elif self.count >= self._most:
            # The address that has most gives way.
            largest = max(self._by_address.values(), key=len)
            is_room = self._evict(largest) or any(map(self._evict, (*self._by_address.values(),)))
        else:
            is_room = True
        if is_room:
            self._by_address.setdefault(connection.address, {})[connection] = None
            self.count += 1
        return is_room

    def waits(self, connection: BoundedProtocol) -> None:
        """Note that an answer has gone out: the connection waits from now on."""
        own = self._by_address.get(connection.address, {})
        if connection in own:
            del own[connection]
            own[connection] = None

    def forget(self, connection: BoundedProtocol) -> None:
        """Note that a connection is over; harmless when it is known already."""
        own = self._by_address.get(connection.address, {})
        if connection in own:
            del own[connection]
            self.count -= 1
            if not own:
                del self._by_address[connection.address]

    def _evict(self, connections: dict[BoundedProtocol, None]) -> bool:
        found: BoundedProtocol | None = None
        for connection in connections:
            if connection.is_serving_a_token:
                continue
            found = found or connection
            if not connection.had_a_token:
                found = connection
                break
        now = time.monotonic()
        if now - self._told_at >= TOLD_EVERY_S:
            self._told_at = now
            where = next(iter(connections)).address if connections else ""
            logger.warning(
                "%d connections, %d of them of %s: those that wait longest make room",
                self.count,
                len(connections),
                where,
            )
        if found is None:
            return False
        self.forget(found)
        found.abort()
        return True


class BoundedProtocol(H11Protocol):
    """One connection: it does not wait for ever, and may have to make room."""

    def __init__(self, connections: Connections, **settings: Any) -> None:
        super().__init__(**settings)
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None
        self._websocket: BoundedWebSocket | None = None
        self.address = ""
        self.had_a_token = False

    @property
    def is_serving_a_token(self) -> bool:
        """Whether a request or a WebSocket is being served that came with a valid token."""
        if self._websocket is not None:
            return self._websocket.has_a_grant
        cycle = cast(Any, self.cycle)
        return cycle is not None and not cycle.response_complete and "sandbox.grant" in cycle.scope

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, if there is room."""
        super().connection_made(transport)
        self.address = _network(self.client[0] if self.client else "")
        if self._connections.admit(self):
            self._wait()
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._leave()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Go on as a WebSocket, in the same place among the connections."""
        super().handle_websocket_upgrade(event)
        self._websocket = cast(BoundedWebSocket, self.transport.get_protocol())
        self._websocket.lost = self._leave

    def on_response_complete(self) -> None:
        """Wait for another request."""
        self.had_a_token = self.had_a_token or "sandbox.grant" in self.scope
        self._connections.waits(self)
        self._wait()
        super().on_response_complete()

    def abort(self) -> None:
        """End it at once."""
        self._stop_waiting()
        self.transport.abort()

    def _leave(self) -> None:
        self._connections.forget(self)
        self._stop_waiting()

    def _wait(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self._timer = self.loop.call_later(WAITING_S, self._is_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _is_late(self) -> None:
        self._timer = None
        if not self.is_serving_a_token:
            self.transport.abort()


def raise_descriptor_limit() -> int:
    """Raise the limit of open descriptors as far as it goes, and return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def _network(address: str) -> str:
    """What counts as one address: in IPv6 the network that one customer usually has."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
