"""What all values of ours are: frozen, and strict about what they do not know."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A value that never changes and has no field that its class does not name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Told(BaseModel):
    """A value that comes from outside: frozen too, and what it says besides is not listened to."""

    model_config = ConfigDict(frozen=True, extra="ignore")
