"""What an index says of a project, read strictly and written anew for sessions; pure.

Sessions ask the gateway at a name that exists nowhere else, in plain HTTP within their link, with
paths of one form: ``/INDEX/PROJECT/`` for a page and ``/INDEX/PROJECT/FILE`` for a file of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

HOST = "packages.sandbox.internal"
"""Reserved: requests for it are answered by the gateway itself, and go nowhere."""
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
METADATA = ".metadata"
"""Ends the name of a file's metadata, which an index may serve apart."""
MAX_FILES = 50_000
MAX_TOLD = 500

_FILE = r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,240}"
_PATH = re.compile(rf"/([0-9]{{1,2}})/([a-z0-9]+(?:-[a-z0-9]+)*)/({_FILE})?", re.ASCII)
_NAME = re.compile(_FILE, re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_PATH = 400


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for."""

    index: int
    """Which of the configured indexes: 0 is pip's ``index-url``."""
    project: str
    file: str = ""
    """Empty for the page."""


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A file that an index names, with the hash that it has to have."""

    url: str
    sha256: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A page of an index: its files by name, and the page as sessions get it."""

    files: dict[str, IndexFile]
    body: bytes


def read_path(path: str) -> Wanted | None:
    """What a path asks for; None when it is of no form that there is."""
    if len(path) > MAX_PATH:
        return None
    # Installers write these two of a version so; nothing else needs an escape.
    plain = re.sub(r"%2[Bb]", "+", path).replace("%21", "!")
    found = _PATH.fullmatch(plain)
    return None if found is None else Wanted(int(found[1]), found[2], found[3] or "")


def read_project(name: str, url: str, text: str, *, is_json: bool) -> Project:
    """Read a page of an index.

    What has no SHA-256, or a name of another form than files have, is left out: it could not be
    verified.

    Args:
        url: Where the page was in the end.

    Raises:
        ValueError: It is no such page.
    """
    files: dict[str, IndexFile] = {}
    told: list[dict[str, Any]] = []
    for found in _from_json(text) if is_json else _from_html(text):
        file, address = str(found["filename"]), urldefrag(urljoin(url, str(found["url"]))).url
        if _NAME.fullmatch(file) is None or file in files or len(files) >= MAX_FILES:
            continue
        sha256, size = _sha256(found.get("hashes")), found.get("size")
        if not sha256:
            continue
        size_bytes = size if isinstance(size, int) and size >= 0 else None
        files[file] = IndexFile(address, sha256, size_bytes)
        row: dict[str, Any] = {"filename": file, "url": file, "hashes": {"sha256": sha256}}
        if size_bytes is not None:
            row["size"] = size_bytes
        python, yanked = found.get("requires-python"), found.get("yanked")
        if isinstance(python, str):
            row["requires-python"] = python[:MAX_TOLD]
        if yanked:
            row["yanked"] = yanked[:MAX_TOLD] if isinstance(yanked, str) else True
        if metadata := _sha256(found.get("core-metadata", found.get("dist-info-metadata"))):
            files[f"{file}{METADATA}"] = IndexFile(f"{address}{METADATA}", metadata)
            row["core-metadata"] = {"sha256": metadata}
        told.append(row)
    page = {"meta": {"api-version": "1.0"}, "name": name, "files": told}
    return Project(files, json.dumps(page, separators=(",", ":")).encode())


def _sha256(hashes: Any) -> str:
    value: Any = cast("dict[str, Any]", hashes).get("sha256") if isinstance(hashes, dict) else None
    return value if isinstance(value, str) and _SHA256.fullmatch(value) else ""


def _from_json(text: str) -> Iterator[dict[str, Any]]:
    try:
        loaded: Any = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError("its page cannot be read") from exc
    files: Any = cast("dict[str, Any]", loaded).get("files") if isinstance(loaded, dict) else None
    if not isinstance(files, list):
        raise ValueError("its page names no files")
    for file in cast("list[Any]", files):
        if isinstance(file, dict) and {"filename", "url"} <= {*cast("dict[str, Any]", file)}:
            yield cast("dict[str, Any]", file)


def _from_html(text: str) -> Iterator[dict[str, Any]]:
    links = _Links()
    try:
        links.feed(text)
    except AssertionError as exc:  # so it says that a declaration makes no sense
        raise ValueError("its page cannot be read") from exc
    for attributes in links.found:
        url, _, fragment = (attributes.get("href") or "").partition("#")
        metadata = attributes.get("data-core-metadata", attributes.get("data-dist-info-metadata"))
        yield {
            "filename": unquote(urlsplit(url).path.rpartition("/")[2]),
            "url": url,
            "hashes": {"sha256": fragment.removeprefix("sha256=")},
            "requires-python": attributes.get("data-requires-python"),
            "yanked": "data-yanked" in attributes and (attributes["data-yanked"] or True),
            "core-metadata": {"sha256": (metadata or "").removeprefix("sha256=")},
        }


class _Links(HTMLParser):
    """The links of a page, each with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a link."""
        if tag == "a":
            self.found.append(dict(attrs))
