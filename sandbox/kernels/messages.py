"""Jupyter messages as they travel over the link; the only user of ``jupyter_client``.

Requests are made by ``jupyter_client``'s ``Session``. What kernels say is read here instead: its
``deserialize`` trusts the dates and the protocol version in a header, and user code can put
anything there.

The messages: https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from jupyter_client.session import Session

from sandbox import wire
from sandbox.errors import ProtocolError

MAX_JSON_ITEMS = 250_000
"""The most values in a message: each takes far more memory than the bytes that it came in."""
MAX_NAME = 200
_BEFORE_VALUES = (b",", b"[", b"{")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
CHANNELS = frozenset({"iopub", "shell", "control", "stdin", "event"})


@dataclass(frozen=True, slots=True)
class KernelMessage:
    """One numbered message of a kernel's log."""

    seq: int
    epoch: int
    channel: str
    msg_type: str
    """For the channel ``event``, the event; empty when nothing in it can be understood."""
    parent_id: str
    """The ``msg_id`` of the request it belongs to; empty when it names none."""
    content: Mapping[str, Any]
    """Of an event, the whole event."""
    size: int
    """In bytes on the link."""


class Messages:
    """Makes the requests of one session's kernels."""

    def __init__(self) -> None:
        self._session = Session(username="sandbox", check_pid=False)
        # Nothing is signed: the link is the only way in. Set here, for given to the constructor
        # it is warned about.
        self._session.key = b""

    def execute(self, code: str, msg_id: str) -> bytes:
        """A request to run a cell."""
        content: dict[str, Any] = {
            "code": code,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        return self.request("execute_request", content, msg_id)

    def request(
        self, msg_type: str, content: Mapping[str, Any], msg_id: str, channel: str = "shell"
    ) -> bytes:
        """Any request, as the bytes of a KERNEL message of the link."""
        session = self._session
        header = session.msg_header(msg_type) | {"msg_id": msg_id}
        make = cast("Callable[..., dict[str, Any]]", session.msg)  # pyright: ignore[reportUnknownMemberType]  # its types are incomplete
        parts = session.serialize(make(msg_type, dict(content), header=header))
        return wire.pack_parts([wire.encode_json({"channel": channel}), *parts[1:]])


def new_id() -> str:
    """An unguessable id for a request."""
    return uuid.uuid4().hex


def read(data: bytes) -> KernelMessage:
    """Read a KERNEL message of the supervisor.

    A message of the kernel itself that cannot be understood is returned with no type: only user
    code is to blame for it.

    Raises:
        ProtocolError: The parts or the envelope are not as the supervisor must send them.
    """
    parts = wire.unpack_parts(data)
    envelope = wire.decode_json(parts[0]) if parts else {}
    seq, epoch, channel = (envelope.get(key) for key in ("seq", "epoch", "channel"))
    if type(seq) is not int or not 0 < seq < 2**63 or type(epoch) is not int or epoch < 0:
        raise ProtocolError("a kernel message has no number or epoch")
    if channel not in CHANNELS:
        raise ProtocolError(f"a kernel message is of the channel {channel!r:.40}")
    if channel == "event":
        content = wire.decode_json(parts[1]) if len(parts) > 1 else {}
        kind, parent_id = _name(content.get("event")), _name(content.get("parent_id"))
    else:
        try:
            kind, parent_id, content = _jupyter(parts)
        except ProtocolError:
            kind, parent_id, content = "", "", {}
    return KernelMessage(seq, epoch, channel, kind, parent_id, content, len(data))


def unsent_error(event: KernelMessage) -> KernelMessage:
    """What stands for an error that was too large to be sent: that there was one, and its size."""
    size = event.content.get("bytes")
    value = f"Its message and traceback took {size} bytes, more than can be sent."
    content: dict[str, Any] = {"ename": "Error", "evalue": value, "traceback": []}
    return replace(event, channel="iopub", msg_type="error", content=content)


def _jupyter(parts: list[bytes]) -> tuple[str, str, dict[str, Any]]:
    if len(parts) < 6:
        raise ProtocolError("a Jupyter message has too few parts")
    header, parent, content = parts[2], parts[3], parts[5]
    if max(map(_values, (header, parent, content))) > MAX_JSON_ITEMS:
        raise ProtocolError("a Jupyter message has too many values")
    kind = _name(wire.decode_json(header).get("msg_type"))
    parent_id = _name(wire.decode_json(parent).get("msg_id"))
    return kind, parent_id, wire.decode_json(content)


def _values(text: bytes) -> int:
    """At least as many as the values in a JSON text, counted without making them."""
    if len(text) <= MAX_JSON_ITEMS:
        return len(text)
    count = sum(map(text.count, _BEFORE_VALUES))
    if count > MAX_JSON_ITEMS:  # perhaps most of them stand in a long text
        count = sum(map(_STRING.sub(b"", text).count, _BEFORE_VALUES))
    return count


def _name(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME else ""
