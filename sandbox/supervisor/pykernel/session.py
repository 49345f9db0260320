"""The Jupyter session of the kernel: its messages go over the pair, and nothing is signed."""

# ipykernel, jupyter_client and IPython are annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import codecs
import json
import os
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from jupyter_client._version import protocol_version
from jupyter_client.session import Session, extract_header

from sandbox.supervisor.pykernel.pair import PairSocket


class PairSession(Session):
    """``Session`` as ipykernel knows it, without ZeroMQ below."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._count = -1
        self._parents: tuple[Any, bytes] = ({}, b"{}")
        """The last request whose messages were sent: its header, and that as JSON."""

    def send(  # pyright: ignore[reportIncompatibleMethodOverride]  # of sockets of our own
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
    ) -> dict[str, Any] | None:
        """Send a message over a channel of the pair."""
        if not isinstance(stream, PairSocket):
            return None
        if isinstance(msg_or_type, dict):
            message = cast("dict[str, Any]", msg_or_type)
            buffers = buffers or message.get("buffers")
        else:
            message = self.msg(msg_or_type, content, parent, header, metadata)
        about, body = message["metadata"], message["content"]
        parts = [
            packed(message["header"]),
            self._parent(message["parent_header"]),
            packed(about) if about else b"{}",
            body if isinstance(body, bytes) else packed(body),
        ]
        if buffers:
            parts += (bytes(memoryview(each).cast("B")) for each in buffers)
        stream.send_parts(parts)
        return message

    @property
    def msg_id(self) -> str:
        """The id of another message."""
        self._count += 1
        return f"{self.session}_{os.getpid()}_{self._count}"

    def msg_header(self, msg_type: str) -> dict[str, Any]:
        """The header of a message that is made now."""
        return {
            "msg_id": self.msg_id,
            "msg_type": msg_type,
            "username": self.username,
            "session": self.session,
            "date": datetime.now(UTC).isoformat(),
            "version": protocol_version,
        }

    def msg(
        self,
        msg_type: str,
        content: Any = None,
        parent: Any = None,
        header: Any = None,
        metadata: Any = None,
    ) -> dict[str, Any]:
        """A message, as its parts are sent."""
        header = self.msg_header(msg_type) if header is None else header
        return {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": {} if parent is None else extract_header(parent),
            "content": {} if content is None else content,
            "metadata": {**self.metadata, **(metadata or {})},
        }

    def _parent(self, header: Any) -> bytes:
        known, data = self._parents
        if known is not header:
            data = packed(header)
            self._parents = (header, data)
        return data

    def opened(self, parts: list[bytes]) -> dict[str, Any]:
        """A message that came, as ipykernel wants it.

        Raises:
            ValueError: It is none.
        """
        header, parent, metadata, content = (json.loads(part) for part in parts[:4])
        msg_id = header["msg_id"]
        self._parents = (header, parts[0])
        return {
            "header": header,
            "msg_id": msg_id,
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "buffers": [memoryview(part) for part in parts[4:]],
        }


def packed(value: Mapping[str, Any]) -> bytes:
    """A part of a message as JSON; a character that UTF-8 cannot hold is lost, and no other."""
    try:
        text = _encoded(value)
    except ValueError:  # NaN and the like, which JSON does not have; also what refers to itself
        text = json.dumps(_without_nan(value), ensure_ascii=False, default=_foreign)
    return text.encode("utf-8", _ESCAPED)


def _encoded(value: Mapping[str, Any]) -> str:
    return "".join(_quick(value, 0)) if _quick else _encoder.encode(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else repr(value)
    if isinstance(value, Mapping):
        found = cast("Mapping[Any, Any]", value)
        return {key: _without_nan(each) for key, each in found.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in cast("list[Any]", value)]
    return value


def _foreign(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if isinstance(value, (bytes, memoryview)):
        return b64encode(value).decode("ascii")  # as Jupyter has pictures in a message
    try:
        return list(value)
    except TypeError:
        return repr(value)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """What Python's own escape of a lone surrogate is in JSON's text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(f"\\\\u{ord(each):04x}" for each in text), error.end


_ESCAPED = "sandbox-escaped"
codecs.register_error(_ESCAPED, _escaped)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_foreign)
# What ``encode`` makes for each value anew, which takes longer than a small value does.
_make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
_quick: Any = _make_encoder and _make_encoder(
    None, _foreign, json.encoder.encode_basestring, None, ": ", ", ", False, False, False
)
