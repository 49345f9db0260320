"""Jupyter messages as they travel over ZeroMQ: their parts, and the signature before those."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox.errors import InvalidRequest

DELIMITER = b"<IDS|MSG>"
SCHEME_PREFIX = "hmac-"
SIGNED_PARTS = 4
"""The header, the parent's header, the metadata and the content; buffers are not signed."""


@dataclass(frozen=True, slots=True)
class JupyterMessage:
    """A message of one channel, its parts as the JSON that they travel as."""

    channel: str
    """``shell``, ``control``, ``stdin`` or ``iopub``."""
    header: bytes
    parent_header: bytes
    metadata: bytes
    content: bytes
    buffers: tuple[bytes, ...] = ()


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
        parts = [message.header, message.parent_header, message.metadata, message.content]
        return [DELIMITER, self._signature(parts), *parts, *message.buffers]

    def opened(
        self, channel: str, frames: Sequence[bytes]
    ) -> tuple[list[bytes], JupyterMessage] | None:
        """The identities before a message, and the message; None when it is not signed right."""
        try:
            at = frames.index(DELIMITER)
            signature, *parts = frames[at + 1 :]
        except ValueError:
            return None
        signed = parts[:SIGNED_PARTS]
        if len(signed) < SIGNED_PARTS:
            return None
        if not hmac.compare_digest(signature, self._signature(signed)):
            return None
        return [*frames[:at]], JupyterMessage(channel, *signed, tuple(parts[SIGNED_PARTS:]))

    def _signature(self, parts: Sequence[bytes]) -> bytes:
        signing = self._empty.copy()
        for part in parts:
            signing.update(part)
        return signing.hexdigest().encode()
