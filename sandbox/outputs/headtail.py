"""The head and the tail of bytes that may never end."""

from __future__ import annotations

from collections import deque


class HeadTail:
    """Keeps the first and the last bytes of a flood, half of the limit each."""

    def __init__(self, limit_bytes: int) -> None:
        self._head = bytearray()
        self._head_limit = limit_bytes // 2
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._tail_limit = limit_bytes - self._head_limit
        self.cut_bytes = 0
        """The bytes dropped between head and tail."""

    def add(self, data: bytes) -> None:
        """Take what came next."""
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        if self._tail and len(self._tail[-1]) + len(data) <= 4096:
            self._tail[-1] += data
        else:
            self._tail.append(data)
        self._tail_size += len(data)
        while (over := self._tail_size - self._tail_limit) > 0:
            first = self._tail[0]
            if over < len(first):
                break  # cut to the byte when the text is made
            self._tail.popleft()
            self._tail_size -= len(first)
            self.cut_bytes += len(first)

    def within(self, limit_bytes: int) -> HeadTail:
        """The same within a smaller limit; this one itself when its own is no larger."""
        if limit_bytes >= self._head_limit + self._tail_limit:
            return self
        shorter = HeadTail(limit_bytes)
        for data in (bytes(self._head), *self._tail):
            shorter.add(data)
        shorter.lose(self.cut_bytes)
        return shorter

    def lose(self, size: int) -> None:
        """Count bytes that came but could not be taken."""
        self.cut_bytes += size

    @property
    def size(self) -> int:
        """The bytes that are kept."""
        return len(self._head) + self._tail_size

    def text(self) -> str:
        """What was kept as text, with a line that says how many bytes are missing in between."""
        tail = b"".join(self._tail)
        over = max(0, self._tail_size - self._tail_limit)
        if over:
            tail = tail[over:]
            self._tail = deque([tail])
            self._tail_size -= over
            self.cut_bytes += over
        if not self.cut_bytes:
            return (self._head + tail).decode("utf-8", "replace")
        head = self._head.decode("utf-8", "replace")
        start = "" if head.endswith("\n") else "\n"
        missing = f"{start}[… {self.cut_bytes:,} bytes cut …]\n"
        return head + missing + tail.decode("utf-8", "replace")
