"""The Jupyter session of the kernel: its messages go over the pair, and nothing is signed."""

# ipykernel, jupyter_client and IPython are annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from jupyter_client.session import Session

from sandbox.supervisor.pykernel.pair import PairSocket


class PairSession(Session):
    """``Session`` as ipykernel knows it, without ZeroMQ below."""

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
        parts = [packed(message[key]) for key in ("header", "parent_header", "metadata")]
        body = message["content"]
        parts.append(body if isinstance(body, bytes) else packed(body))
        stream.send_parts([*parts, *(bytes(memoryview(each).cast("B")) for each in buffers or ())])
        return message

    def opened(self, parts: list[bytes]) -> dict[str, Any]:
        """A message that came, as ipykernel wants it.

        Raises:
            ValueError: It is none.
        """
        header, parent, metadata, content = (json.loads(part) for part in parts[:4])
        return {
            "header": header,
            "msg_id": header["msg_id"],
            "msg_type": header["msg_type"],
            "parent_header": parent,
            "metadata": metadata,
            "content": content,
            "buffers": [memoryview(part) for part in parts[4:]],
        }


def packed(value: Mapping[str, Any]) -> bytes:
    """A part of a message as JSON; a character that UTF-8 cannot hold is lost, and no other."""
    try:
        text = _encoder.encode(value)
    except ValueError:  # NaN and the like, which JSON does not have; also what refers to itself
        text = json.dumps(_without_nan(value), ensure_ascii=False, default=_foreign)
    return text.encode("utf-8", _ESCAPED)


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
        return bytes(value).decode("utf-8", "replace")
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
