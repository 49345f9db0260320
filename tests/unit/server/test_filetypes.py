"""What kind of file bytes are."""

from __future__ import annotations

import io
import sqlite3
import struct
import tarfile
import zipfile

import pytest

from sandbox.server.filetypes import filetype

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 640, 480)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return file.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table t (a)")
        return connection.serialize()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "fact"),
    [
        (PNG, "PNG", "640 x 480 pixels"),
        (PNG[:10], "PNG", ""),
        (b"GIF89a" + struct.pack("<HH", 7, 9), "GIF", "7 x 9 pixels"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP", ""),
        (database(), "SQLite", "2 pages of 4096 bytes"),
        (zipped("a.txt"), "zip", ""),
        (zipped("[Content_Types].xml", "xl/workbook.xml"), "Excel", ""),
        (zipped("xl/a"), "zip", ""),
        (tarred(), "tar", ""),
        (b"PAR1....", "Parquet", ""),
    ],
)
def test_a_file_is_known_by_how_it_begins(data: bytes, name: str, fact: str) -> None:
    kind, told = filetype(data)
    assert kind is not None
    assert name in kind.name
    assert told == fact


@pytest.mark.parametrize("data", [b"", b"\0", b"xyz", b"P"])
def test_other_bytes_are_of_no_known_kind(data: bytes) -> None:
    assert filetype(data) == (None, "")
