"""Jupyter messages as clients send and get them, checked and bounded.

https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from sandbox.errors import InvalidRequest
from sandbox.kernels.messages import made_header
from sandbox.link import wire

CHANNELS = frozenset(("shell", "control", "stdin"))
"""What a client may say something on."""
MAX_TEXT = 200
"""Of each value of a header."""
MAX_BUFFERS = 64
MAX_METADATA = 64 * 1024
_HEADER = ("msg_id", "msg_type", "session", "username", "date", "version")


@dataclass(frozen=True, slots=True)
class JupyterMessage:
    """One message of a client, or to it."""

    channel: str
    header: Mapping[str, Any]
    parent_header: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content_json: bytes = b"{}"
    """An object, as JSON in UTF-8."""
    metadata_json: bytes = b"{}"
    buffers: tuple[bytes, ...] = ()

    @property
    def msg_type(self) -> str:
        """What kind of message it is."""
        return str(self.header["msg_type"])

    @property
    def msg_id(self) -> str:
        """Its own id."""
        return str(self.header["msg_id"])

    @property
    def content(self) -> dict[str, Any]:
        """The content, decoded anew with each use."""
        return wire.decode_json(self.content_json)

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata, decoded anew with each use."""
        return wire.decode_json(self.metadata_json)

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return 1024 + len(self.content_json) + len(self.metadata_json) + sum(map(len, self.buffers))


def client_message(
    channel: object,
    header: object,
    parent_header: object,
    metadata: object,
    content: object,
    buffers: Sequence[bytes] = (),
) -> JupyterMessage:
    """A message of a client, given as its decoded parts, which may be anything.

    Raises:
        InvalidRequest: It is no message that may be sent to a kernel.
    """
    if not isinstance(channel, str) or channel not in CHANNELS:
        raise InvalidRequest("A message is for the channel shell, control or stdin.")
    known = _header(header)
    if not known.get("msg_id") or not known.get("msg_type"):
        raise InvalidRequest("The header of a message has a msg_id and a msg_type.")
    if len(buffers) > MAX_BUFFERS:
        raise InvalidRequest(f"A message has at most {MAX_BUFFERS} buffers.")
    metadata_json = _json(metadata or {}, "metadata")
    if len(metadata_json) > MAX_METADATA:
        raise InvalidRequest(f"The metadata of a message takes at most {MAX_METADATA} bytes.")
    return JupyterMessage(
        channel,
        known,
        _header(parent_header or {}),
        _json({} if content is None else content, "content"),
        metadata_json,
        tuple(bytes(each) for each in buffers),
    )


def answer(
    channel: str,
    msg_type: str,
    content: Mapping[str, Any],
    parent: Mapping[str, Any],
    session: str,
) -> JupyterMessage:
    """A message of ours to a client."""
    header = made_header(msg_type, session)
    return JupyterMessage(channel, header, parent, wire.encode_json(content))


def _header(value: object) -> dict[str, Any]:
    """What is known of a header, each a short text."""
    if not isinstance(value, Mapping):
        raise InvalidRequest("The header of a message is an object.")
    found = cast("Mapping[str, object]", value)
    header: dict[str, Any] = {}
    for name in _HEADER:
        text = found.get(name)
        if text is None:
            continue
        if isinstance(text, datetime):  # as ``jupyter_client`` has it
            text = text.isoformat()
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise InvalidRequest(f"{name} in a header is a text of up to {MAX_TEXT} characters.")
        header[name] = text.encode("utf-8", "replace").decode()
    return header


def _json(value: object, what: str) -> bytes:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"The {what} of a message is an object.")
    try:
        return wire.encode_json(cast("Mapping[str, Any]", value))
    except (ValueError, RecursionError, TypeError) as exc:
        raise InvalidRequest(f"The {what} of a message cannot be said in JSON.") from exc
