"""The numbers and texts of Yjs's binary encoding, read with bounds.

https://github.com/dmonad/lib0/blob/main/encoding.js
"""

from __future__ import annotations

MAX_NUMBER = 2**53


class Malformed(Exception):
    """Bytes are not what they must be."""


def varint(number: int) -> bytes:
    """A number from 0, seven bits a byte."""
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)


class Reader:
    """Reads bytes from the beginning on."""

    __slots__ = ("_data", "at")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    @property
    def is_at_end(self) -> bool:
        """Whether all was read."""
        return self.at >= len(self._data)

    def byte(self) -> int:
        """The next byte."""
        if self.at >= len(self._data):
            raise Malformed("it ends too early")
        self.at += 1
        return self._data[self.at - 1]

    def varint(self) -> int:
        """The next number, below 2⁵³."""
        data, at, number, shift = self._data, self.at, 0, 0
        try:
            while True:
                byte = data[at]
                at += 1
                number |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
                if shift > 49:
                    raise Malformed("it has too large a number")
        except IndexError:
            raise Malformed("it ends too early") from None
        self.at = at
        if number >= MAX_NUMBER:
            raise Malformed("it has too large a number")
        return number

    def skip(self, count: int) -> None:
        """Pass over so many bytes."""
        if count > len(self._data) - self.at:
            raise Malformed("it ends too early")
        self.at += count

    def bytes(self) -> bytes:
        """The next bytes, behind their number."""
        count = self.varint()
        start = self.at
        self.skip(count)
        return self._data[start : self.at]

    def last_bytes(self) -> bytes:
        """The next bytes, behind their number, with nothing behind them."""
        found = self.bytes()
        if not self.is_at_end:
            raise Malformed("it goes on behind its end")
        return found

    def text(self) -> str:
        """The next text."""
        try:
            return self.bytes().decode()
        except UnicodeDecodeError:
            raise Malformed("a text of it is not UTF-8") from None
