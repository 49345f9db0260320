"""The way out: resolving names and connecting, behind protocols so that tests have their own."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Callable
from typing import Protocol

from sandbox.bulkheads.shares import Owner, Shares
from sandbox.egress.threads import in_thread
from sandbox.policy.destinations import Address, Host

RESOLVE_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
MAX_ANSWERS = 32
MAX_TRIED = 4
RESOLVERS = 64
"""Threads that look names up, those that nobody waits for any longer among them."""
RESOLVERS_OF_PRINCIPAL = 16
RESOLVERS_OF_SESSION = 4


class Unreachable(Exception):
    """The destination cannot be resolved or reached, which no rule decided; says why."""


class Resolver(Protocol):
    """Finds the addresses of a name."""

    async def resolve(self, name: str, owner: Owner) -> tuple[Address, ...]:
        """Every address of a name.

        Raises:
            Unreachable: There is none, or no answer within a bound.
        """
        ...


class Dialer(Protocol):
    """Makes connections."""

    async def connect(self, address: Address, port: int) -> socket.socket:
        """A connected, non-blocking TCP socket.

        Raises:
            OSError: It cannot be reached.
        """
        ...

    def is_own(self, address: Address) -> bool:
        """Whether an address is one of this machine's."""
        ...


LookUp = Callable[[str], tuple[Address, ...]]
"""Finds every address of a name; blocks. Raises ``OSError`` or ``UnicodeError``."""


class SystemResolver:
    """The system's resolver, in a thread for each name.

    A thread whose name is never answered cannot be ended. It counts in the share of who asked
    until it ends by itself, so that it is in nobody else's way.
    """

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or _look_up
        self._shares = Shares(
            "names that are being looked up",
            RESOLVERS,
            RESOLVERS_OF_PRINCIPAL,
            RESOLVERS_OF_SESSION,
        )

    async def resolve(self, name: str, owner: Owner) -> tuple[Address, ...]:
        """See :class:`Resolver`."""
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_S):
                await self._shares.wait(owner)
                found = await in_thread(
                    lambda: self._look_up(name),
                    "egress-resolver",
                    lambda: self._shares.give(owner),
                )
        except TimeoutError as exc:
            why = self._shares.objection(owner)
            raise Unreachable(
                f"the name {name} was not resolved within {RESOLVE_TIMEOUT_S:g} s"
                + (f": {why}" if why else "")
            ) from exc
        except OSError as exc:
            raise Unreachable(f"the name {name} does not resolve: {exc.strerror or exc}") from exc
        except UnicodeError as exc:
            raise Unreachable(f"the name {name} does not resolve: it is too long") from exc
        if len(found) > MAX_ANSWERS:
            raise Unreachable(f"the name {name} has more than {MAX_ANSWERS} addresses")
        return found


class SystemDialer:
    """The machine's own network."""

    async def connect(self, address: Address, port: int) -> socket.socket:
        """See :class:`Dialer`."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(made, (str(address), port))
        except BaseException:
            made.close()
            raise
        return made

    def is_own(self, address: Address) -> bool:
        """Whether a socket could be bound to it: then it is this machine's."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((str(address), 0))
        except OSError:
            return False
        return True


async def connect_any(
    dialer: Dialer, host: Host, addresses: tuple[Address, ...], port: int
) -> socket.socket:
    """Connect to the first of some addresses, all of one host and all allowed, that answers.

    Raises:
        Unreachable: None does within a bound.
    """
    tried = addresses[:MAX_TRIED]
    problem = "has no address"
    for address in tried:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S / len(tried)):
                return await dialer.connect(address, port)
        except TimeoutError:
            problem = f"at {address}: no answer within {CONNECT_TIMEOUT_S / len(tried):g} s"
        except OSError as exc:
            why = os.strerror(exc.errno) if exc.errno else str(exc)
            problem = f"at {address}: {why.lower()}"
    raise Unreachable(f"{host}:{port} cannot be reached {problem}")


def _look_up(name: str) -> tuple[Address, ...]:
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in found]
    return tuple(dict.fromkeys(addresses))
