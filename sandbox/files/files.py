"""The files of a session, over its link; no path of a container is ever opened on this side."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from sandbox.answers import linked, parse
from sandbox.errors import FileError, InfrastructureError, InvalidRequest, ProtocolError
from sandbox.files.diff import replacement_diff
from sandbox.files.models import (
    MAX_ENTRIES,
    MAX_PATH_BYTES,
    Deleted,
    EditResult,
    FileList,
    FileStat,
)
from sandbox.link import wire
from sandbox.link.link import Link, Stream
from sandbox.outputs.plain import clip
from sandbox.outputs.redaction import Redactor
from sandbox.policy.models import Limits

PIECE_BYTES = 64 * 1024
PATIENCE_S = 60.0
READ_TIMEOUT_S = 60.0
"""For a file that is read as a whole, however small the pieces it comes in."""
MAX_EDIT_BYTES = 8 * 1024 * 1024
"""The largest file that is edited in place."""
MAX_DIFF_BYTES = 64 * 1024


class Reading:
    """An open file: its stat, and its bytes by iterating once.

    An async context manager; leaving it gives up what was not read. The size in the stat is what
    the supervisor says, and bounds nothing: whoever keeps what comes asks for a length.
    """

    def __init__(self, stream: Stream, redactor: Redactor, length: int | None) -> None:
        self._stream = stream
        self._redactor = redactor
        self._left = length
        self.stat: FileStat

    async def __aenter__(self) -> Reading:
        try:
            with _patience():
                answer = self._redactor.data(await self._stream.receive_json())
            self.stat = parse(FileStat, answer)
        except BaseException:
            self._stream.reset()
            raise
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._stream.reset()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            with _patience():
                message = await self._stream.receive()
            if message is None:
                return
            if message.tag != wire.BYTES:
                raise ProtocolError("something else than bytes came where a file is read")
            await anyio.lowlevel.checkpoint()  # whatever is waiting here, nobody else waits for it
            if self._left is not None and len(message.data) > self._left:
                yield message.data[: self._left]
                raise ProtocolError("more of a file came than was asked for")
            if self._left is not None:
                self._left -= len(message.data)
            yield message.data


class Files:
    """The files of one session.

    No name, target or change shows a secret: a name that holds one is told as something else, and
    opens nothing.

    Every method raises :class:`FileError` with the reason when the file system refuses, and
    ``LinkLost`` when the link ends.
    """

    def __init__(self, limits: Limits, redactor: Redactor | None = None) -> None:
        self._limits = limits
        self._redactor = redactor or Redactor()
        self._link: Link | None = None
        self._editing = anyio.Lock()

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
        """List a directory and what is below it, ``max_depth`` levels in all, sorted by path.

        Names must match the pattern, with ``*``, ``?`` and ``[…]``; all do when it is empty.
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
        return parse(FileList, answer)

    async def stat(self, path: str) -> FileStat:
        """What there is at a path; a symbolic link itself, not what it leads to."""
        return parse(FileStat, await self._call("file.stat", path=_checked(path)))

    async def open_read(self, path: str, offset: int = 0, length: int | None = None) -> Reading:
        """Open a file for reading, to be used with ``async with``: from an offset, so many bytes or
        to its end."""
        stream = linked(self._link).open("file.read", path=_checked(path), **_range(offset, length))
        return Reading(stream, self._redactor, length)

    async def read_bytes(
        self, path: str, max_bytes: int, offset: int = 0
    ) -> tuple[bytes, FileStat]:
        """Read a whole file, or the rest of it from ``offset`` on.

        Raises:
            FileError: ``too_large`` when there is more.
        """
        data = bytearray()
        with _patience(READ_TIMEOUT_S):
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
            mode: Its permission bits; as before, or the usual ones, when None.
            if_etag: Write only if this is still the file's etag.

        Raises:
            FileError: ``conflict`` when the etag is another one.
        """
        if mode is not None and not 0 <= mode <= 0o777:
            raise InvalidRequest(f"A mode is between 0 and 0o777, not {mode:#o}.")
        fields = {"mode": mode, "if_etag": if_etag, "append": append or None}
        given = {name: value for name, value in fields.items() if value is not None}
        stream = linked(self._link).open(
            "file.write", path=_checked(path), create_parents=create_parents, **given
        )
        try:
            if isinstance(data, bytes):
                for at in range(0, len(data), PIECE_BYTES):
                    with _patience():
                        await stream.send(data[at : at + PIECE_BYTES])
            else:
                async for piece in data:
                    with _patience():
                        await stream.send(piece)
            with _patience():
                stream.end()
                return parse(FileStat, self._redactor.data(await stream.receive_json()))
        finally:
            stream.reset()

    async def edit(self, path: str, old: str, new: str, replace_all: bool = False) -> EditResult:
        """Replace exact text in a UTF-8 file, whose line ends are kept.

        Args:
            old: The text to replace; it must occur, and only once unless ``replace_all``. Lines
                that end with ``\\n`` in it match those that end with ``\\r\\n`` in the file.

        Raises:
            FileError: ``not_text``, ``no_match``, ``many_matches``; ``conflict`` when the file
                was changed between reading and writing.
        """
        if not old or old == new:
            raise InvalidRequest(
                "There is nothing to replace: the old text is empty or equals the new one."
            )
        try:
            given = old.encode("utf-8"), new.encode("utf-8")
        except UnicodeEncodeError as exc:
            raise InvalidRequest("A text holds what UTF-8 cannot express.") from exc
        async with self._editing:  # a few times the file's size is held meanwhile
            data, stat = await self.read_bytes(path, MAX_EDIT_BYTES)
            edited, count, diff = await anyio.to_thread.run_sync(
                _edited, path, data, *given, replace_all, self._redactor
            )
            written = await self.write(path, edited, create_parents=False, if_etag=stat.etag)
        return EditResult(diff=diff, replacements=count, stat=written)

    async def delete(self, path: str, *, recursive: bool = False) -> int:
        """Delete a file or directory and return how many entries are gone."""
        answer = await self._call("file.delete", path=_checked(path), recursive=recursive)
        return parse(Deleted, answer).deleted

    async def move(self, source: str, target: str, *, overwrite: bool = False) -> FileStat:
        """Move or rename; ``target`` is the new path itself, not a directory to move into."""
        answer = await self._call(
            "file.move", source=_checked(source), target=_checked(target), overwrite=overwrite
        )
        return parse(FileStat, answer)

    async def mkdir(self, path: str, *, parents: bool = True) -> FileStat:
        """Make a directory; with ``parents`` those above it too, and it may exist already."""
        answer = await self._call("file.mkdir", path=_checked(path), parents=parents)
        return parse(FileStat, answer)

    async def _call(self, op: str, **fields: Any) -> dict[str, Any]:
        return self._redactor.data(await linked(self._link).call(op, **fields))


def _edited(
    path: str, data: bytes, old: bytes, new: bytes, replace_all: bool, redactor: Redactor
) -> tuple[bytes, int, str]:
    """A file's content after an edit, the number of replacements and their diff; takes a while."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise FileError(
            "not_text",
            f"{path!r} is not a text in UTF-8.",
            remedy="Change it by code that opens it with its encoding, which read_file names.",
        ) from exc
    old, new = _with_line_ends(data, old, new)
    count = data.count(old)
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
    if len(data) + count * (len(new) - len(old)) > MAX_EDIT_BYTES:
        raise FileError("too_large", f"{path!r} would grow past {MAX_EDIT_BYTES:,} bytes.")
    diff = clip(redactor.text(replacement_diff(path, data, old, new)), MAX_DIFF_BYTES)
    return data.replace(old, new), count, diff


def _with_line_ends(data: bytes, old: bytes, new: bytes) -> tuple[bytes, bytes]:
    """The texts with the line ends of a file; as they are when they show that they know them."""
    ends, windows_ends = data.count(b"\n"), data.count(b"\r\n")
    if not windows_ends:
        is_foreign = b"\r\n" in old and old not in data
        return (_unix(old), _unix(new)) if is_foreign else (old, new)
    if b"\r\n" in old or (ends > windows_ends and old in data):
        return old, new
    return _unix(old).replace(b"\n", b"\r\n"), _unix(new).replace(b"\n", b"\r\n")


def _unix(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n")


@contextmanager
def _patience(seconds: float | None = None) -> Generator[None]:
    """Wait for the supervisor, but not for ever; for the usual time when None."""
    seconds = PATIENCE_S if seconds is None else seconds
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as exc:
        raise InfrastructureError(f"The supervisor took more than {seconds:g} s.") from exc


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
