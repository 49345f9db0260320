"""What there is in a session's files, and what was done to them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from sandbox.answers import Answer

MAX_PATH_BYTES = 4096
MAX_ENTRIES = 1000

_Text = Annotated[str, StringConstraints(max_length=4 * MAX_PATH_BYTES)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class FileStat(Answer):
    """What there is at a path."""

    path: _Text
    name: _Text
    type: Literal["file", "directory", "symlink", "fifo", "socket", "device"]
    size: _Count
    """In bytes."""
    mode: Annotated[int, Field(ge=0, lt=2**32)]
    """The permission bits."""
    mtime: Annotated[float, Field(allow_inf_nan=False)]
    """Unix time of the last change."""
    etag: Annotated[str, StringConstraints(max_length=200)]
    """Another one after each change."""
    target: _Text | None = None
    """Where a symbolic link leads."""
    odd: bool = False
    """Whether the name is not UTF-8; ``path`` then shows it with ``\\xNN`` and opens nothing."""


class FileList(Answer):
    """A page of what is in a directory."""

    entries: Annotated[tuple[FileStat, ...], Field(max_length=MAX_ENTRIES, strict=False)]
    """Sorted by path."""
    total: _Count
    """All that match, on every page."""
    truncated: bool
    """Whether there was too much to count."""


class EditResult(Answer):
    """What an edit did."""

    diff: str
    """Unified; what is left out of a long one is said in it."""
    replacements: int
    stat: FileStat


class Deleted(Answer):
    """What a deletion did."""

    deleted: _Count
    """How many entries are gone."""
