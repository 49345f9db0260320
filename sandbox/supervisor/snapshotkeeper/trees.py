"""What a snapshot holds: folders, files and links as values, files' bytes in shared pieces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """A file's bytes, without its holes; a piece may be shared with other contents."""

    size: int
    pieces: tuple[tuple[int, bytes], ...]
    """Each with its offset, ascending; between them is nothing but zeros."""

    def is_same(self, other: Content) -> bool:
        """Whether both are the same bytes, told by the pieces that they share."""
        return (
            self.size == other.size
            and len(self.pieces) == len(other.pieces)
            and all(
                mine is theirs and at == there
                for (at, mine), (there, theirs) in zip(self.pieces, other.pieces, strict=True)
            )
        )

    @property
    def data_bytes(self) -> int:
        """How many bytes there are outside of holes."""
        return sum(len(piece) for _, piece in self.pieces)


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A regular file. All names of one file are one and the same object in a tree."""

    mode: int
    mtime_ns: int
    content: Content


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A symbolic link."""

    mtime_ns: int
    target: str


@dataclass(frozen=True, slots=True, eq=False)
class Other:
    """A FIFO, a socket, or a folder that is another filesystem: known to be there, not kept."""

    kind: int
    """The type bits of its mode; 0 for another filesystem."""


@dataclass(frozen=True, slots=True, eq=False)
class Folder:
    """A folder, and by name what is in it."""

    mode: int
    mtime_ns: int
    entries: dict[str, Node] = field(default_factory=dict[str, "Node"])


Node = File | Link | Other | Folder


class Place:
    """A folder on the way from the root of a tree, by name; the root has no parent."""

    __slots__ = ("name", "parent")

    def __init__(self, parent: Place | None, name: str) -> None:
        self.parent = parent
        self.name = name

    def way(self) -> list[Place]:
        """The places below the root that lead here, this one last; empty for the root."""
        found: list[Place] = []
        here = self
        while here.parent is not None:
            found.append(here)
            here = here.parent
        found.reverse()
        return found

    def path(self, name: str = "") -> str:
        """The path relative to the root, of the folder or of a name in it."""
        names = [place.name for place in self.way()]
        return "/".join([*names, name] if name else names) or "."


def nodes(root: Folder) -> Iterator[Node]:
    """All that is below a folder, however deep."""
    waiting = [root]
    while waiting:
        for node in waiting.pop().entries.values():
            yield node
            if isinstance(node, Folder):
                waiting.append(node)
