"""Files and folders as the contents API of a Jupyter Server shows them, and its paths."""

from __future__ import annotations

import base64
import json
import mimetypes
import posixpath
from typing import Any, Literal

from pydantic import Field

from sandbox.errors import FileError, InvalidRequest
from sandbox.files.models import FileStat
from sandbox.notebooks.boundedjson import parse_object
from sandbox.notebooks.ipynb import read_ipynb, write_ipynb
from sandbox.notebooks.models import Notebook
from sandbox.server.jupyter.about import timestamp
from sandbox.server.jupyter.visits import Wanted, wanted

NOTEBOOK = ".ipynb"
Kind = Literal["file", "directory", "notebook"]
SHOWN = ("file", "directory", "symlink")
"""What is listed; a client can do nothing with the rest."""


class Saved(Wanted):
    """The body of ``PUT``."""

    type: str | None = None
    format: str | None = None
    content: Any = None
    chunk: int | None = Field(default=None, ge=-1)


class Made(Wanted):
    """The body of ``POST``."""

    copy_from: str | None = Field(default=None, max_length=4096)
    type: str | None = None
    ext: str | None = Field(default=None, max_length=100)


class Renamed(Wanted):
    """The body of ``PATCH``."""

    path: str = Field(max_length=4096)


def checked(path: str) -> str:
    """A path of the API, without slashes at its ends: always one below the workspace.

    Raises:
        InvalidRequest: It leads elsewhere, or is none.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise InvalidRequest("A path stays below the workspace.")
    return "/".join(parts)


def kind_of(stat: FileStat) -> Kind:
    """What the API calls it."""
    if stat.type == "directory":
        return "directory"
    return "notebook" if stat.name.endswith(NOTEBOOK) else "file"


def model(path: str, stat: FileStat, kind: Kind) -> dict[str, Any]:
    """A model without its content."""
    mime, _ = mimetypes.guess_type(path) if kind == "file" else (None, None)
    changed = timestamp(min(max(stat.mtime, 0.0), 4_000_000_000.0))
    return {
        "name": posixpath.basename(path),
        "path": path,
        "type": kind,
        "format": None,
        "mimetype": mime,
        "content": None,
        "size": None if kind == "directory" else stat.size,
        "writable": bool(stat.mode & 0o200),
        "created": changed,
        "last_modified": changed,
    }


def on_the_way(path: str, notebook: dict[str, Any], *, with_content: bool) -> dict[str, Any]:
    """The model of a folder as if nothing were in it but what leads to a notebook."""
    below = notebook["path"].removeprefix(f"{path}/" if path else "")
    name, _, further = below.partition("/")
    folder = {**notebook, "type": "directory", "size": None, "writable": False}
    shown = {**folder, "name": posixpath.basename(path), "path": path}
    if with_content:
        step = {**folder, "name": name, "path": posixpath.join(path, name)} if further else notebook
        shown |= {"format": "json", "content": [step]}
    return shown


def with_content(shown: dict[str, Any], format_: str, content_json: bytes) -> bytes:
    """A model as JSON, with a content that is JSON already."""
    text = json.dumps({**shown, "format": format_, "content": None}, ensure_ascii=True)
    head, _, tail = text.partition('"content": null')
    return head.encode() + b'"content": ' + content_json + tail.encode()


def file_content(path: str, data: bytes, format_: str) -> tuple[str, bytes]:
    """A file's content as text where it is one, else as base64; in the format that is asked for.

    Raises:
        InvalidRequest: It is asked for as text, and is none.
    """
    if format_ != "base64":
        try:
            return "text", json.dumps(data.decode("utf-8")).encode()
        except UnicodeDecodeError as exc:
            if format_ == "text":
                raise InvalidRequest(f"{path!r:.200} is not a text in UTF-8.") from exc
    return "base64", json.dumps(base64.b64encode(data).decode()).encode()


def notebook_json(notebook: Notebook) -> bytes:
    """A notebook as JSON."""
    return write_ipynb(notebook)


def saved(data: bytes) -> Saved:
    """The body of ``PUT``; what it can cost is known before it is parsed.

    Raises:
        InvalidRequest: It is none.
    """
    found = parse_object(data or b"{}")
    with wanted():
        return Saved.model_validate(found)


def notebook_given(content: object) -> Notebook:
    """The notebook in a client's model.

    Raises:
        InvalidRequest: It is none.
    """
    if not isinstance(content, dict):
        raise InvalidRequest("The content of a notebook is a JSON object.")
    return read_ipynb(json.dumps(content).encode()).notebook


def bytes_given(saved: Saved) -> bytes:
    """The bytes in a client's model of a file.

    Raises:
        InvalidRequest: There are none in that format.
    """
    if not isinstance(saved.content, str):
        raise InvalidRequest("The content of a file is a text, or base64.")
    try:
        if saved.format == "base64":
            return base64.b64decode(saved.content, validate=False)
        return saved.content.encode("utf-8")
    except ValueError as exc:
        raise InvalidRequest(
            f"The content is not as its format {saved.format!r:.40} says."
        ) from exc


def not_there(path: str) -> FileError:
    """The error where there is nothing that can be shown."""
    return FileError("not_found", f"There is no file or folder {path!r:.200} to be shown.")
