"""Who edits a shared notebook."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Author:
    """Who edits, as the others are shown it."""

    key: str
    """Tells this author from all others of the document; never shown."""
    name: str
    is_agent: bool = True
