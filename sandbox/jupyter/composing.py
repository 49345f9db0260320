"""The messages that the bridge itself says in a kernel's place, and what it reads of others'."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, cast

from sandbox.jupyter.signing import JupyterMessage

PROTOCOL = "5.3"
MAX_HEADER = 64 * 1024


class Composer:
    """Composes messages of one session of Jupyter's protocol."""

    def __init__(self) -> None:
        self._session = secrets.token_hex(16)
        self._count = 0

    def header(self, msg_type: str, msg_id: str = "") -> bytes:
        """A header; with an id of its own unless one is given."""
        self._count += 1
        header = {
            "msg_id": msg_id or f"{self._session}_{self._count}",
            "msg_type": msg_type,
            "username": "sandbox",
            "session": self._session,
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "version": PROTOCOL,
        }
        return json.dumps(header).encode()

    def message(
        self, channel: str, msg_type: str, content: Mapping[str, Any], parent: bytes = b"{}"
    ) -> JupyterMessage:
        """A message that answers the request with this header."""
        text = json.dumps(content).encode()
        return JupyterMessage(channel, self.header(msg_type), parent, b"{}", text)

    def welcome(self, subscription: str) -> JupyterMessage:
        """What tells a subscriber that it hears from now on."""
        return self.message("iopub", "iopub_welcome", {"subscription": subscription})


def kind_and_id(header: bytes) -> tuple[str, str]:
    """The type and the id of a message; empty where its header makes no sense."""
    if len(header) > MAX_HEADER:
        return "", ""
    read = object_of(header)
    kind, msg_id = read.get("msg_type"), read.get("msg_id")
    return (kind if isinstance(kind, str) else "", msg_id if isinstance(msg_id, str) else "")


def object_of(text: bytes) -> dict[str, Any]:
    """A JSON object; an empty one in the place of anything else."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", read) if isinstance(read, dict) else {}
