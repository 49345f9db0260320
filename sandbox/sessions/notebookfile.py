"""The file of a live notebook: read, written, and merged where somebody else has changed it.

The file is never overwritten where it holds what the notebook has not seen: changes of both sides
are merged, and where they contradict, the live notebook is written beside it, as
``NAME.conflict.ipynb``, until the contradiction is gone.
"""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Callable

from anyio import to_thread

from sandbox.errors import Conflict, FileError, InvalidRequest, LinkLost, SandboxError
from sandbox.files.files import Files
from sandbox.files.models import FileStat
from sandbox.notebooks.ipynb import MAX_BYTES, read_ipynb, write_ipynb
from sandbox.notebooks.merging import merge
from sandbox.notebooks.models import Notebook
from sandbox.outputs.redaction import Redactor

_KEEP = Callable[[str, bytes | None], None]
MAX_BASE_BYTES = 16 * 1024 * 1024
"""Of what a file had, so that changes of it are merged after a restart too."""


class NotebookFile:
    """One notebook's file.

    Args:
        keep: Given the etag whenever the file was read or written, and what it has, compressed, or
            None where that is too much to be kept.
    """

    def __init__(
        self, files: Files, path: str, redactor: Redactor, keep: _KEEP, etag: str = ""
    ) -> None:
        self.path = path
        self.is_gone = False
        """Whether it was deleted since it was last read or written."""
        self.found_etag = ""
        """Its etag when it was looked at last; empty where there was no file."""
        self._files = files
        self._redactor = redactor
        self._keep = keep
        self._etag = etag
        self._packed: bytes | None = None
        self._base: Notebook | None = None
        """What it had when it was read or written last; None when that is not known."""

    @property
    def beside(self) -> str:
        """Where the live notebook is written while it contradicts the file."""
        return posixpath.splitext(self.path)[0] + ".conflict.ipynb"

    def is_as(self, notebook: Notebook) -> bool:
        """Whether it has this notebook, as far as is known."""
        return not self.is_gone and self._base == notebook

    async def remember(self, base: bytes | None) -> None:
        """Take what an earlier controller kept of it."""
        if base is not None:
            self._base = (await to_thread.run_sync(lambda: read_ipynb(zlib.decompress(base))))[0]
        elif not await self.is_changed() and not self.is_gone:
            await self.read()
            self.keep()

    async def create(self) -> None:
        """Write an empty notebook where there is no file.

        Raises:
            FileError: It cannot be written.
        """
        try:
            await self._files.stat(self.path)
        except FileError as exc:
            if exc.reason != "not_found":
                raise
            await self._files.write(self.path, write_ipynb(Notebook()))

    async def read(self) -> Notebook:
        """Read it, from now on as what it has; :meth:`keep` then says so to the next controller.

        Raises:
            FileError: There is none, or something else in its place.
            InvalidRequest: It is no notebook.
        """
        notebook, self._packed, stat = await self._read(await self._stat())
        self.is_gone = False
        self._base, self._etag = notebook, stat.etag
        return notebook

    def keep(self) -> None:
        """Note what was read, once the document has it."""
        self._keep(self._etag, self._packed)

    async def is_changed(self) -> bool:
        """Whether it is another one than it was when read or written last; a cheap look.

        Raises:
            FileError: There is something else in its place.
        """
        self.found_etag = ""
        try:
            stat = await self._stat()
        except FileError as exc:
            if exc.reason != "not_found":
                raise
            self.is_gone = True
            return False
        self.is_gone = False
        self.found_etag = stat.etag
        return stat.etag != self._etag

    async def merged(self, apply: Callable[[Callable[[Notebook], Notebook]], None]) -> None:
        """Put its changes into the live notebook.

        Args:
            apply: Changes the live notebook as a function says.

        Raises:
            Conflict: Both were changed in ways that contradict; nothing was changed.
            FileError, InvalidRequest: It cannot be read, or is no notebook.
        """
        theirs, packed, stat = await self._read(await self._stat())
        if (base := self._base) is None:
            apply(lambda ours: _taken_for(ours, theirs))
        elif theirs != base:
            apply(lambda ours: merge(base, ours, theirs))
        self._seen(theirs, packed, stat)

    async def write(self, notebook: Notebook) -> None:
        """Write it, where it is as it was when read or written last.

        Raises:
            Conflict: It is not.
            FileError: It cannot be written.
        """
        data = await self._bytes(notebook)
        etag = None if self.is_gone or not self._etag else self._etag
        try:
            stat = await self._files.write(self.path, data, if_etag=etag, create_parents=True)
        except FileError as exc:
            if exc.reason in ("conflict", "not_found"):
                raise Conflict(f"{self.path!r} was changed meanwhile.") from exc
            raise
        self._seen(notebook, await to_thread.run_sync(_packed, data), stat)

    async def write_beside(self, notebook: Notebook) -> None:
        """Write the live notebook beside its file.

        Raises:
            FileError: It cannot be written.
        """
        await self._files.write(self.beside, await self._bytes(notebook))

    async def _bytes(self, notebook: Notebook) -> bytes:
        data = await to_thread.run_sync(lambda: self._redactor.bytes(write_ipynb(notebook)))
        if len(data) > MAX_BYTES:
            raise FileError(
                "too_large",
                f"The notebook has {len(data):,} bytes; {MAX_BYTES:,} are the most.",
                remedy="Clear the outputs of its largest cells.",
            )
        return data

    async def _stat(self) -> FileStat:
        stat = await self._files.stat(self.path)
        if stat.type != "file":
            raise FileError(
                "is_directory" if stat.type == "directory" else "not_a_file",
                f"{self.path!r} is no file but a {stat.type}.",
                remedy="Move it away, or use another name.",
            )
        return stat

    async def _read(self, stat: FileStat) -> tuple[Notebook, bytes | None, FileStat]:
        if stat.size > MAX_BYTES:
            raise FileError(
                "too_large", f"{self.path!r} has {stat.size:,} bytes; {MAX_BYTES:,} are the most."
            )
        data, stat = await self._files.read_bytes(self.path, MAX_BYTES)

        def read() -> tuple[Notebook, bytes | None]:
            shown = self._redactor.bytes(data)
            return read_ipynb(shown).notebook, _packed(shown)

        return *(await to_thread.run_sync(read)), stat

    def _seen(self, notebook: Notebook, packed: bytes | None, stat: FileStat) -> None:
        self.is_gone = False
        self._base, self._etag = notebook, stat.etag
        self._keep(stat.etag, packed)


def _packed(data: bytes) -> bytes | None:
    return zlib.compress(data, 1) if len(data) <= MAX_BASE_BYTES else None


def _taken_for(ours: Notebook, theirs: Notebook) -> Notebook:
    """What is made of a file of which nobody knows what it was before."""
    if ours == theirs:
        return ours
    raise Conflict(
        "The file was changed while nobody looked, and nobody knows any more what it was before.",
        remedy="Nothing was overwritten. Move one of the two away.",
    )


def told(error: SandboxError, file: NotebookFile, *, is_kept: bool) -> str:
    """What stands between a notebook and its file, for whoever has it open."""
    if isinstance(error, LinkLost):
        return "The sandbox is not connected now; it will be saved when it is."
    kept = f" What is here is saved as {file.beside!r}." if is_kept else ""
    kind = "cannot be saved"
    if isinstance(error, InvalidRequest):
        kind = "is not the file's: that is no longer a notebook"
    return f"The notebook {kind}: {error}{kept}"
