"""Pictures among the outputs of an execution: what each one is, told from its first bytes.

They come from a hostile container, so nothing here decodes one: the header of the four formats that
models are shown says the format and the size in pixels, whatever the output's type claims.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""The types that clients and models take as pictures."""
HEAD_BYTES = 256 * 1024
"""How far into a picture its size is looked for; a JPEG has it behind its metadata."""
MAX_SEGMENTS = 256
"""Of a JPEG, that are passed over."""
_NO_FRAME = frozenset((0xC4, 0xC8, 0xCC))
"""The JPEG markers between 0xC0 and 0xCF that begin no frame."""


class Header(NamedTuple):
    """What the first bytes of a picture say of it."""

    mime: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that an execution showed."""

    number: int
    """Among the pictures of its execution, from 1."""
    output: int
    """The index of its output."""
    mime: str
    """As its bytes say; as the output said when they say nothing."""
    data: str
    """Its bytes as base64."""
    width: int = 0
    """In pixels; 0 when its bytes are none of a picture that is known."""
    height: int = 0

    @property
    def size_bytes(self) -> int:
        """Of the picture itself."""
        return len(self.data) * 3 // 4 - self.data[-2:].count("=")

    @property
    def is_known(self) -> bool:
        """Whether its bytes begin as a picture does."""
        return self.width > 0

    def words(self) -> str:
        """Its type and sizes, for a reader."""
        pixels = f"{self.width} × {self.height}, " if self.is_known else ""
        return f"{self.mime}, {pixels}{readable_size(self.size_bytes)}"


@dataclass(frozen=True, slots=True)
class Shown:
    """How a picture is shown in an answer."""

    picture: Picture
    data: str = ""
    """The bytes that are shown, as base64; empty when it is not shown."""
    mime: str = ""
    how: str = ""
    """How it was changed."""
    why_not: str = ""
    """Why it is not shown."""

    def words(self) -> str:
        """What it is, and whether it is shown otherwise."""
        how = "not shown" if self.why_not else self.how
        return "; ".join(filter(None, (self.picture.words(), how)))

    def marker(self) -> str:
        """What stands in the text in its place."""
        return f"[picture {self.picture.number}: {self.words()}]"


def pictures_of(outputs: Sequence[dict[str, Any]]) -> list[Picture]:
    """The pictures among nbformat outputs, in order."""
    return list(_found(outputs))


def picture_type(output: dict[str, Any]) -> str:
    """The type under which an output has a picture; empty when it has none."""
    data = cast("dict[str, Any]", output.get("data") or {})
    return next((mime for mime in PICTURES if isinstance(data.get(mime), str)), "")


def header(data: bytes) -> Header | None:
    """What a picture's first bytes say of it; None when they are of no format that is known."""
    found = _png(data) or _gif(data) or _webp(data) or _jpeg(data)
    return found if found is not None and found.width > 0 and found.height > 0 else None


def header_of(data: str) -> Header | None:
    """The same of bytes as base64."""
    try:
        return header(binascii.a2b_base64(data[: HEAD_BYTES // 3 * 4]))
    except ValueError:
        return None


def readable_size(size_bytes: int) -> str:
    """A number of bytes in few words."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    return f"{size_bytes / 1000:.0f} kB" if size_bytes < 999_500 else f"{size_bytes / 1e6:.1f} MB"


def _found(outputs: Sequence[dict[str, Any]]) -> Iterator[Picture]:
    number = 0
    for index, output in enumerate(outputs):
        if mime := picture_type(output):
            number += 1
            data: str = output["data"][mime]
            known = header_of(data) or Header(mime, 0, 0)
            yield Picture(number, index, known.mime, data, known.width, known.height)


def _png(data: bytes) -> Header | None:
    if data[:8] != b"\x89PNG\r\n\x1a\n" or data[12:16] != b"IHDR" or len(data) < 24:
        return None
    return Header("image/png", _big(data[16:20]), _big(data[20:24]))


def _gif(data: bytes) -> Header | None:
    if data[:6] not in (b"GIF87a", b"GIF89a") or len(data) < 10:
        return None
    return Header("image/gif", _little(data[6:8]), _little(data[8:10]))


def _webp(data: bytes) -> Header | None:
    """The three kinds of a first chunk: lossy, lossless and extended."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    match data[12:16]:
        case b"VP8 " if data[23:26] == b"\x9d\x01\x2a":
            size = _little(data[26:28]) & 0x3FFF, _little(data[28:30]) & 0x3FFF
        case b"VP8L" if data[20] == 0x2F:
            bits = _little(data[21:25])
            size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            size = _little(data[24:27]) + 1, _little(data[27:30]) + 1
        case _:
            return None
    return Header("image/webp", *size)


def _jpeg(data: bytes) -> Header | None:
    """The first frame's header, behind segments that each say their length."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    for _ in range(MAX_SEGMENTS):
        if len(data) < at + 9 or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a byte of padding
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            return Header("image/jpeg", _big(data[at + 7 : at + 9]), _big(data[at + 5 : at + 7]))
        else:
            at += 2 + _big(data[at + 2 : at + 4])
    return None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """What each of several may take of a room: the small as much as they need, and the others as
    much as one another of what is left."""
    found = [0] * len(sizes)
    by_size = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for place, index in enumerate(by_size):
        share = room // (len(sizes) - place)
        found[index] = share
        room -= min(sizes[index], share)
    return found
