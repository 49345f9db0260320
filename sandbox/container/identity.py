"""Which sandbox a container is: an id and a uid that no other has."""

from __future__ import annotations

import secrets

from sandbox.values import Frozen

MIN_UID = 200_000
MAX_UID = 2_000_000_000


class SandboxIdentity(Frozen):
    """Which sandbox a container is; all of it goes into labels, and nothing of whose it is.

    ``created_at`` is in Unix seconds; ``owner`` is the mark of the controller's slot that made it.
    """

    sandbox_id: str
    owner: str
    uid: int
    created_at: float


def new_sandbox_id() -> str:
    """An id that no other sandbox has; it opens no door, so nobody need be kept from knowing it."""
    return f"sb-{secrets.token_hex(16)}"


def new_uid() -> int:
    """A uid for one sandbox.

    The kernel counts processes, watches and queues by uid over all containers, so sandboxes that
    shared one could use up each other's. The range is above what systems give to people.
    """
    return MIN_UID + secrets.randbelow(MAX_UID - MIN_UID)
