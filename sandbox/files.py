"""The files of a session, over its link; no path of a container is ever opened on this side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from sandbox import wire
from sandbox.diff import replacement_diff
from sandbox.errors import FileError, InfrastructureError, InvalidRequest, LinkLost, ProtocolError
from sandbox.link import Link, Stream
from sandbox.plaintext import clip
from sandbox.policy.models import Limits

PIECE_BYTES = 64 * 1024
PATIENCE_S = 60.0
MAX_PATH_BYTES = 4096
MAX_EDIT_BYTES = 8 * 1024 * 1024
"""The largest file that is edited in place."""
MAX_DIFF_BYTES = 64 * 1024
MAX_ENTRIES = 1000

_Model = TypeVar("_Model", bound=BaseModel)
_Text = Annotated[str, StringConstraints(max_length=4 * MAX_PATH_BYTES)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Answer(BaseModel):
    """What the supervisor says; what it says beside that is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class FileStat(_Answer):
    """What there is at a path."""

    path: _Text
    name: _Text
    type: Literal["file", "directory", "symlink", "fifo", "socket", "device"]
    size: _Count
    """In bytes."""
    mode: Annotated[int, Field(ge=0, lt=2**32)]
    """The permission bits."""
    mtime: Annotated[float, Field(allow_inf_nan=False)]
    """Unix time of the last change."""
    etag: Annotated[str, StringConstraints(max_length=200)]
    """Another one after each change."""
    target: _Text | None = None
    """Where a symbolic link leads."""
    odd: bool = False
    """Whether the name is not UTF-8; ``path`` then shows it with ``\\xNN`` and opens nothing."""


class FileList(_Answer):
    """A page of what is in a directory."""

    entries: Annotated[tuple[FileStat, ...], Field(max_length=MAX_ENTRIES, strict=False)]
    """Sorted by path."""
    total: _Count
    """All that match, on every page."""
    truncated: bool
    """Whether there was too much to count."""


class EditResult(_Answer):
    """What an edit did."""

    diff: str
    """Unified; its middle is cut when it is long."""
    replacements: int
    stat: FileStat


class Reading:
    """An open file: its stat, and its bytes by iterating once.

    An async context manager; leaving it gives up what was not read.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.stat: FileStat

    async def __aenter__(self) -> Reading:
        try:
            async with _patience():
                self.stat = _parse(FileStat, await self._stream.receive_json())
        except BaseException:
            self._stream.reset()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._stream.reset()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            async with _patience():
                message = await self._stream.receive()
            if message is None:
                return
            if message.tag != wire.BYTES:
                raise ProtocolError("something else than bytes came where a file is read")
            yield message.data


class Files:
    """The files of one session.

    Every method raises :class:`FileError` with the reason when the file system refuses, and
    ``LinkLost`` when the link ends.

    Args:
        limits: The policy's.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._link: Link | None = None

    async def attach(self, link: Link) -> None:
        """Use this link from now on."""
        self._link = link

    async def list(
        self,
        path: str = "",
        max_depth: int = 1,
        pattern: str = "",
        start_index: int = 0,
        limit: int = 25,
    ) -> FileList:
        """List a directory, sorted by path.

        Args:
            path: The directory; the workspace when empty.
            max_depth: How many levels to descend; 1 is the directory itself.
            pattern: What names must match, with ``*``, ``?`` and ``[…]``; everything when empty.
            start_index: The first entry of the page.
            limit: The most entries on the page, up to ``MAX_ENTRIES``.
        """
        if not 1 <= limit <= MAX_ENTRIES or not 0 <= start_index < 2**31:
            raise InvalidRequest(f"A page has 1 to {MAX_ENTRIES} entries and starts at 0 or later.")
        answer = await self._call(
            "file.list",
            path=_checked(path),
            max_depth=max_depth,
            pattern=_checked(pattern),
            start_index=start_index,
            limit=limit,
        )
        return _parse(FileList, answer)

    async def stat(self, path: str) -> FileStat:
        """What there is at a path; a symbolic link itself, not what it leads to."""
        return _parse(FileStat, await self._call("file.stat", path=_checked(path)))

    async def open_read(self, path: str, offset: int = 0, length: int | None = None) -> Reading:
        """Open a file for reading, to be used with ``async with``.

        Args:
            path: A regular file.
            offset: Where to begin, in bytes.
            length: How many bytes at most; to the end when None.
        """
        return Reading(self._open("file.read", path=_checked(path), **_range(offset, length)))

    async def read(
        self, path: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a file, piece by piece."""
        async with await self.open_read(path, offset, length) as reading:
            async for piece in reading:
                yield piece

    async def read_bytes(
        self, path: str, max_bytes: int, offset: int = 0
    ) -> tuple[bytes, FileStat]:
        """Read a whole file, or the rest of it from ``offset`` on.

        Args:
            path: A regular file.
            max_bytes: The most that is read.
            offset: Where to begin, in bytes.

        Raises:
            FileError: ``too_large`` when there is more.
        """
        data = bytearray()
        async with await self.open_read(path, offset, max_bytes + 1) as reading:
            async for piece in reading:
                data += piece
                if len(data) > max_bytes:
                    raise FileError(
                        "too_large",
                        f"{path!r} has {reading.stat.size:,} bytes; {max_bytes:,} is the most.",
                        remedy="Read a part of it, or download it.",
                    )
        return bytes(data), reading.stat

    async def write(
        self,
        path: str,
        data: bytes | AsyncIterator[bytes],
        mode: int | None = None,
        *,
        create_parents: bool = True,
        append: bool = False,
        if_etag: str | None = None,
    ) -> FileStat:
        """Write a file: it is there as a whole or, when anything fails, not at all.

        Args:
            path: Where; what stands there is replaced.
            data: Its content, in pieces or at once.
            mode: Its permission bits; as before, or the usual ones, when None.
            create_parents: Whether to make the directories that are missing.
            append: Whether to add to what is there.
            if_etag: Write only if this is still the file's etag.

        Raises:
            FileError: ``conflict`` when the etag is another one.
        """
        if mode is not None and not 0 <= mode <= 0o777:
            raise InvalidRequest(f"A mode is between 0 and 0o777, not {mode:#o}.")
        fields = {"mode": mode, "if_etag": if_etag, "append": append or None}
        given = {name: value for name, value in fields.items() if value is not None}
        stream = self._open(
            "file.write", path=_checked(path), create_parents=create_parents, **given
        )
        try:
            if isinstance(data, bytes):
                for at in range(0, len(data), PIECE_BYTES):
                    async with _patience():
                        await stream.send(data[at : at + PIECE_BYTES])
            else:
                async for piece in data:
                    async with _patience():
                        await stream.send(piece)
            async with _patience():
                stream.end()
                return _parse(FileStat, await stream.receive_json())
        finally:
            stream.reset()

    async def edit(self, path: str, old: str, new: str, replace_all: bool = False) -> EditResult:
        """Replace exact text in a UTF-8 file.

        Args:
            path: A regular file of at most ``MAX_EDIT_BYTES``.
            old: The text to replace; it must occur, and only once unless ``replace_all``.
            new: What stands there afterwards.
            replace_all: Whether to replace every occurrence.

        Raises:
            FileError: ``not_text``, ``no_match``, ``many_matches``; ``conflict`` when the file
                was changed between reading and writing.
        """
        if not old or old == new:
            raise InvalidRequest(
                "There is nothing to replace: the old text is empty or equals the new one."
            )
        data, stat = await self.read_bytes(path, MAX_EDIT_BYTES)
        try:
            text, changed = data.decode("utf-8"), new.encode("utf-8")
        except UnicodeDecodeError as exc:
            raise FileError("not_text", f"{path!r} is not a text in UTF-8.") from exc
        except UnicodeEncodeError as exc:
            raise InvalidRequest("The new text holds what UTF-8 cannot express.") from exc
        count = text.count(old)
        if not count:
            raise FileError(
                "no_match",
                f"{path!r} does not contain the old text.",
                remedy="Read the file and give the text exactly, with its spaces and line ends.",
            )
        if count > 1 and not replace_all:
            raise FileError(
                "many_matches",
                f"{path!r} contains the old text {count} times.",
                remedy="Give more of the text around it, or set replace_all.",
            )
        if len(data) + count * (len(changed) - len(old.encode())) > MAX_EDIT_BYTES:
            raise FileError("too_large", f"{path!r} would grow past {MAX_EDIT_BYTES:,} bytes.")
        edited = text.replace(old, new).encode("utf-8")
        written = await self.write(path, edited, create_parents=False, if_etag=stat.etag)
        diff = clip(replacement_diff(path, text, old, new), MAX_DIFF_BYTES)
        return EditResult(diff=diff, replacements=count, stat=written)

    async def delete(self, path: str, *, recursive: bool = False) -> int:
        """Delete a file or directory and return how many entries are gone."""
        answer = await self._call("file.delete", path=_checked(path), recursive=recursive)
        return _parse(_Deleted, answer).deleted

    async def move(self, source: str, target: str, *, overwrite: bool = False) -> FileStat:
        """Move or rename; ``target`` is the new path itself, not a directory to move into."""
        answer = await self._call(
            "file.move", source=_checked(source), target=_checked(target), overwrite=overwrite
        )
        return _parse(FileStat, answer)

    async def mkdir(self, path: str, *, parents: bool = True) -> FileStat:
        """Make a directory; with ``parents`` those above it too, and it may exist already."""
        answer = await self._call("file.mkdir", path=_checked(path), parents=parents)
        return _parse(FileStat, answer)

    def _open(self, op: str, **fields: Any) -> Stream:
        if self._link is None:
            raise LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
        return self._link.open(op, **fields)

    async def _call(self, op: str, **fields: Any) -> dict[str, Any]:
        if self._link is None:
            raise LinkLost("There is no link to the sandbox at the moment.", remedy="Try again.")
        return await self._link.call(op, **fields)


@asynccontextmanager
async def _patience() -> AsyncGenerator[None]:
    """Wait for the supervisor, but not for ever."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield
    except TimeoutError as exc:
        raise InfrastructureError(f"The supervisor was silent for {PATIENCE_S:g} s.") from exc


class _Deleted(_Answer):
    deleted: _Count


def _parse(model: type[_Model], answer: dict[str, Any]) -> _Model:
    try:
        return model.model_validate(answer)
    except ValidationError as exc:
        raise ProtocolError(f"The supervisor's answer is not a {model.__name__}.") from exc


def _checked(path: str) -> str:
    """A path or pattern that can be sent; which ones may be touched is decided inside."""
    try:
        size = len(path.encode("utf-8"))
    except UnicodeEncodeError as exc:
        raise FileError("invalid_name", "A path holds what UTF-8 cannot express.") from exc
    if "\0" in path:
        raise FileError("invalid_name", "A path holds a NUL character.")
    if size > MAX_PATH_BYTES:
        raise FileError("invalid_name", f"A path is longer than {MAX_PATH_BYTES:,} bytes.")
    return path


def _range(offset: int, length: int | None) -> dict[str, int]:
    if not 0 <= offset < 2**63 or (length is not None and not 0 <= length < 2**63):
        raise InvalidRequest("An offset or a length is negative or too large.")
    return {"offset": offset} | ({} if length is None else {"length": length})
