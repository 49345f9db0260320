"""The files of a container in memory: a dictionary of absolute paths."""

from __future__ import annotations

import fnmatch
import hashlib
import posixpath
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sandbox.errors import FileError
from sandbox.link import wire
from sandbox.link.link import Stream

WORKSPACE = "/workspace"


@dataclass(slots=True)
class _Entry:
    """A file, or a directory when ``data`` is None."""

    data: bytes | None
    mode: int
    mtime: float = field(default_factory=time.time)


class FakeFiles:
    """Answers the ``file.*`` operations; only what is below the writable directories changes."""

    def __init__(self, writable: tuple[str, ...]) -> None:
        self._writable = writable
        self._entries = {path: _Entry(None, 0o755) for path in ("/", *writable)}

    async def serve(self, stream: Stream, op: str, request: Mapping[str, Any]) -> None:
        """Answer one stream whose operation is ``op`` (without ``file.``)."""
        match op:
            case "read":
                await self._read(stream, request)
            case "write":
                await self._write(stream, request)
            case "stat":
                await stream.send_json(self._stat(self._existing(request, "path")))
            case "list":
                await stream.send_json(self._list(request))
            case "delete":
                await stream.send_json({"deleted": self._delete(request)})
            case "move":
                await stream.send_json(self._move(request))
            case "mkdir":
                await stream.send_json(self._make_directory(request))
            case _:
                raise FileError("io_error", f"This container knows no file.{op}.")

    def copied(self) -> dict[str, _Entry]:
        """The workspace's files, as they are."""
        below = f"{WORKSPACE}/"
        return {path: replace(e) for path, e in self._entries.items() if path.startswith(below)}

    def put_back(self, files: dict[str, _Entry]) -> None:
        """Have these files in the workspace, and no others."""
        for path in self.copied():
            del self._entries[path]
        self._entries |= {path: replace(entry) for path, entry in files.items()}

    # --- paths

    def _path(self, request: Mapping[str, Any], key: str) -> str:
        given = str(request.get(key, ""))
        if "\0" in given or any(len(name.encode()) > 255 for name in given.split("/")):
            raise FileError("invalid_name", f"{given!r:.80} cannot be a file's name.")
        return posixpath.normpath(posixpath.join(WORKSPACE, given))

    def _existing(self, request: Mapping[str, Any], key: str) -> str:
        path = self._path(request, key)
        if path not in self._entries:
            raise FileError("not_found", f"{path} does not exist.")
        return path

    def _place(self, path: str, *, parents: bool = False) -> None:
        """Make sure that something may be put at ``path``."""
        if not path.startswith(tuple(f"{target}/" for target in self._writable)):
            raise FileError("read_only", f"{path} is on a read-only file system.")
        parent = posixpath.dirname(path)
        if parents and parent not in self._entries:
            self._place(parent, parents=True)
            self._entries[parent] = _Entry(None, 0o755)
        if parent not in self._entries:
            raise FileError("not_found", f"{parent} does not exist.")
        if self._entries[parent].data is not None:
            raise FileError("not_a_directory", f"{parent} is not a directory.")

    def _stat(self, path: str) -> dict[str, Any]:
        entry = self._entries[path]
        data = entry.data
        etag = hashlib.sha256(data if data is not None else path.encode()).hexdigest()[:16]
        return {
            "path": path,
            "name": posixpath.basename(path),
            "type": "directory" if data is None else "file",
            "size": len(data or b""),
            "mode": entry.mode,
            "mtime": entry.mtime,
            "etag": etag,
        }

    # --- operations

    async def _read(self, stream: Stream, request: Mapping[str, Any]) -> None:
        path = self._existing(request, "path")
        data = self._entries[path].data
        if data is None:
            raise FileError("is_directory", f"{path} is a directory.")
        await stream.send_json(self._stat(path))
        start = int(request.get("offset") or 0)
        length = request.get("length")
        await stream.send(data[start:] if length is None else data[start : start + int(length)])

    async def _write(self, stream: Stream, request: Mapping[str, Any]) -> None:
        path = self._path(request, "path")
        self._place(path, parents=bool(request.get("create_parents")))
        pieces = [message.data async for message in stream if message.tag == wire.BYTES]
        old = self._entries.get(path)
        if old is not None and old.data is None:
            raise FileError("is_directory", f"{path} is a directory.")
        wanted = request.get("if_etag")
        if wanted and (old is None or self._stat(path)["etag"] != wanted):
            raise FileError("conflict", f"{path} was changed meanwhile.")
        before = old.data or b"" if old is not None and request.get("append") else b""
        mode = int(request.get("mode") or (old.mode if old else 0o644))
        self._entries[path] = _Entry(before + b"".join(pieces), mode)
        await stream.send_json(self._stat(path))

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        root = self._existing(request, "path")
        if self._entries[root].data is not None:
            raise FileError("not_a_directory", f"{root} is not a directory.")
        prefix = root.rstrip("/") + "/"
        depth = max(1, int(request.get("max_depth") or 1))
        pattern = str(request.get("pattern") or "*")
        found = sorted(
            path
            for path in self._entries
            if path.startswith(prefix)
            and path != prefix
            and path[len(prefix) :].count("/") < depth
            and fnmatch.fnmatchcase(posixpath.basename(path), pattern)
        )
        start, limit = int(request.get("start_index") or 0), int(request.get("limit") or 1000)
        page = [self._stat(path) for path in found[start : start + limit]]
        return {"entries": page, "total": len(found), "truncated": False}

    def _delete(self, request: Mapping[str, Any]) -> int:
        path = self._existing(request, "path")
        self._place(path)
        inside = self._inside(path)
        if inside and not request.get("recursive"):
            raise FileError("not_empty", f"{path} is not empty.")
        for gone in (path, *inside):
            del self._entries[gone]
        return 1 + len(inside)

    def _move(self, request: Mapping[str, Any]) -> dict[str, Any]:
        source, target = self._existing(request, "source"), self._path(request, "target")
        self._place(source)
        self._place(target)
        if target in self._entries and not request.get("overwrite"):
            raise FileError("exists", f"{target} exists.")
        for path in (source, *self._inside(source)):
            self._entries[target + path[len(source) :]] = self._entries.pop(path)
        return self._stat(target)

    def _make_directory(self, request: Mapping[str, Any]) -> dict[str, Any]:
        path = self._path(request, "path")
        parents = bool(request.get("parents"))
        if path in self._entries and not (parents and self._entries[path].data is None):
            raise FileError("exists", f"{path} exists.")
        if path not in self._entries:
            self._place(path, parents=parents)
            self._entries[path] = _Entry(None, 0o755)
        return self._stat(path)

    def _inside(self, path: str) -> list[str]:
        return [other for other in self._entries if other.startswith(path + "/")]
