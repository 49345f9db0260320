"""Files: the operations ``file.*``. Nothing here waits for a FIFO, a device or a peer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat as modes
from collections.abc import Mapping
from typing import Any

from sandbox.errors import FileError, InvalidRequest
from sandbox.link import wire
from sandbox.link.stream import Stream
from sandbox.supervisor import tree
from sandbox.supervisor.children import Children
from sandbox.supervisor.paths import (
    describe,
    etag,
    exists,
    open_regular,
    printable,
    real,
    resolve,
    translated,
)
from sandbox.supervisor.pipes import Descriptor
from sandbox.supervisor.requests import answer, flag, text, whole
from sandbox.supervisor.tasks import alongside

CHUNK_BYTES = 4 * 65535
MAX_PAGE = 1000
_MAX_SIZE = 2**62


class FileOperations:
    """The operations on files."""

    def __init__(self, workspace: str, children: Children, env: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._children = children
        self._env = env

    async def stat(self, stream: Stream) -> None:
        """``file.stat``"""
        await answer(stream, **describe(self._path(stream)))

    async def list(self, stream: Stream) -> None:
        """``file.list``"""
        request = stream.request
        root = resolve(self._workspace, {"path": request.get("path") or "."})
        depth = whole(request, "max_depth", 1, 1, 1000)
        start = whole(request, "start_index", 0, 0, _MAX_SIZE)
        limit = whole(request, "limit", 100, 0, MAX_PAGE)
        found, truncated = await tree.scan(root, depth, text(request, "pattern", ""))
        entries: list[dict[str, Any]] = []
        for path in found[start : start + limit]:
            with contextlib.suppress(FileError):  # it has gone meanwhile
                entries.append(describe(os.path.join(root, path)))
        await answer(stream, entries=entries, total=len(found), truncated=truncated)

    async def read(self, stream: Stream) -> None:
        """``file.read``"""
        path = self._path(stream)
        offset = whole(stream.request, "offset", 0, 0, _MAX_SIZE)
        left = _MAX_SIZE
        if stream.request.get("length") is not None:
            left = whole(stream.request, "length", 0, 0, _MAX_SIZE)
        fd = open_regular(path, os.O_RDONLY)
        try:
            await stream.send_json(describe(path, os.fstat(fd)))
            while left > 0:
                with translated(path):
                    data = os.pread(fd, min(CHUNK_BYTES, left), offset)
                if not data:
                    break
                await stream.send(data, wire.BYTES)
                await asyncio.sleep(0)
                offset += len(data)
                left -= len(data)
        finally:
            os.close(fd)
        stream.end()

    async def write(self, stream: Stream) -> None:
        """``file.write``"""
        request = stream.request
        path = self._path(stream)
        mode = None
        if request.get("mode") is not None:
            mode = whole(request, "mode", 0, 0, 0o7777)
        # A link is written through: what it points at is replaced, not the link.
        path = real(path)
        if flag(request, "create_parents"):
            with translated(path):
                os.makedirs(os.path.dirname(path), exist_ok=True)
        self._check_etag(path, request)
        if flag(request, "append"):
            await _append(stream, path, mode)
        else:
            await _replace(stream, path, mode, lambda: self._check_etag(path, request))
        await answer(stream, **describe(path))

    async def delete(self, stream: Stream) -> None:
        """``file.delete``"""
        path = self._movable(self._path(stream))
        with translated(path):
            is_directory = modes.S_ISDIR(os.lstat(path).st_mode)
            deleted = 1
            if not is_directory:
                os.unlink(path)
            elif flag(stream.request, "recursive"):
                deleted = await tree.delete(path)
            else:
                os.rmdir(path)
        await answer(stream, deleted=deleted)

    async def move(self, stream: Stream) -> None:
        """``file.move``"""
        source = self._movable(self._path(stream, "source"))
        target = self._path(stream, "target")
        with translated(source):
            info = os.lstat(source)
        if exists(target):
            if not flag(stream.request, "overwrite"):
                raise FileError("exists", f"{printable(target)} exists.")
            self._movable(target)
        with translated(target):
            other_filesystem = os.lstat(os.path.dirname(target)).st_dev != info.st_dev
            if not other_filesystem:
                os.rename(source, target)
        if other_filesystem:
            await self._copy_and_delete(stream, source, target)
        await answer(stream, **describe(target))

    async def mkdir(self, stream: Stream) -> None:
        """``file.mkdir``"""
        path = self._path(stream)
        with translated(path):
            if flag(stream.request, "parents"):
                os.makedirs(path, exist_ok=True)
            else:
                os.mkdir(path)
        await answer(stream, **describe(path))

    def _path(self, stream: Stream, field: str = "path") -> str:
        return resolve(self._workspace, stream.request, field)

    def _movable(self, path: str) -> str:
        """Refuse what must stay where it is: a mount point, and ``.`` or ``..`` of anything."""
        name = os.path.basename(path.rstrip("/"))
        if name in ("", ".", "..") or real(path) == real(self._workspace):
            raise FileError("permission_denied", f"{printable(path)} cannot be moved or deleted.")
        if os.path.ismount(path):
            raise FileError("permission_denied", f"{printable(path)} is the root of a filesystem.")
        return path

    def _check_etag(self, path: str, request: Mapping[str, Any]) -> None:
        if request.get("if_etag") is None:
            return
        wanted = text(request, "if_etag")
        try:
            found = etag(os.stat(path))
        except FileNotFoundError:
            found = ""
        if found != wanted:
            raise FileError("conflict", f"{printable(path)} is not what it was when it was read.")

    async def _copy_and_delete(self, stream: Stream, source: str, target: str) -> None:
        """Move between filesystems, with the system's own program: it knows every kind of file."""
        reading, writing = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            child = self._children.spawn(
                ["mv", "-fT", "--", source, target],
                env={**self._env, "LC_ALL": "C"},
                cwd="/",
                stdin=null,
                stdout=null,
                stderr=writing,
            )
        finally:
            os.close(null)
            os.close(writing)
        output = Descriptor(reading)
        said = b""
        try:
            async with alongside(_until_reset(stream)):
                while data := await output.read():
                    said = (said + data)[:1000]
                ending = await asyncio.shield(child.exit)
        finally:
            output.close()
            if child.alive:
                child.kill_tree()
        if ending.code != 0:
            if exists(source) and exists(target):
                with contextlib.suppress(FileError, OSError):
                    await _remove(target)
            reason = "no_space" if b"No space left" in said else "io_error"
            why = said.decode("utf-8", "replace").strip()
            raise FileError(reason, f"{printable(source)} cannot be moved: {why}.")


async def _until_reset(stream: Stream) -> None:
    async for _ in stream:
        pass
    await stream.wait_reset()


async def _remove(path: str) -> None:
    if modes.S_ISDIR(os.lstat(path).st_mode):
        await tree.delete(path)
    else:
        os.unlink(path)


async def _receive(stream: Stream, fd: int) -> None:
    """Write what the caller sends until it ends the stream."""
    async for message in stream:
        if message.tag != wire.BYTES:
            raise InvalidRequest("A file's content is sent as bytes.")
        view = memoryview(message.data)
        while view:
            view = view[os.write(fd, view) :]


async def _replace(stream: Stream, path: str, mode: int | None, check: Any) -> None:
    """Write beside the file, then put it in the file's place; a failure leaves no trace."""
    with translated(path):
        kept = mode
        if exists(path):
            fd = open_regular(path, os.O_WRONLY)  # may it be written, and is it a file at all?
            kept = modes.S_IMODE(os.fstat(fd).st_mode) if mode is None else mode
            os.close(fd)
        part = os.path.join(os.path.dirname(path), f".sandbox-{os.urandom(8).hex()}.part")
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try:
                await _receive(stream, fd)
                if kept is not None:
                    os.fchmod(fd, kept)
            finally:
                os.close(fd)
            check()
            os.rename(part, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise


async def _append(stream: Stream, path: str, mode: int | None) -> None:
    """Add to the file's end; a failure takes back what was added."""
    with translated(path):
        fd = open_regular(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        size = os.fstat(fd).st_size
        try:
            await _receive(stream, fd)
            if mode is not None:
                os.fchmod(fd, mode)
        except BaseException:
            os.ftruncate(fd, size)
            raise
        finally:
            os.close(fd)
