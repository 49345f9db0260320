"""The first message of TLS, as far as the gateway must understand it: RFC 8446 and RFC 6066; pure.

A ClientHello says in clear which server it means (SNI). It may come in pieces, over several
records. Nothing of it is changed or kept.
"""

from __future__ import annotations

from dataclasses import dataclass

HANDSHAKE = 0x16
MAX_HELLO = 32 * 1024
"""Of the whole message; post-quantum key shares make about 2 KiB of it."""
ALERT_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
"""A fatal alert, sent in clear before any key exists: clients show its name."""

_CLIENT_HELLO = 1
_SERVER_NAME = 0x0000
_ENCRYPTED_SERVER_NAME = 0xFFCE
_ENCRYPTED_CLIENT_HELLO = 0xFE0D
_HOST_NAME = 0


class BadHello(ValueError):
    """The bytes are no ClientHello; the text says why."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a ClientHello says of its server.

    Args:
        server_name: As written; None when there is none.
        is_encrypted: Whether it hides the real one (ECH, ESNI), or pretends to.
    """

    server_name: str | None
    is_encrypted: bool


def read_client_hello(data: bytes) -> ClientHello | None:
    """Read a ClientHello from the first bytes of a connection.

    Returns:
        What it says; None while it is not complete.

    Raises:
        BadHello: The bytes are something else, or larger than any ClientHello is.
    """
    message = _message(data)
    return None if message is None else _hello(_Reader(message))


def _message(data: bytes) -> bytes | None:
    """The first handshake message without its head, from as many records as it takes."""
    joined = bytearray()
    at = 0
    while True:
        if len(data) > at and data[at] != HANDSHAKE:
            raise BadHello("the connection does not begin with TLS")
        if len(data) < at + 5:
            return None
        major, length = data[at + 1], int.from_bytes(data[at + 3 : at + 5], "big")
        if major != 3 or not 0 < length <= 2**14:
            raise BadHello("a TLS record is malformed")
        joined += data[at + 5 : at + 5 + length]
        if joined and joined[0] != _CLIENT_HELLO:
            raise BadHello("TLS does not begin with a ClientHello")
        if len(joined) >= 4:
            size = int.from_bytes(joined[1:4], "big")
            if size > MAX_HELLO:
                raise BadHello("the ClientHello is too large")
            if len(joined) >= 4 + size:
                if len(joined) > 4 + size:
                    raise BadHello("something follows the ClientHello at once")
                return bytes(joined[4:])
        if len(data) < at + 5 + length:
            return None
        at += 5 + length


def _hello(body: _Reader) -> ClientHello:
    body.take(2 + 32)  # version, random
    body.vector(1)  # session id
    body.vector(2)  # cipher suites
    body.vector(1)  # compression
    if body.is_empty:
        return ClientHello(None, False)
    extensions = body.vector(2)
    if not body.is_empty:
        raise BadHello("something follows the ClientHello's extensions")
    name: str | None = None
    seen: set[int] = set()
    while not extensions.is_empty:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind in seen:
            raise BadHello("an extension comes twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(content)
    return ClientHello(name, bool(seen & {_ENCRYPTED_CLIENT_HELLO, _ENCRYPTED_SERVER_NAME}))


def _server_name(content: _Reader) -> str:
    names = content.vector(2)
    if not content.is_empty or names.number(1) != _HOST_NAME:
        raise BadHello("the server name is malformed")
    name = names.vector(2)
    if not names.is_empty:
        raise BadHello("there is more than one server name")
    try:
        return name.rest().decode("ascii")
    except UnicodeDecodeError as exc:
        raise BadHello("the server name is not ASCII") from exc


class _Reader:
    """Bytes that are taken from the front; what is not there is malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise BadHello("the ClientHello is shorter than it says")
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, length_size: int) -> _Reader:
        return _Reader(self.take(self.number(length_size)))

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)
