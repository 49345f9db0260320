"""The part of YAML that a policy may be written in, with the line of every key.

A policy is plain data: mappings, lists and scalars. Anchors, aliases, tags, merge keys, directives
and further documents are refused, and so is a key that comes twice: a reader must see what a policy
says without running YAML in the head. Plain scalars are read by one short rule, so ``no`` and
``1:30`` are text here, not a boolean and ninety.

The parser's events are read directly, since its own constructors expand aliases, keep the last of
two equal keys and recurse as deep as the file wants.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox.errors import PolicyError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 8

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_WORDS: dict[str, Any] = {"true": True, "false": False, "null": None, "~": None, "": None}

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A policy file as data."""

    file: str
    """As the caller named it, for errors."""
    data: dict[str, Any]
    lines: dict[Key, int] = field(default_factory=dict[Key, int])
    """The line, from 1, of each key path."""

    def error(self, key: Key, reason: str, *, remedy: str = "") -> PolicyError:
        """An error about a key of this file, with the line of it or of what it should be in."""
        places = (key[:length] for length in range(len(key), 0, -1))
        line = next((self.lines[place] for place in places if place in self.lines), 0)
        return PolicyError(reason, file=self.file, line=line, key=dotted(key), remedy=remedy)


def dotted(key: Key) -> str:
    """A key path as people write it: ``tools.0``."""
    return ".".join(str(part) for part in key)


def read_document(path: Path) -> Document:
    """Read a policy file.

    Raises:
        PolicyError: It cannot be read, is too large, or is not plain YAML data.
    """
    file = str(path)
    try:
        # Not blocking, since a FIFO of that name would keep start-up waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PolicyError("is not a regular file", file=file)
            content = stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise PolicyError(f"cannot be read: {exc.strerror}", file=file) from exc
    if len(content) > MAX_BYTES:
        raise PolicyError(f"is longer than {MAX_BYTES} bytes", file=file)
    try:
        return parse_document(content.decode("utf-8"), file)
    except UnicodeDecodeError as exc:
        raise PolicyError(f"is not UTF-8 text (byte {exc.start})", file=file) from exc


def parse_document(text: str, file: str = "") -> Document:
    """Read the text of a policy.

    Raises:
        PolicyError: It is not plain YAML data.
    """
    reader = _Reader(text, file)
    try:
        return reader.document()
    except yaml.MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 0
        raise PolicyError(f"is not YAML: {exc.problem}", file=file, line=line) from exc
    except yaml.YAMLError as exc:
        raise PolicyError(f"is not YAML: {exc}", file=file) from exc


class _Reader:
    """One pass over the parser's events."""

    def __init__(self, text: str, file: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)  # pyright: ignore[reportUnknownMemberType]  # no stubs
        self._file = file
        self._lines: dict[Key, int] = {}

    def document(self) -> Document:
        """Read the only document of the stream."""
        self._next()  # the start of the stream
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            raise PolicyError("is empty", file=self._file, remedy="Write at least `version: 1`.")
        if isinstance(start, yaml.DocumentStartEvent) and (start.version or start.tags):
            raise self._wrong(start, (), "has a YAML directive", "Remove the lines with `%`.")
        first = self._next()
        data: dict[str, Any] | Any = self._value(first, ())
        if not isinstance(first, yaml.MappingStartEvent):
            raise self._wrong(first, (), "is not a mapping", "Write `key: value` lines.")
        self._next()  # the end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._wrong(after, (), "has a second document", "Keep one policy in one file.")
        return Document(self._file, data, self._lines)

    def _value(self, event: yaml.Event, key: Key) -> Any:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._wrong(event, key, "uses an anchor or alias", "Write the value itself.")
        if getattr(event, "tag", None) is not None:
            raise self._wrong(event, key, "has a tag", "Write the value without `!`.")
        if len(key) > MAX_DEPTH:
            raise self._wrong(event, key, f"is nested more than {MAX_DEPTH} levels deep")
        match event:
            case yaml.ScalarEvent():
                return _scalar(event)
            case yaml.SequenceStartEvent():
                return self._sequence(key)
            case yaml.MappingStartEvent():
                return self._mapping(key)
            case _:  # the parser yields nothing else where a value stands
                raise self._wrong(event, key, "is not a value")

    def _sequence(self, key: Key) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            place = (*key, len(items))
            self._lines[place] = _line(event)
            items.append(self._value(event, place))
        return items

    def _mapping(self, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            name = self._value(event, key)
            if not isinstance(name, str):
                raise self._wrong(event, key, "has a key that is not text", "Use words as keys.")
            place = (*key, name)
            if name in found:
                first = self._lines[place]
                raise self._wrong(event, place, f"comes twice, first in line {first}")
            self._lines[place] = _line(event)
            found[name] = self._value(self._next(), place)
        return found

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _wrong(self, event: yaml.Event, key: Key, reason: str, remedy: str = "") -> PolicyError:
        return PolicyError(
            reason, file=self._file, line=_line(event), key=dotted(key), remedy=remedy
        )


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if not event.implicit[0]:
        return text  # quoted
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
