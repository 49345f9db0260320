"""In which encoding bytes are text."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from sandbox.outputs.redaction import Redactor
from sandbox.server.encodings import TextEncoding, as_utf8, encoding_of

WORDS = "name;ort\nJosé;Málaga – “ja”\n"


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "utf-8"),
        (b"\x1b[1mbold\x1b[0m\a", "utf-8"),
        (WORDS.encode(), "utf-8"),
        (WORDS.encode("utf-8-sig"), "utf-8-sig"),
        (WORDS.encode("utf-16"), "utf-16"),
        (b"\xfe\xff" + WORDS.encode("utf-16-be"), "utf-16"),
        (WORDS.encode("utf-32"), "utf-32"),
        ("plain words\n".encode("utf-16-le"), "utf-16-le"),
        ("plain words\n".encode("utf-16-be"), "utf-16-be"),
        (WORDS.encode("cp1252"), "cp1252"),
        (b"caf\xe9 \x81", "latin-1"),
        (b"\0", None),
        (bytes(100), None),
        (b"a\0b", None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"\xff\xfea", None),
        (b"\xef\xbb\xbf\xff", None),
    ],
)
def test_an_encoding_is_declared_or_found_out(data: bytes, encoding: str | None) -> None:
    assert encoding_of(data, is_whole=True) == encoding


def test_bytes_by_chance_are_no_text() -> None:
    assert encoding_of(os.urandom(2000), is_whole=True) is None


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_character_that_is_cut_is_no_reason_to_doubt(cut: int) -> None:
    assert encoding_of("äöü€€€".encode()[:cut], is_whole=False) == "utf-8"


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "cp1252"])
async def test_text_in_pieces_is_the_same_in_utf8(encoding: TextEncoding) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in WORDS.encode(encoding):
            yield bytes([byte])

    got = b"".join([piece async for piece in as_utf8(pieces(), encoding, Redactor())])
    assert got.decode() == WORDS


@pytest.mark.anyio
async def test_a_secret_is_not_disguised_by_decoding_it() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"\xff geh\xc3"
        yield b"\xa4imnis!! "

    redactor = Redactor({"s": "gehäimnis!!"})
    got = b"".join([piece async for piece in as_utf8(pieces(), "cp1252", redactor)])
    assert "geh" not in got.decode()
