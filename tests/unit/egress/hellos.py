"""ClientHellos, as a real client writes them and as no client should."""

from __future__ import annotations

import ssl
from contextlib import suppress


def client_hello(name: str | None) -> bytes:
    """What Python's own TLS sends first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    made = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        made.do_handshake()
    return outgoing.read()


def in_records(message: bytes, size: int) -> bytes:
    """A handshake message in as many records as it takes."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def with_extensions(*extensions: tuple[int, bytes], after: bytes = b"") -> bytes:
    """A ClientHello with these extensions, in one record."""
    listed = b"".join(
        kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body for kind, body in extensions
    )
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(listed).to_bytes(2, "big") + listed + after
    return in_records(b"\x01" + len(body).to_bytes(3, "big") + body, 16384)


def names(*given: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension that names servers."""
    listed = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for name in given)
    return 0, len(listed).to_bytes(2, "big") + listed
