"""What is known of a named workspace, and what its name may be."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, Field

from sandbox.errors import InvalidRequest
from sandbox.values import Frozen

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Kept(Frozen):
    """What was saved last."""

    file: Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\.tar\z")]
    digest: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    """SHA-256 of the archive."""
    size_bytes: Annotated[int, Field(ge=0)]
    saved_at: float
    """Unix time, seconds."""


class WorkspaceInfo(BaseModel, frozen=True):
    """A named workspace of the caller's."""

    name: str
    size_bytes: int
    """Of what is kept, with all that it takes to keep it."""
    saved_at: float | None
    """Unix time of what is kept, seconds; null when nothing was saved yet."""
    session_id: str
    """The session that has it, or had it when it was lost; empty for none."""


def check_workspace(name: str) -> str:
    """A name that a workspace can have.

    Raises:
        InvalidRequest: It is none.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            "A workspace's name has 1 to 64 of a-z, 0-9, '-', '_' and '.', and begins with a "
            "letter or digit."
        )
    return name
