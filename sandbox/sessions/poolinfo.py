"""What is told of the pool."""

from __future__ import annotations

from pydantic import BaseModel


class ShelfInfo(BaseModel, frozen=True):
    """The sandboxes of one policy that are kept ready."""

    policy: str
    policy_digest: str
    min: int
    max: int
    target: int
    """How many there should be now, as demand is."""
    ready: int
    coming: int
    """How many are being made."""
    given: int
    """How many sessions have got one since the controller began."""
    missed: int
    """How many found none ready."""
    problem: str = ""
    """Why the last one that was to be made came to nothing; empty when it did not."""
