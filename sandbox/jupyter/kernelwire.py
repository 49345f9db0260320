"""Jupyter messages between a kernel's sockets and a link: signed on one side, bounded on the other.

What a kernel sends is as hostile as the code that it runs. Nothing of it is believed here: frames
whose signature is wrong are dropped, and what is too long for a link is cut or told of.

The messages: https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from jupyter_client.session import Session

from sandbox.errors import ProtocolError
from sandbox.jupyter.signing import DELIMITER, SIGNED_PARTS
from sandbox.link import wire

PIECE_BYTES = 128 * 1024
MAX_MESSAGE = 8 * 1024 * 1024
MAX_PARTS = 200
MAX_NAME = 100


def opened(session: Session, frames: Sequence[bytes]) -> list[bytes] | None:
    """The parts of a message as a link carries them: an empty signature, then header, parent
    header, metadata, content and buffers. None for what is no message of the kernel's.
    """
    if DELIMITER not in frames[:-1]:
        return None
    signature, *parts = frames[frames.index(DELIMITER) + 1 :]
    if not SIGNED_PARTS <= len(parts) <= MAX_PARTS:
        return None
    if not hmac.compare_digest(signature, _signature(session, parts)):
        return None
    return [b"", *parts]


def sealed(session: Session, parts: Sequence[bytes]) -> list[bytes]:
    """The frames of a request for a kernel's socket, from the parts that a link carries."""
    return [DELIMITER, _signature(session, parts[1:]), *parts[1:]]


def _signature(session: Session, parts: Sequence[bytes]) -> bytes:
    sign = cast("Callable[[list[bytes]], bytes]", session.sign)  # pyright: ignore[reportUnknownMemberType]  # its types are incomplete
    return sign(list(parts[:SIGNED_PARTS]))


def packed(seq: int, epoch: int, channel: str, parts: Sequence[bytes]) -> bytes:
    """A numbered message as ``kernel.attach`` sends it."""
    head = {"seq": seq, "epoch": epoch, "channel": channel}
    return wire.pack_parts([wire.encode_json(head), *parts])


def header_of(parts: Sequence[bytes], index: int = 1) -> dict[str, Any]:
    """The header of a message, or its parent's (2); empty when it makes no sense."""
    try:
        return wire.decode_json(parts[index])
    except ProtocolError:
        return {}


def name_in(header: Mapping[str, Any], key: str) -> str:
    """A name in a header, cut; empty when there is none."""
    value = header.get(key)
    return value[:MAX_NAME] if isinstance(value, str) else ""


def bounded(parts: list[bytes]) -> Iterator[list[bytes]] | dict[str, Any]:
    """A message in pieces that a link takes: text is cut between characters.

    Returns:
        The messages to send, or the event that stands for one that is too large.
    """
    size = sum(map(len, parts))
    if size <= PIECE_BYTES:
        return iter((parts,))
    header = header_of(parts)
    if header.get("msg_type") == "stream" and len(parts) == 1 + SIGNED_PARTS:
        return _pieces(parts)
    if size <= MAX_MESSAGE:
        return iter((parts,))
    return {
        "event": "oversize",
        "msg_type": name_in(header, "msg_type"),
        "bytes": size,
        "parent_id": name_in(header_of(parts, 2), "msg_id"),
    }


def _pieces(parts: list[bytes]) -> Iterator[list[bytes]]:
    try:
        content = wire.decode_json(parts[SIGNED_PARTS])
    except ProtocolError:
        return
    text = content.get("text")
    if not isinstance(text, str):
        return
    step = PIECE_BYTES // 4  # a character takes at most four bytes
    for start in range(0, len(text), step):
        piece = {"name": content.get("name"), "text": text[start : start + step]}
        yield [*parts[:SIGNED_PARTS], json.dumps(piece).encode()]


def aborted(request: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """What a kernel would have said to a request that it gives up: the reply, and that it is
    idle. For one that was taken back before it reached the kernel."""
    parent = request[1]
    header = header_of(request)

    def message(kind: str, content: Mapping[str, Any]) -> list[bytes]:
        own = {**header, "msg_type": kind, "msg_id": f"{name_in(header, 'msg_id')}-{kind}"}
        return [b"", wire.encode_json(own), parent, b"{}", wire.encode_json(content)]

    reply = message("execute_reply", {"status": "aborted"})
    return reply, message("status", {"execution_state": "idle"})
