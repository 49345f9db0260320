"""Jupyter messages as they travel over ZeroMQ: their parts, and the signature before those.

https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence

from sandbox.errors import InvalidRequest
from sandbox.kernels.jupytermessages import JupyterMessage, client_message

DELIMITER = b"<IDS|MSG>"
SCHEME_PREFIX = "hmac-"
SIGNED_PARTS = 4
"""The header, the parent's header, the metadata and the content; buffers are not signed."""


class Signer:
    """Signs the messages of one connection file, and knows those that were signed with its key."""

    def __init__(self, key: bytes, scheme: str) -> None:
        """Take the key of a connection file.

        Raises:
            InvalidRequest: The key is empty, or the scheme is none that is known.
        """
        digest = scheme.removeprefix(SCHEME_PREFIX)
        if not key:
            raise InvalidRequest("The connection file has no key, so anyone could use the kernel.")
        if digest == scheme or digest not in hashlib.algorithms_guaranteed:
            raise InvalidRequest(f"The signature scheme {scheme!r:.40} is not known.")
        try:
            self._empty = hmac.new(key, digestmod=digest)
        except (TypeError, ValueError) as exc:  # a digest of any length, which HMAC cannot use
            raise InvalidRequest(f"The signature scheme {scheme!r:.40} is not known.") from exc

    def frames(self, message: JupyterMessage) -> list[bytes]:
        """A message from the delimiter on."""
        headers = [json.dumps(each).encode() for each in (message.header, message.parent_header)]
        parts = [*headers, message.metadata_json, message.content_json]
        return [DELIMITER, self._signature(parts), *parts, *message.buffers]

    def opened(self, channel: str, frames: Sequence[bytes]) -> tuple[list[bytes], JupyterMessage]:
        """The identities before a client's message, and the message.

        Raises:
            InvalidRequest: It is not signed with the key, or is no message for a kernel.
        """
        if DELIMITER not in frames:
            raise InvalidRequest("It is no message of Jupyter's.")
        at = frames.index(DELIMITER)
        signature, parts = frames[at + 1 : at + 2], [*frames[at + 2 : at + 2 + SIGNED_PARTS]]
        if len(parts) < SIGNED_PARTS:
            raise InvalidRequest("It has too few parts.")
        if not hmac.compare_digest(signature[0], self._signature(parts)):
            raise InvalidRequest("It is not signed with the key of the connection file.")
        try:
            header, parent, metadata, content = map(json.loads, parts)
        except (ValueError, RecursionError) as exc:
            raise InvalidRequest("It is not JSON.") from exc
        buffers = frames[at + 2 + SIGNED_PARTS :]
        message = client_message(channel, header, parent, metadata, content, buffers)
        return [*frames[:at]], message

    def _signature(self, parts: Sequence[bytes]) -> bytes:
        signing = self._empty.copy()
        for part in parts:
            signing.update(part)
        return signing.hexdigest().encode()
