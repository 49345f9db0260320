"""A mime bundle of a kernel's message: looked at once, for however many outputs show it."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, cast

from sandbox.outputs import mime
from sandbox.outputs.plain import cut, encodable, plain
from sandbox.outputs.readable import is_bare
from sandbox.outputs.redaction import Redactor

MAX_TYPES = 32
"""The types of one bundle that are looked at."""
MAX_DISPLAY_ID = 256
OTHER_TYPES = "other types"
"""Stands for the names of types that are more than are named."""


class Part:
    """What a bundle has of one type that is kept."""

    __slots__ = ("_is_read", "_metadata", "_raw", "_value", "is_image", "name", "size")

    def __init__(self, name: str, raw: Any, metadata: Any) -> None:
        if name in mime.CUT and (text := mime.joined(raw)) is not None:
            raw = text
        self.name = name
        self.size = mime.size(raw)
        self.is_image = mime.is_image(name)
        self._raw = raw
        self._metadata = metadata
        self._value: str | None = None
        self._is_read = False

    @property
    def value(self) -> str | None:
        """The value made safe, as it is kept; None when it is not acceptable."""
        if not self._is_read:
            self._value = mime.read(self.name, self._raw)
            self._is_read = True
        return self._value

    def cut(self, limit_bytes: int) -> tuple[str, int] | None:
        """Head and tail of a text made safe, and the bytes cut; None of what cannot be cut."""
        if self.name not in mime.CUT or not isinstance(self._raw, str):
            return None
        return cut(self._raw, limit_bytes, lambda text: mime.read(self.name, text) or "")

    @property
    def is_bare(self) -> bool:
        """Whether it is a text that names no more than the class of what is shown."""
        return self.name == "text/plain" and isinstance(self._raw, str) and is_bare(self._raw)

    @property
    def shape(self) -> dict[str, int]:
        """Width and height of an image, as far as they are stated."""
        return mime.shape(self._metadata) if self.is_image else {}


class Bundle:
    """The mime bundle of a message's content, which nobody has checked; secrets are taken out of it
    before anything of it is cut."""

    def __init__(self, content: Mapping[str, Any], redactor: Redactor) -> None:
        try:
            content = redactor.data(content)
        except (ValueError, RecursionError):
            content = {}
        self.display_id = display_id(content, redactor)
        described = mapping(content.get("metadata"))
        self.parts: list[Part] = []
        self.unknown: list[tuple[str, int]] = []
        """The types that nobody could show, in plain text, with their sizes in bytes."""
        data = mapping(content.get("data"))
        for name, raw in islice(data.items(), MAX_TYPES):
            if mime.is_known(name):
                self.parts.append(Part(name, raw, described.get(name)))
            else:
                self.unknown.append((plain(name[:80]), mime.size(raw)))
        if len(data) > MAX_TYPES:
            rest = islice(data.values(), MAX_TYPES, None)
            self.unknown.append((OTHER_TYPES, sum(map(mime.size, rest))))
        # The words first: they are what must find room.
        self.parts.sort(key=lambda part: part.name != "text/plain")

    @property
    def is_told(self) -> bool:
        """Whether its plain text says what is shown."""
        return any(part.name == "text/plain" and not part.is_bare for part in self.parts)

    @property
    def names(self) -> list[str]:
        """All its types that were looked at."""
        return [part.name for part in self.parts] + [name for name, _ in self.unknown]


def display_id(content: Mapping[str, Any], redactor: Redactor) -> str:
    """The id under which a bundle is shown; empty when it has none."""
    value = mapping(content.get("transient")).get("display_id")
    if not isinstance(value, str) or len(value) > MAX_DISPLAY_ID:
        return ""
    return redactor.text(encodable(value))


def mapping(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one when it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
