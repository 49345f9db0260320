"""What kind of file bytes are, by how they begin, and the first facts about it.

Only what the bytes themselves say, in numbers or fixed words: nothing of the file is repeated.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

PANDAS = "Read it with execute_code, such as pandas.{}."
ARCHIVE = "List and unpack it with run_command, such as {}."


@dataclass(frozen=True)
class FileType:
    """A kind of file."""

    name: str
    mime: str
    advice: str = ""
    """How to look at one; empty when there is nothing special to it."""


@dataclass(frozen=True)
class _Known(FileType):
    mark: bytes = b""
    at: int = 0
    facts: Callable[[bytes], str] = lambda _: ""


def _png(data: bytes) -> str:
    return "{} x {} pixels".format(*struct.unpack(">II", data[16:24]))


def _gif(data: bytes) -> str:
    return "{} x {} pixels".format(*struct.unpack("<HH", data[6:10]))


def _bmp(data: bytes) -> str:
    return "{} x {} pixels".format(*struct.unpack("<ii", data[18:26]))


def _sqlite(data: bytes) -> str:
    (size, pages) = struct.unpack(">H", data[16:18])[0], struct.unpack(">I", data[28:32])[0]
    return f"{pages} pages of {65536 if size == 1 else size} bytes"


def _wav(data: bytes) -> str:
    channels, rate = struct.unpack("<HI", data[22:28])
    return f"{channels} channels at {rate} Hz"


_ZIP_PARTS = (
    (b"xl/", "an Excel workbook", PANDAS.format("read_excel")),
    (b"word/", "a Word document", "Read it with execute_code, such as docx.Document."),
    (b"ppt/", "a PowerPoint presentation", "Read it with execute_code and a library for it."),
)
_OFFICE = "application/vnd.openxmlformats-officedocument"
_KNOWN = (
    _Known("a PNG picture", "image/png", mark=b"\x89PNG\r\n\x1a\n", facts=_png),
    _Known("a JPEG picture", "image/jpeg", mark=b"\xff\xd8\xff"),
    _Known("a GIF picture", "image/gif", mark=b"GIF8", facts=_gif),
    _Known("a WebP picture", "image/webp", mark=b"WEBP", at=8),
    _Known("a BMP picture", "image/bmp", mark=b"BM", facts=_bmp),
    _Known("a TIFF picture", "image/tiff", mark=b"II*\0"),
    _Known("a TIFF picture", "image/tiff", mark=b"MM\0*"),
    _Known("a PDF document", "application/pdf", "Extract its text with execute_code.", b"%PDF-"),
    _Known("a zip archive", "application/zip", ARCHIVE.format("python3 -m zipfile"), b"PK\x03\x04"),
    _Known("gzip", "application/gzip", ARCHIVE.format("gzip -dc or tar -tzf"), b"\x1f\x8b"),
    _Known("bzip2", "application/x-bzip2", ARCHIVE.format("python3 -m tarfile"), b"BZh"),
    _Known("xz", "application/x-xz", ARCHIVE.format("python3 -m tarfile"), b"\xfd7zXZ\0"),
    _Known("zstandard", "application/zstd", mark=b"\x28\xb5\x2f\xfd"),
    _Known("7-zip", "application/x-7z-compressed", mark=b"7z\xbc\xaf\x27\x1c"),
    _Known("a tar archive", "application/x-tar", ARCHIVE.format("tar -tf"), b"ustar", 257),
    _Known(
        "an SQLite database",
        "application/vnd.sqlite3",
        "Query it with execute_code and the module sqlite3.",
        b"SQLite format 3\0",
        facts=_sqlite,
    ),
    _Known("Parquet", "application/vnd.apache.parquet", PANDAS.format("read_parquet"), b"PAR1"),
    _Known("Arrow", "application/vnd.apache.arrow.file", PANDAS.format("read_feather"), b"ARROW1"),
    _Known("HDF5", "application/x-hdf5", PANDAS.format("read_hdf"), b"\x89HDF\r\n\x1a\n"),
    _Known(
        "a NumPy array",
        "application/x-npy",
        "Load it with execute_code, such as numpy.load.",
        b"\x93NUMPY",
    ),
    _Known("an older Office file", "application/x-ole-storage", mark=b"\xd0\xcf\x11\xe0\xa1\xb1"),
    _Known("an ELF program or library", "application/x-elf", mark=b"\x7fELF"),
    _Known("a Windows program", "application/vnd.microsoft.portable-executable", mark=b"MZ"),
    _Known("WebAssembly", "application/wasm", mark=b"\0asm"),
    _Known("WAV audio", "audio/wav", mark=b"WAVE", at=8, facts=_wav),
    _Known("Ogg audio or video", "application/ogg", mark=b"OggS"),
    _Known("FLAC audio", "audio/flac", mark=b"fLaC"),
    _Known("MP3 audio", "audio/mpeg", mark=b"ID3"),
    _Known("MP4 or QuickTime video", "video/mp4", mark=b"ftyp", at=4),
    _Known("Matroska or WebM video", "video/webm", mark=b"\x1a\x45\xdf\xa3"),
    _Known("a Python pickle", "application/x-pickle", mark=b"\x80\x04\x95"),
    _Known("a Python pickle", "application/x-pickle", mark=b"\x80\x05\x95"),
)


def filetype(data: bytes) -> tuple[FileType | None, str]:
    """What kind of file begins so, and a fact about it; None and an empty text when unknown."""
    for known in _KNOWN:
        if data.startswith(known.mark, known.at):
            document = _office(data) if known.mime == "application/zip" else None
            return document or known, _fact(known, data)
    return None, ""


def _fact(known: _Known, data: bytes) -> str:
    try:
        return known.facts(data)
    except struct.error:  # it is cut short
        return ""


def _office(data: bytes) -> FileType | None:
    """The document that a zip archive is, by the folders that its first entries name."""
    if b"[Content_Types].xml" not in data and b"_rels/" not in data:
        return None
    found = [(name, advice) for part, name, advice in _ZIP_PARTS if part in data]
    return FileType(found[0][0], _OFFICE, found[0][1]) if found else None
