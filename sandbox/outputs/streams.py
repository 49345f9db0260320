"""The outputs of a cell in their order, with the text of its streams cut in the middle.

Text fills the head first. What comes then goes into the tail, whose oldest text is dropped when it
grows too long; a line where text is missing says how many bytes. The other outputs in between stay
where they are.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, Literal, TypeVar

from sandbox.outputs.plain import MAX_LINE, PlainText

CHUNK = 4096
"""Text is kept in chunks of this size at most: short pieces are joined, long ones are cut."""
ITEM_COST = 64
"""What each change between the streams costs of the budget."""

StreamName = Literal["stdout", "stderr"]
T = TypeVar("T")


class _Text:
    """A run of text of one stream, in chunks of UTF-8."""

    __slots__ = ("chunks", "name")

    def __init__(self, name: StreamName) -> None:
        self.name: StreamName = name
        self.chunks: deque[bytes] = deque()

    def append(self, data: bytes) -> None:
        """Add whole characters."""
        if self.chunks and len(self.chunks[-1]) + len(data) <= CHUNK:
            self.chunks[-1] += data
            return
        start = 0
        while start < len(data):
            end = _character(data, start + CHUNK)
            self.chunks.append(data[start:end])
            start = end


class _Cut:
    """A place where text is missing."""

    __slots__ = ("name", "size")

    def __init__(self, name: StreamName) -> None:
        self.name: StreamName = name
        self.size = 0


class Streams(Generic[T]):
    """Stream text within a budget of so many bytes of UTF-8, and other outputs, in order."""

    def __init__(self, limit_bytes: int) -> None:
        self._max_line = min(MAX_LINE, limit_bytes // 8)
        self._head: list[_Text | _Cut | T] = []
        self._head_size = 0
        self._tail: deque[_Text | T] = deque()
        self._tail_size = 0
        self._head_is_open = True
        self._name: StreamName | None = None
        self._editor = PlainText(self._max_line)
        self.cut_bytes = 0
        """All bytes dropped."""
        self.limit(limit_bytes)

    @property
    def size(self) -> int:
        """The bytes of budget used."""
        return self._head_size + self._tail_size + self._editor.size

    @property
    def count(self) -> int:
        """How many outputs there are, with the places where text is missing."""
        return len(self._head) + len(self._tail)

    @property
    def is_settled(self) -> bool:
        """Whether writing the rendered outputs again would lead to the same state, but for the
        place of a cursor in the last lines."""
        return self._editor.is_settled

    def limit(self, limit_bytes: int) -> None:
        """Set the budget; a smaller one than before drops text of the tail."""
        room = max(0, limit_bytes - self._max_line)
        self._head_limit = room // 2 if self._head_is_open else self._head_size
        self._tail_limit = max(0, room - max(self._head_limit, self._head_size))
        self._evict()

    def write(self, name: StreamName, text: str) -> None:
        """Add text of a stream; consecutive texts of one stream become one output."""
        if name != self._name:
            self._end_line()
            self._name = name
        if done := self._editor.feed(text):
            self._add(name, done.encode("utf-8", "replace"))

    def place(self, output: T) -> None:
        """Add another output after the text so far."""
        self._end_line()
        self._name = None
        if self._head_is_open:
            self._head.append(output)
        else:
            self._tail.append(output)

    def render(self) -> list[dict[str, Any] | T]:
        """All outputs in order; streams in nbformat 4."""
        rendered: list[dict[str, Any] | T] = []
        stream: dict[str, Any] | None = None
        pieces: list[str] = []

        def write(name: StreamName, text: str) -> None:
            nonlocal stream
            if stream is None or stream["name"] != name:
                close()
                stream = {"output_type": "stream", "name": name, "text": ""}
                rendered.append(stream)
            pieces.append(text)

        def close() -> None:
            nonlocal stream
            if stream is not None:
                stream["text"] = "".join(pieces)
            stream = None
            pieces.clear()

        for item in (*self._head, *self._tail):
            if isinstance(item, _Text):
                write(item.name, b"".join(item.chunks).decode("utf-8", "ignore"))
            elif isinstance(item, _Cut):
                broken = stream is not None and not pieces[-1].endswith("\n")
                name = stream["name"] if stream else item.name
                write(name, "\n" * broken + f"[… {item.size:,} bytes cut …]\n")
            else:
                close()
                rendered.append(item)
        if self._name is not None and self._editor.line:
            write(self._name, self._editor.line)
        close()
        return rendered

    # --- inside

    def _end_line(self) -> None:
        line = self._editor.finish()
        if line and self._name is not None:
            self._add(self._name, line.encode("utf-8", "replace"))

    def _add(self, name: StreamName, data: bytes) -> None:
        if self._head_is_open:
            head = _character(data, max(0, self._head_limit - self._head_size))
            self._head_size += _append(self._head, name, data[:head])
            data = data[head:]
            if not data:
                return
            self._head_is_open = False
        self._tail_size += _append(self._tail, name, data)
        self._evict()

    def _evict(self) -> None:
        """Drop the oldest text of the tail until it fits."""
        while self._tail and (over := self._tail_size - self._tail_limit) > 0:
            first = self._tail[0]
            if not isinstance(first, _Text):
                self._head.append(first)
                self._tail.popleft()
                continue
            chunk = first.chunks.popleft()
            kept = chunk[_next_character(chunk, over) :]
            if kept:
                first.chunks.appendleft(kept)
            elif not first.chunks:
                self._tail.popleft()
                self._tail_size -= ITEM_COST
            self._note(first.name, len(chunk) - len(kept))

    def _note(self, name: StreamName, dropped: int) -> None:
        self._tail_size -= dropped
        self.cut_bytes += dropped
        last = self._head[-1] if self._head else None
        if not isinstance(last, _Cut):
            last = _Cut(name)
            self._head.append(last)
        last.size += dropped


def _append(items: list[Any] | deque[Any], name: StreamName, data: bytes) -> int:
    """Add text after ``items`` and return what it costs."""
    if not data:
        return 0
    last = items[-1] if items else None
    cost = len(data)
    if not isinstance(last, _Text) or last.name != name:
        last = _Text(name)
        items.append(last)
        cost += ITEM_COST
    last.append(data)
    return cost


def _character(data: bytes, at: int) -> int:
    """The start of the character that the byte at ``at`` is part of."""
    while 0 < at < len(data) and data[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _next_character(data: bytes, at: int) -> int:
    """The first start of a character at or after ``at``."""
    while at < len(data) and data[at] & 0xC0 == 0x80:
        at += 1
    return at
