"""The files of a Jupyter Server, behind a link: the operations ``file.*`` over its ContentsManager.

What may be seen and touched is the ContentsManager's decision: its root cannot be left, and what it
hides is not there. It knows neither links nor permission bits, so nothing is told of them.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import posixpath
import re
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import contextmanager
from datetime import datetime
from secrets import token_hex
from typing import Any

import anyio
import anyio.to_thread
from jupyter_core.utils import ensure_async
from jupyter_server.services.contents.manager import ContentsManager
from tornado.web import HTTPError

from sandbox.errors import FileError, InvalidRequest, NotFound
from sandbox.link import wire
from sandbox.link.stream import Stream

MAX_FILE_BYTES = 64 * 1024 * 1024
"""The ContentsManager reads and writes files as a whole, in memory."""
PIECE_BYTES = 256 * 1024
MAX_SCANNED = 50_000
MAX_DEPTH = 32
REASONS = {
    403: "permission_denied",
    404: "not_found",
    409: "exists",
    413: "too_large",
    507: "no_space",
}


class ServerFiles:
    """The files below the ContentsManager's root."""

    def __init__(self, contents: ContentsManager) -> None:
        self._contents: Any = contents  # which has no types, and may be asynchronous or not

    async def serve(self, stream: Stream, op: str) -> None:
        """Do one operation."""
        request = stream.request
        match op:
            case "stat":
                await stream.send_json(await self._stat(_path(request)))
            case "list":
                await stream.send_json(await self._list(request))
            case "read":
                await self._read(stream, request)
            case "write":
                await stream.send_json(await self._write(stream, request))
            case "delete":
                count = await self._delete(_path(request), bool(request.get("recursive")))
                await stream.send_json({"deleted": count})
            case "move":
                await stream.send_json(await self._move(request))
            case "mkdir":
                await stream.send_json(await self._mkdir(request))
            case _:
                raise NotFound(f"There is no operation file.{op}.")

    # --- looking

    async def _get(self, path: str, **asked: Any) -> dict[str, Any]:
        with translated(path):
            await self._check_seen(path)
            found: dict[str, Any] = await ensure_async(self._contents.get(path, **asked))
        return found

    async def _check_seen(self, path: str) -> None:
        """What is hidden is not there, as Jupyter Server's own endpoints have it."""
        contents = self._contents
        if path and not contents.allow_hidden and await ensure_async(contents.is_hidden(path)):
            raise FileError("not_found", f"There is no {path!r:.300}.")

    async def _stat(self, path: str) -> dict[str, Any]:
        return _described(await self._get(path, content=False))

    async def _exists(self, path: str) -> bool:
        with translated(path):
            return bool(await ensure_async(self._contents.exists(path)))

    async def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        root = _path(request)
        matches = _pattern(str(request.get("pattern") or ""))
        depth = min(int(request.get("max_depth") or 1), MAX_DEPTH)
        found: list[dict[str, Any]] = []
        truncated = False
        async for relative, model in self._below(root, depth):
            if len(found) >= MAX_SCANNED:
                truncated = True
                break
            if matches(relative):
                found.append(model)
        start, limit = int(request["start_index"]), int(request["limit"])
        found.sort(key=lambda model: str(model["path"]))
        page = [_described(model) for model in found[start : start + limit]]
        return {"entries": page, "total": len(found), "truncated": truncated}

    async def _below(self, root: str, depth: int) -> AsyncGenerator[tuple[str, dict[str, Any]]]:
        """What is below a folder, so many levels deep: each path from there, and its model."""
        waiting = [(root, 1)]
        while waiting:
            folder, level = waiting.pop()
            model = await self._get(folder, content=True, type="directory")
            for each in model["content"]:
                path = str(each["path"]).strip("/")
                yield path.removeprefix(root).lstrip("/"), each
                if each["type"] == "directory" and level < depth:
                    waiting.append((path, level + 1))

    # --- reading and writing

    async def _read(self, stream: Stream, request: Mapping[str, Any]) -> None:
        path = _path(request)
        model = await self._get(path, content=False)
        if model["type"] == "directory":
            raise FileError("is_directory", f"{path!r:.300} is a folder.")
        _check_size(path, int(model.get("size") or 0))
        model = await self._get(path, content=True, type="file", format="base64")
        data = await anyio.to_thread.run_sync(base64.b64decode, model["content"])
        _check_size(path, len(data))
        await stream.send_json(_described({**model, "size": len(data)}))
        start = int(request.get("offset") or 0)
        length = request.get("length")
        end = len(data) if length is None else min(len(data), start + int(length))
        for at in range(start, end, PIECE_BYTES):
            await stream.send(data[at : min(at + PIECE_BYTES, end)], wire.BYTES)

    async def _write(self, stream: Stream, request: Mapping[str, Any]) -> dict[str, Any]:
        path = _path(request)
        if request.get("mode") is not None or request.get("append"):
            raise InvalidRequest(
                "Files of a Jupyter Server are written as a whole, and without permission bits.",
                remedy="Leave the mode out.",
            )
        data = bytearray()
        async for message in stream:
            data += message.data
            _check_size(path, len(data))
        if (wanted := request.get("if_etag")) is not None:
            found = await self._stat(path)
            if found["etag"] != wanted:
                raise FileError("conflict", f"{path!r:.300} is not what it was when it was read.")
        with translated(path):
            if await ensure_async(self._contents.dir_exists(path)):
                raise FileError("is_directory", f"{path!r:.300} is a folder.")
        if request.get("create_parents"):
            await self._make_folders(posixpath.dirname(path))
        content = await anyio.to_thread.run_sync(binascii.b2a_base64, bytes(data))
        await self._save(
            path, {"type": "file", "format": "base64", "content": content.decode("ascii")}
        )
        return await self._stat(path)

    async def _save(self, path: str, model: Mapping[str, Any]) -> None:
        contents = self._contents
        with translated(path):
            if not contents.allow_hidden and await ensure_async(contents.is_hidden(path)):
                raise FileError("permission_denied", f"{path!r:.300} would be hidden.")
            await ensure_async(contents.save(dict(model), path))

    async def _make_folders(self, path: str) -> None:
        parts = [each for each in path.split("/") if each]
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            with translated(folder):
                there = await ensure_async(self._contents.dir_exists(folder))
            if not there:
                await self._save(folder, {"type": "directory"})

    async def _mkdir(self, request: Mapping[str, Any]) -> dict[str, Any]:
        path = _path(request)
        if await self._exists(path):
            found = await self._stat(path)
            if found["type"] != "directory" or not request.get("parents"):
                raise FileError("exists", f"There is a {path!r:.300} already.")
            return found
        if request.get("parents"):
            await self._make_folders(path)
        else:
            await self._save(path, {"type": "directory"})
        return await self._stat(path)

    # --- moving and deleting

    async def _delete(self, path: str, recursive: bool) -> int:
        if not path:
            raise FileError("permission_denied", "The root cannot be deleted.")
        count = await self._check_deletable(path, recursive=recursive)
        # The server's settings say whether a folder that is not empty may be deleted at all.
        with translated(path, {400: "not_empty"}):
            await ensure_async(self._contents.delete(path))
        return count

    async def _check_deletable(self, path: str, *, recursive: bool) -> int:
        """How many files and folders there are at a path and below."""
        model = await self._get(path, content=False)
        count = 1
        if model["type"] == "directory":
            async for _ in self._below(path, MAX_DEPTH if recursive else 1):
                count += 1
            if count > 1 and not recursive:
                raise FileError("not_empty", f"{path!r:.300} is not empty.")
        return count

    async def _move(self, request: Mapping[str, Any]) -> dict[str, Any]:
        source, target = _path(request, "source"), _path(request, "target")
        if not source or not target:
            raise FileError("permission_denied", "The root cannot be moved or replaced.")
        await self._stat(source)
        with translated(target):
            await self._check_seen(target)
        if await self._exists(target) and source != target:
            if not request.get("overwrite"):
                raise FileError("exists", f"There is a {target!r:.300} already.")
            await self._replace(source, target)
        else:
            await self._rename(source, target)
        return await self._stat(target)

    async def _replace(self, source: str, target: str) -> None:
        """Move to where something is, which is deleted when that is done and no sooner."""
        await self._check_deletable(target, recursive=False)
        aside = f"{target}.{token_hex(4)}.replaced"  # the ContentsManager moves onto nothing
        await self._rename(target, aside)
        try:
            await self._rename(source, target)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._rename(aside, target)
            raise
        await self._delete(aside, recursive=False)

    async def _rename(self, source: str, target: str) -> None:
        with translated(source):
            await ensure_async(self._contents.rename(source, target))


@contextmanager
def translated(path: str, more: Mapping[int, str] = REASONS) -> Generator[None]:
    """Turn the ContentsManager's refusals into ``FileError``."""
    try:
        yield
    except HTTPError as exc:
        said = str(exc.log_message or exc.reason or exc)[:300]
        reason = {**REASONS, **more}.get(exc.status_code, "io_error")
        raise FileError(reason, f"{path!r:.300}: {said}") from exc
    except OSError as exc:
        raise FileError("io_error", f"{path!r:.300}: {exc.strerror or exc}") from exc


def _path(request: Mapping[str, Any], field: str = "path") -> str:
    """A path from the root, without slashes around it.

    Raises:
        FileError: It leaves the root.
    """
    given = str(request.get(field) or "")
    path = posixpath.normpath("/" + given).strip("/")
    if ".." in given.split("/"):
        raise FileError("outside", f"{given!r:.300} may not go up.")
    return path


def _check_size(path: str, size: int) -> None:
    if size > MAX_FILE_BYTES:
        raise FileError(
            "too_large", f"{path!r:.300} is larger than {MAX_FILE_BYTES:,} bytes, the most here."
        )


def _described(model: Mapping[str, Any]) -> dict[str, Any]:
    """The stat object of a model."""
    is_folder = model["type"] == "directory"
    changed = model.get("last_modified")
    mtime = changed.timestamp() if isinstance(changed, datetime) else 0.0
    size = int(model.get("size") or 0)
    bits = 0o755 if is_folder else 0o644
    return {
        "path": "/" + str(model["path"]).strip("/"),
        "name": str(model["name"]),
        "type": "directory" if is_folder else "file",
        "size": size,
        "mode": bits if model.get("writable", True) else bits & 0o555,
        "mtime": mtime,
        "etag": f"{mtime:.6f}-{size:x}",
    }


def _pattern(pattern: str) -> Callable[[str], bool]:
    """Whether a path matches: by its name, or where the pattern has a ``/`` as a whole."""
    by_path = "/" in pattern
    made = re.compile(fnmatch.translate(pattern.strip("/") or "*"))

    def matches(path: str) -> bool:
        return made.match(path if by_path else posixpath.basename(path)) is not None

    return matches
