"""Jupyter messages as they travel over the link.

Both ways are written out here, without ``jupyter_client``: its ``deserialize`` trusts the dates and
the protocol version in a header, and user code can put anything there; and it takes longer to load
than all the rest of this room.

The messages: https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sandbox.errors import ProtocolError
from sandbox.link import wire

PROTOCOL = "5.3"
MAX_JSON_ITEMS = 250_000
"""The most values in a message: each takes far more memory than the bytes that it came in."""
MAX_ENVELOPE = 4 * 1024
"""What the supervisor says of a message is short, whatever the message is."""
MAX_HEADER = 64 * 1024
"""The longest header of a Jupyter message, and the longest event."""
MAX_NAME = 200
_SURROGATE = re.compile(rb"\\u[dD]")
_BEFORE_VALUES = (b",", b"[", b"{")
_NO_MARKS = bytes(n for n in range(256) if n not in b'",[{')
SET_ASIDE = "set_aside"
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
    data: bytes
    """As it came over the link."""
    msg_id: str = ""
    """Its own; empty when it has none."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Empty when what stands there makes no sense."""
    buffers: tuple[bytes, ...] = ()
    """The bytes that a comm message may carry beside its content."""
    plain_json: bytes | None = None
    """The content as it came, if that is plain ASCII and can be passed on as it is."""


@dataclass(frozen=True, slots=True)
class CellOptions:
    """How a cell is run, beside its code; as the protocol says when nothing is given."""

    silent: bool = False
    store_history: bool = True
    user_expressions: Mapping[str, Any] = field(default_factory=dict[str, Any])
    allow_stdin: bool = False
    """Whether somebody answers when it asks for input."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hears_late: bool = True
    """Whether its result tells what earlier cells showed after their end; not to whoever hears all
    that the kernel says."""


class Messages:
    """Makes the requests of one session's kernels."""

    def __init__(self) -> None:
        self._session = new_id()

    def execute(self, code: str, msg_id: str, options: CellOptions | None = None) -> bytes:
        """A request to run a cell."""
        options = options or CellOptions()
        content: dict[str, Any] = {
            "code": code,
            "silent": options.silent,
            "store_history": options.store_history,
            "user_expressions": dict(options.user_expressions),
            "allow_stdin": options.allow_stdin,
            "stop_on_error": False,  # one cell is there at a time, so there is none to be stopped
        }
        return self.request("execute_request", content, msg_id, metadata=options.metadata)

    def request(
        self,
        msg_type: str,
        content: Mapping[str, Any] | bytes,
        msg_id: str,
        *,
        channel: str = "shell",
        metadata: Mapping[str, Any] | None = None,
        parent_id: str = "",
        buffers: Sequence[bytes] = (),
    ) -> bytes:
        """Any message to a kernel, as the bytes of a KERNEL message of the link.

        Args:
            content: An object, or the JSON of one.
        """
        header = made_header(msg_type, self._session, msg_id, "sandbox")
        parent = {"msg_id": parent_id} if parent_id else {}
        encode = wire.encode_json
        parts = [
            encode({"channel": channel}),
            b"",  # nothing is signed: the link is the only way in
            *map(encode, (header, parent, metadata or {})),
            content if isinstance(content, bytes) else encode(content),
        ]
        return wire.pack_parts([*parts, *buffers])


def made_header(
    msg_type: str, session: str, msg_id: str = "", username: str = "kernel"
) -> dict[str, Any]:
    """The header of a message that is no client's."""
    return {
        "msg_id": msg_id or new_id(),
        "msg_type": msg_type,
        "session": session,
        "username": username,
        "date": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "version": PROTOCOL,
    }


def new_id() -> str:
    """An unguessable id for a request."""
    return uuid.uuid4().hex


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the supervisor says of a message: enough to know which one it is."""

    seq: int
    epoch: int
    channel: str
    parts: Sequence[bytes]
    """The parts of the message itself, unread."""
    data: bytes
    """All of it, as it came over the link."""


def open_envelope(data: bytes) -> Envelope:
    """Find out which message a KERNEL message of the supervisor is.

    Raises:
        ProtocolError: The parts or the envelope are not as the supervisor must send them.
    """
    parts = wire.unpack_parts(data)
    if not parts or len(parts[0]) > MAX_ENVELOPE:
        raise ProtocolError("a kernel message has no envelope")
    found = wire.decode_json(parts[0])
    seq, epoch, channel = (found.get(key) for key in ("seq", "epoch", "channel"))
    if type(seq) is not int or not 0 < seq < 2**63 or type(epoch) is not int or epoch < 0:
        raise ProtocolError("a kernel message has no number or epoch")
    if not isinstance(channel, str) or channel not in CHANNELS:
        raise ProtocolError(f"a kernel message is of the channel {channel!r:.40}")
    return Envelope(seq, epoch, channel, parts[1:], data)


def read(envelope: Envelope) -> KernelMessage:
    """Read the parts of a message.

    A message of the kernel itself that cannot be understood is returned with no type: only user
    code is to blame for it.

    Raises:
        ProtocolError: It is an event, and not as the supervisor must send it.
    """
    parts = envelope.parts
    if envelope.channel == "event":
        return _event(envelope, _small(parts[0]) if parts else {})
    try:
        return _jupyter(envelope)
    except ProtocolError:
        return KernelMessage(
            envelope.seq, envelope.epoch, envelope.channel, "", "", {}, envelope.data
        )


def set_aside(envelope: Envelope) -> KernelMessage:
    """What stands for a message that took too long to read: that there was one, and its size."""
    return _event(envelope, {"event": SET_ASIDE, "bytes": len(envelope.data)})


def unsent_error(event: KernelMessage) -> KernelMessage:
    """What stands for an error that was too large to be sent: that there was one, and its size."""
    size = event.content.get("bytes")
    value = f"Its message and traceback took {size} bytes, more than can be sent."
    content: dict[str, Any] = {"ename": "Error", "evalue": value, "traceback": []}
    return replace(event, channel="iopub", msg_type="error", content=content)


def _event(envelope: Envelope, event: Mapping[str, Any]) -> KernelMessage:
    kind, parent_id = _name(event.get("event")), _name(event.get("parent_id"))
    return KernelMessage(
        envelope.seq, envelope.epoch, "event", kind, parent_id, event, envelope.data
    )


def _jupyter(envelope: Envelope) -> KernelMessage:
    parts = envelope.parts
    if len(parts) < 5:
        raise ProtocolError("a Jupyter message has too few parts")
    header, content = _small(parts[1]), parts[4]
    parent_id = _id_in(bytes(parts[2]))
    if has_many_values(content):
        raise ProtocolError("a Jupyter message has too many values")
    return KernelMessage(
        envelope.seq,
        envelope.epoch,
        envelope.channel,
        _name(header.get("msg_type")),
        parent_id,
        wire.decode_json(content),
        envelope.data,
        _name(header.get("msg_id")),
        _metadata(parts[3]),
        tuple(parts[5:]),
        content if content.isascii() and _SURROGATE.search(content) is None else None,
    )


@functools.lru_cache(maxsize=16)
def _id_in(header: bytes) -> str:
    """The id in a header: all that a cell says has the same request's header as its parent."""
    return _name(_small(header).get("msg_id"))


def _metadata(text: bytes) -> dict[str, Any]:
    """Metadata, which nothing depends on: what is wrong with it is left out."""
    try:
        return {} if text == b"{}" else _small(text)
    except ProtocolError:
        return {}


def _small(text: bytes) -> dict[str, Any]:
    """A JSON object that is short if it is honest."""
    if len(text) > MAX_HEADER:
        raise ProtocolError(f"a header or an event is longer than {MAX_HEADER} bytes")
    return wire.decode_json(text)


def has_many_values(text: bytes, most: int = MAX_JSON_ITEMS) -> bool:
    """Whether a JSON text has more than so many values; none of them is made."""
    if len(text) <= most or sum(map(text.count, _BEFORE_VALUES)) <= most:
        return False
    # Perhaps most of them stand in long texts: count those that stand between texts only.
    marks = text.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_MARKS)
    if marks.count(b'"') > 4 * most:  # a value may have a name, and be a text: two marks each
        return True
    return sum(map(len, marks.split(b'"')[::2])) > most


def _name(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME else ""
