"""A world outside of the gateway: names, addresses and servers that a test makes up.

Real servers listen on loopback; the dialer leads made-up public addresses to them, which nothing
but a test can do: it is an object given to the gateway, not a setting.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sandbox.bulkheads.shares import Owner
from sandbox.egress.dialing import Unreachable
from sandbox.egress.gateway import Gateway
from sandbox.egress.models import Tightening
from sandbox.egress.wayout import Seen, WayOut
from sandbox.errors import SandboxError
from sandbox.link.link import Link, Stream
from sandbox.link.memory import pipe
from sandbox.outputs.denials import Denial
from sandbox.outputs.redaction import Redactor
from sandbox.policy import Policy
from sandbox.policy.destinations import Address, Service
from sandbox.policy.network import AllowRule, DenyRule, NetworkLimits, NetworkPolicy

ADA = Owner("ada", "s-test")
PUBLIC = ipaddress.ip_address("93.184.215.14")
"""An address that is special to nobody."""


@dataclass
class Names:
    """A resolver that knows what it is told, and remembers what it was asked."""

    answers: dict[str, tuple[Address, ...]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def resolve(self, name: str, owner: Owner) -> tuple[Address, ...]:
        self.asked.append(name)
        if name not in self.answers:
            raise Unreachable(f"the name {name} does not resolve: unknown")
        return self.answers[name]


@dataclass
class Roads:
    """A dialer that leads made-up addresses to servers on loopback."""

    ports: dict[tuple[Address, int], int] = field(default_factory=dict)
    own: set[Address] = field(default_factory=set)
    dialled: list[tuple[Address, int]] = field(default_factory=list)

    async def connect(self, address: Address, port: int) -> socket.socket:
        self.dialled.append((address, port))
        if (address, port) not in self.ports:
            raise ConnectionRefusedError(111, "Connection refused")
        made = socket.socket()
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(
            made, ("127.0.0.1", self.ports[address, port])
        )
        return made

    def is_own(self, address: Address) -> bool:
        return address in self.own


@dataclass
class Known:
    """Services that are what they are told to be."""

    services: dict[str, Service] = field(default_factory=dict)

    async def known(self, names: frozenset[str]) -> Mapping[str, Service]:
        return {name: self.services[name] for name in names}

    async def variables(self, names: frozenset[str]) -> Mapping[str, str]:
        return {}


class Outside:
    """All of it, with a record of every verdict."""

    def __init__(self, **more: Any) -> None:
        self.names = Names()
        self.roads = Roads()
        self.known = Known()
        self.seen: list[Seen] = []
        self.egress = WayOut(
            resolver=self.names,
            dialer=self.roads,
            services=self.known,
            record=self,
            **more,
        )

    def require(self) -> None:
        """Everything can be kept."""

    def saw(self, seen: Seen) -> None:
        self.seen.append(seen)

    def place(self, name: str, server: int, *, port: int = 443, at: Address = PUBLIC) -> None:
        """Let a name stand for an address, and that lead to a server on loopback."""
        self.names.answers[name] = (at,)
        self.roads.ports[at, port] = server


class Client:
    """A program inside, at the gateway's port: it sends and receives bytes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.got = b""
        self.is_cut = False
        """Whether the connection was given up, not ended."""

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        await self._stream.send(data)

    def end(self) -> None:
        """Send no more."""
        self._stream.end()

    def leave(self) -> None:
        """Close the connection."""
        self._stream.reset()

    async def until(self, mark: bytes) -> bytes:
        """Receive up to a mark, which is taken; what came before the end when it does not come."""
        while mark not in self.got and await self._more():
            pass
        found, _, self.got = self.got.partition(mark)
        return found

    async def rest(self) -> bytes:
        """Receive all that comes to the end."""
        while await self._more():
            pass
        return self.got

    async def _more(self) -> bool:
        try:
            message = await asyncio.wait_for(self._stream.receive(), 20)
        except SandboxError:
            self.is_cut = True
            return False
        self.got += b"" if message is None else message.data
        return message is not None

    async def connect(self, authority: str) -> int:
        """Ask for a tunnel; the status of the answer."""
        await self.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        return int((await self.until(b"\r\n\r\n")).split()[1])

    async def get(self, url: str, *headers: str, method: str = "GET") -> tuple[int, bytes]:
        """Ask for a page by plain HTTP; status and body of the answer."""
        host = url.split("/")[2]
        lines = [f"{method} {url} HTTP/1.1", f"Host: {host}", *headers, "", ""]
        await self.send("\r\n".join(lines).encode())
        head = await self.until(b"\r\n\r\n")
        return int(head.split()[1]), await self.rest()


class Inside:
    """A session's side: a gateway, and the link over which a supervisor opens connections.

    Args:
        gateway: The session's gateway.
        link: The supervisor's end of its link.
    """

    def __init__(self, gateway: Gateway, link: Link) -> None:
        self.gateway = gateway
        self.link = link

    def open(self, **request: Any) -> Client:
        """A connection to the gateway's port."""
        return Client(self.link.open(**{"op": "egress", **request}))

    @property
    def denials(self) -> tuple[Denial, ...]:
        """What was refused so far."""
        return self.gateway.denials.since()

    @property
    def rules(self) -> list[str]:
        """The rules that refused it."""
        return [denial.rule for denial in self.denials]


def policy(
    *allow: AllowRule, deny: tuple[DenyRule, ...] = (), limits: NetworkLimits | None = None
) -> Policy:
    """A policy with these rules."""
    network = NetworkPolicy(allow=allow, deny=deny, limits=limits or NetworkLimits())
    return Policy(name="test", network=network)


@asynccontextmanager
async def session(
    outside: Outside,
    policy: Policy,
    tightened: Tightening | None = None,
    *,
    owner: Owner = ADA,
    redactor: Redactor | None = None,
) -> AsyncIterator[Inside]:
    """A session of a policy in a made-up world, without a container."""
    gateway = Gateway(
        owner.session_id,
        owner.principal,
        policy,
        outside.egress,
        tightened or Tightening(),
        redactor,
    )
    ours, theirs = pipe()
    near = Link(ours, initiator=True, hello={}, on_open=gateway.serve)
    far = Link(theirs, initiator=False, hello={})
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(near.run())
        tasks.create_task(far.run())
        await far.greeting()
        try:
            yield Inside(gateway, far)
        finally:
            await far.aclose()
            await near.aclose()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(serve: Serve, **options: Any) -> AsyncIterator[int]:
    """A real server on loopback; its port."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    made = await asyncio.start_server(guarded, "127.0.0.1", 0, **options)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()


def self_signed(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A certificate for a name: the context of its server, and that of clients who trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    (folder / "cert.pem").write_bytes(
        pem
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "cert.pem")
    return serving, ssl.create_default_context(cadata=pem.decode())
