"""The first message of TLS, as far as the gateway must understand it: RFC 8446 and RFC 6066; pure.

A ClientHello says in clear which server it means (SNI). It may come in pieces, over several
records. Nothing of it is changed or kept.
"""

from __future__ import annotations

from dataclasses import dataclass

HANDSHAKE = 0x16
MAX_HELLO = 32 * 1024
"""Of the whole message; post-quantum key shares make about 2 KiB of it."""
MAX_RECORDS = 1024
"""That it comes in; clients make one or two, and those that hide it a few more."""
ALERT_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
"""A fatal alert, sent in clear before any key exists: clients show its name."""

_CLIENT_HELLO = 1
_SERVER_NAME = 0x0000
_ENCRYPTED_SERVER_NAME = 0xFFCE
_ENCRYPTED_CLIENT_HELLO = 0xFE0D
_HOST_NAME = 0
_RECORD_HEAD = 5


class BadHello(ValueError):
    """The bytes are no ClientHello; the text says why."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a ClientHello says of its server."""

    server_name: str | None
    """As written; None when there is none."""
    is_encrypted: bool
    """Whether it hides the real one (ECH, ESNI), or pretends to."""


class HelloReader:
    """Reads a ClientHello as its bytes come; each byte is looked at once."""

    def __init__(self) -> None:
        self._message = bytearray()
        self._records = 0
        self._head = bytearray()
        """Of the record that comes now."""
        self._left = 0
        """The bytes of that record that have not come yet."""

    def feed(self, data: bytes) -> ClientHello | None:
        """Take the next bytes of a connection.

        Returns:
            What the ClientHello says; None while it is not complete.

        Raises:
            BadHello: The bytes are something else, or larger or in more pieces than any
                ClientHello is.
        """
        at = 0
        while at < len(data):
            if not self._left:
                taken = data[at : at + _RECORD_HEAD - len(self._head)]
                self._head += taken
                at += len(taken)
                self._check_head()
                continue
            piece = data[at : at + self._left]
            at += len(piece)
            self._left -= len(piece)
            if self._add(piece):
                if self._left:
                    raise BadHello("something follows the ClientHello at once")
                return _hello(_Reader(bytes(self._message[4:])))
        return None

    def _check_head(self) -> None:
        head = self._head
        if head[0] != HANDSHAKE:
            raise BadHello("the connection does not begin with TLS")
        if len(head) < _RECORD_HEAD:
            return
        length = int.from_bytes(head[3:5], "big")
        if head[1] != 3 or not 0 < length <= 2**14:
            raise BadHello("a TLS record is malformed")
        self._records += 1
        if self._records > MAX_RECORDS:
            raise BadHello(f"the ClientHello comes in more than {MAX_RECORDS} records")
        self._left = length
        head.clear()

    def _add(self, piece: bytes) -> bool:
        """Take a piece of the message; whether it is complete."""
        message = self._message
        message += piece
        if message[0] != _CLIENT_HELLO:
            raise BadHello("TLS does not begin with a ClientHello")
        if len(message) < 4:
            return False
        size = int.from_bytes(message[1:4], "big")
        if size > MAX_HELLO:
            raise BadHello("the ClientHello is too large")
        if len(message) > 4 + size:
            raise BadHello("something follows the ClientHello at once")
        return len(message) == 4 + size


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
