"""Taking secret values out of what leaves a session, also where a value comes in pieces.

Every occurrence of a value becomes ``[secret NAME]``; so do the forms in which values usually come
by accident: base64 at any alignment, hexadecimal, quoted for a URL, escaped for JSON or HTML, and
the lines of a value that has several. Code that wants to can write a value in another form, which
nobody can find: ``docs/security.md`` says so.

Where nothing is to be found, nothing is copied.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator, Mapping
from typing import TypeVar
from urllib.parse import quote, quote_plus

from sandbox.errors import SandboxError

MIN_FORM_BYTES = 8
"""Shorter texts stand for too much else to be taken out."""
MIN_LINE_BYTES = 16
"""Of a value with several lines, those that are shorter say too little."""
_BASE64_BITS = 6
_BEGINNING = 4
"""The bytes by which the beginning of a value is looked for."""

_Span = tuple[int, int, bytes]
_T = TypeVar("_T")


class Redactor:
    """Knows the values of a session's secrets, by name. Without any it does nothing, at no cost."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        named = {
            form: name for name, value in (values or {}).items() for form in _forms(value.encode())
        }
        # A longer one first: what it covers is named after it.
        self._forms = tuple(
            (form, b"[secret %s]" % named[form].encode())
            for form in sorted(named, key=len, reverse=True)
        )
        self._texts = tuple(form.decode() for form, _ in self._forms)
        self._beginnings = frozenset(
            form[:length] for form, _ in self._forms for length in range(1, _BEGINNING)
        )

    def __bool__(self) -> bool:
        return bool(self._forms)

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._forms)} forms>"

    def text(self, text: str) -> str:
        """A whole text without the values."""
        if not any(form in text for form in self._texts):
            return text
        return self.bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def bytes(self, data: bytes) -> bytes:
        """Whole bytes without the values."""
        return Pieces(self).last(data)

    def data(self, value: _T) -> _T:
        """A JSON value without the values, in its keys too; the same object when it has none.

        Raises:
            ValueError: It is no JSON value.
            RecursionError: It is nested too deeply.
        """
        if not self._forms:
            return value
        text = json.dumps(value, ensure_ascii=False)
        clean = self.text(text)
        return value if clean is text else json.loads(clean)

    def error(self, error: SandboxError) -> None:
        """Take the values out of what an error says, before it leaves its session."""
        error.message, error.remedy = self.text(error.message), self.text(error.remedy)
        error.args = (error.message,)

    def spans(self, data: bytes) -> list[_Span]:
        """Where values stand: start, end and what takes their place; none overlaps another."""
        found: list[_Span] = []
        for form, mark in self._forms:
            at = data.find(form)
            while at >= 0:
                found.append((at, at + len(form), mark))
                at = data.find(form, at + 1)
        found.sort(key=lambda span: (span[0], -span[1]))
        merged: list[_Span] = []
        for start, end, mark in found:
            if merged and start < merged[-1][1]:
                before = merged[-1]
                merged[-1] = (before[0], max(before[1], end), before[2])
            else:
                merged.append((start, end, mark))
        return merged

    def unfinished(self, data: bytes) -> int:
        """How many of the last bytes may be the beginning of a value."""
        longest = 0
        for form, _ in self._forms:
            # Searching for one byte would stop at every other one.
            start = max(0, len(data) - len(form) + 1)
            while (start := data.find(form[:_BEGINNING], start)) >= 0:
                if form.startswith(data[start:]):
                    longest = max(longest, len(data) - start)
                    break
                start += 1
        if longest:
            return longest
        ends = (data[-length:] for length in range(min(len(data), _BEGINNING - 1), 0, -1))
        return next((len(end) for end in ends if end in self._beginnings), 0)


class Pieces:
    """Takes the values out of bytes that come in pieces.

    What may be the beginning of a value is held back until it is known whether it is.

    Args:
        keep_length: Whether as many bytes as were taken out, all of them ``*``, take their place.
    """

    def __init__(self, redactor: Redactor, *, keep_length: bool = False) -> None:
        self._redactor = redactor
        self._keep_length = keep_length
        self._held = b""
        self._covered = 0
        """How many of the held bytes belong to a value whose place has been taken already."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is held back."""
        return not self._held

    def feed(self, data: bytes) -> bytes:
        """Take a piece and return what can be shown."""
        if not self._redactor:
            return data
        data = self._held + data
        return self._show(data, len(data) - self._redactor.unfinished(data))

    def last(self, data: bytes = b"") -> bytes:
        """Take the last piece and return all that is left; what comes later begins anew."""
        data = self._held + data
        return self._show(data, len(data))

    def _show(self, data: bytes, cut: int) -> bytes:
        shown: list[bytes] = []
        at = self._covered
        for start, end, mark in self._redactor.spans(data):
            if start >= cut:
                break
            if end <= at:
                continue
            shown.append(data[at:start])
            if self._keep_length:
                shown.append(b"*" * (end - max(start, at)))
            elif start >= at:
                shown.append(mark)
            at = end
        if at < cut:
            shown.append(data[at:cut])
        self._held = data[cut:]
        self._covered = max(0, at - cut)
        return b"".join(shown) if len(shown) != 1 else shown[0]


class TextPieces:
    """The same for a text that comes in pieces."""

    def __init__(self, redactor: Redactor) -> None:
        self._pieces = Pieces(redactor)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is held back."""
        return self._pieces.is_settled

    def feed(self, text: str) -> str:
        """Take a piece and return what can be shown."""
        return self._pieces.feed(text.encode("utf-8", "surrogatepass")).decode(
            "utf-8", "surrogatepass"
        )

    def last(self) -> str:
        """Return all that is left; what comes later begins anew."""
        return self._pieces.last().decode("utf-8", "surrogatepass")


def _forms(value: bytes) -> Iterator[bytes]:
    """The forms of a value that are worth looking for."""
    text = value.decode()
    lines = [line.strip() for line in value.splitlines()]
    whole = lines[0] if len(lines) == 1 else value.strip()
    forms = {
        value,
        whole,
        value.hex().encode(),
        value.hex().upper().encode(),
        quote(text, safe="").encode(),
        quote(text).encode(),
        quote_plus(text).encode(),
        json.dumps(text)[1:-1].encode(),
        json.dumps(text, ensure_ascii=False)[1:-1].encode(),
        html.escape(text).encode(),
        text.lower().encode(),  # as the name of a host
        repr(text)[1:-1].encode(),
        value.replace(b"\n", b"\r\n"),
        *_base64_forms(value),
    }
    yield from (form for form in forms if len(form) >= MIN_FORM_BYTES)
    if len(lines) > 1:
        yield from (line for line in lines if len(line) >= MIN_LINE_BYTES)


def _base64_forms(value: bytes) -> Iterator[bytes]:
    """What base64 makes of a value wherever in other bytes it stands."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value)
        # Without the characters that also depend on what stands around the value.
        first = -(-8 * before // _BASE64_BITS)
        certain = encoded[first : 8 * (before + len(value)) // _BASE64_BITS]
        yield certain
        yield certain.translate(bytes.maketrans(b"+/", b"-_"))
