"""What a picture is, told from its first bytes; and which pictures are shown."""

from __future__ import annotations

import base64
import struct

import pytest

from sandbox.server.pictures import Header, header, header_of, pictures_of, readable_size

from ...support.results import display, png, stream


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(20)


def jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + bytes(10)
    return b"\xff\xd8" + before + frame


def webp(kind: bytes, rest: bytes) -> bytes:
    return b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4) + rest + bytes(20)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(1200, 900), Header("image/png", 1200, 900)),
        (gif(30, 20), Header("image/gif", 30, 20)),
        (jpeg(640, 480, b"\xff\xe0" + struct.pack(">H", 16) + bytes(14)), ("image/jpeg", 640, 480)),
        (jpeg(9, 8, b"\xff\xff\xe1" + struct.pack(">H", 9000) + bytes(8998)), ("image/jpeg", 9, 8)),
        (jpeg(7, 6, b"\xff\xc4" + struct.pack(">H", 4) + bytes(2)), ("image/jpeg", 7, 6)),
        (
            webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 50, 40)),
            ("image/webp", 50, 40),
        ),
        (webp(b"VP8L", b"\x2f" + struct.pack("<I", 49 | 39 << 14)), ("image/webp", 50, 40)),
        (webp(b"VP8X", bytes(4) + b"\x31\x00\x00\x27\x00\x00"), ("image/webp", 50, 40)),
    ],
)
def test_the_header_says_format_and_size(data: bytes, expected: tuple[str, int, int]) -> None:
    assert header(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture at all, but text of some length",
        png(0, 10),
        png(5, 5)[:20],
        b"\xff\xd8\xff",
        b"\xff\xd8" + (b"\xff\xe0\x00\x00" * 100_000),
        b"\xff\xd8" + (b"\xff\xe0\x00\x02" * 100_000),
        b"\xff\xd8" + b"\xff" * 100_000,
        webp(b"VP8 ", bytes(30)),
        webp(b"XXXX", bytes(30)),
    ],
)
def test_what_begins_as_no_picture_has_no_header(data: bytes) -> None:
    assert header(data) is None


def test_bytes_that_are_no_base64_have_no_header() -> None:
    assert header_of("A") is None
    assert header_of("") is None


def test_a_picture_is_what_its_bytes_say_whatever_its_type_claims() -> None:
    data = base64.b64encode(gif(3, 2)).decode()
    outputs = [stream("x"), display(image_png=data), display(image_png="AAAA"), display(a="b")]
    first, second = pictures_of(outputs)
    assert (first.number, first.output, first.mime, first.width) == (1, 1, "image/gif", 3)
    assert (second.number, second.output, second.mime) == (2, 2, "image/png")
    assert not second.is_known
    assert first.size_bytes == 30


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (83_900, "84 kB"),
        (999_499, "999 kB"),
        (2_340_000, "2.3 MB"),
    ],
)
def test_sizes_are_told_in_few_words(size: int, words: str) -> None:
    assert readable_size(size) == words
