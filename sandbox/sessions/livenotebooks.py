"""The notebooks of one session: opened once, shared by everybody, and taken back after a restart.

A notebook that nobody has open is saved and let go of, but stays in the journal as long as its
session: whoever was connected to it goes on with it when it is opened again.
"""

from __future__ import annotations

import logging
import posixpath
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup

from sandbox.errors import (
    Conflict,
    FileError,
    InfrastructureError,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    SandboxError,
)
from sandbox.files.files import Files
from sandbox.kernels.kernels import DEFAULT_KERNEL_ID, DEFAULT_KERNEL_NAME, Kernels
from sandbox.kernels.models import KernelSpec
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.models import Notebook, kernel_of
from sandbox.outputs.redaction import Redactor
from sandbox.sessions.models import WORKSPACE
from sandbox.sessions.notebookjournal import NotebookRow, NotebookTable
from sandbox.sessions.notebookparts import NotebookParts

if TYPE_CHECKING:  # it takes a while to load, and most sessions open no notebook
    from sandbox.sessions.livenotebook import LiveNotebook

MAX_OPEN = 32
MAX_KNOWN = 128
"""Those that were open once; the one whose opening is longest ago is forgotten first."""
IDLE_S = 600.0
"""One that nobody uses for so long is let go of."""
SAVE_LAST_S = 10.0

logger = logging.getLogger(__name__)


class SessionNotebooks:
    """The live notebooks of one session; :meth:`run` must be running."""

    def __init__(
        self,
        session_id: str,
        kernels: Kernels,
        files: Files,
        table: NotebookTable,
        redactor: Redactor,
        root: str = WORKSPACE,
    ) -> None:
        self._root = root
        self._parts = NotebookParts(session_id, kernels, files, table, redactor)
        self._opened: dict[str, LiveNotebook] = {}
        self._opening = anyio.Lock()
        self._choosing = anyio.Lock()
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Serve the notebooks until cancelled; what they have is in the journal."""
        try:
            async with anyio.create_task_group() as self._tasks:
                while True:
                    await anyio.sleep(IDLE_S / 10)
                    await self._let_go()
        finally:
            self._tasks = None
            for notebook in self._opened.values():
                notebook.stop()
            self._opened.clear()

    async def resume(self) -> None:
        """Open those that an earlier controller had open."""
        try:
            rows = self._parts.table.rows(self._parts.session_id)
        except SandboxError as exc:
            logger.error("the notebooks of %s cannot be read: %s", self._parts.session_id, exc)
            return
        for row in rows:
            if row.is_open:
                try:
                    await self.open(row.path)
                except SandboxError as exc:
                    logger.warning("notebook %s cannot be opened again: %s", row.file_id, exc)

    async def save_all(self) -> None:
        """Save what is not, before the session ends."""
        with anyio.move_on_after(SAVE_LAST_S):
            for notebook in self.opened:
                try:
                    await notebook.save_changes()
                except SandboxError as exc:
                    logger.warning("notebook %s is not saved: %s", notebook.file_id, exc)

    # --- for callers

    @property
    def opened(self) -> Sequence[LiveNotebook]:
        """Those that are open, in the order of their opening."""
        return tuple(self._opened.values())

    async def open(self, path: str, *, create: bool = False) -> LiveNotebook:
        """Open the notebook at a path, or find it open already."""
        path = self._absolute(path)
        async with self._opening:
            if (found := self._opened.get(path)) is not None:
                await found.look()
                return found
            if len(self._opened) >= MAX_OPEN:
                raise QuotaExceeded(
                    f"{MAX_OPEN} notebooks are open, the most there can be.",
                    remedy="Close one first.",
                )
            return await self._open(path, create=create)

    async def open_by_id(self, file_id: str) -> LiveNotebook:
        """Open the notebook whose room has this id."""
        for notebook in self.opened:
            if notebook.file_id == file_id:
                return notebook
        for row in self._parts.table.rows(self._parts.session_id):
            if row.file_id == file_id:
                return await self.open(row.path)
        raise NotFound(
            f"The session has no notebook {file_id!r:.80}.", remedy="Open it by its path."
        )

    async def close(self, path: str) -> None:
        """Save and close it where nobody has it open any more."""
        async with self._opening:
            notebook = self._opened.get(self._absolute(path))
            if notebook is not None and not notebook.is_used:
                await self._close(notebook)

    # --- inside

    async def _open(self, path: str, *, create: bool) -> LiveNotebook:
        from sandbox.sessions.livenotebook import LiveNotebook

        if self._tasks is None:
            raise InfrastructureError("The session is closed.")
        table, session_id = self._parts.table, self._parts.session_id
        rows = table.rows(session_id)
        row = next((each for each in rows if each.path == path), None)
        if (
            row is not None and not row.is_open and not (row.etag and await self._is_there(path))
        ):  # it was never wholly opened, or its file was deleted since
            table.forget(row.file_id)
            row = None
        is_new = row is None
        if row is None:
            for old in rows[: max(0, len(rows) - MAX_KNOWN + 1)]:
                if old.path not in self._opened:
                    table.forget(old.file_id)
            row = NotebookRow(secrets.token_hex(16), path, is_open=False, kernel_id="", etag="")
            table.opened(session_id, row)
        notebook: LiveNotebook | None = None
        try:
            notebook = LiveNotebook(self._parts, row, self._chosen)
            if create:
                await notebook.file.create()
            await notebook.load()
            table.set_open(row.file_id, is_open=True)
        except BaseException:
            if notebook is not None:
                notebook.stop()
            if is_new:
                table.forget(row.file_id)
            raise
        self._opened[path] = notebook
        self._tasks.start_soon(self._run, notebook)
        return notebook

    def _absolute(self, path: str) -> str:
        if not path or "\0" in path:
            raise InvalidRequest("A notebook has a path.")
        return posixpath.normpath(posixpath.join(self._root, path))

    async def _is_there(self, path: str) -> bool:
        try:
            await self._parts.files.stat(path)
        except FileError as exc:
            return exc.reason != "not_found"
        return True

    async def _run(self, notebook: LiveNotebook) -> None:
        try:
            await notebook.run()
        except Exception:  # the outermost edge of a notebook: the session's others go on
            logger.exception("notebook %s failed", notebook.file_id)
            notebook.stop()
            if self._opened.get(notebook.path) is notebook:
                del self._opened[notebook.path]

    async def _close(self, notebook: LiveNotebook) -> None:
        """Save it and let go of it; it stays where that fails or somebody comes meanwhile."""
        await notebook.save_changes()
        if notebook.is_used:
            return
        self._parts.table.set_open(notebook.file_id, is_open=False)
        del self._opened[notebook.path]
        notebook.stop()

    async def _let_go(self) -> None:
        for notebook in self.opened:
            if not notebook.is_used and time.monotonic() - notebook.used_at > IDLE_S:
                async with self._opening:
                    try:
                        await self._close(notebook)
                    except SandboxError as exc:
                        logger.info("notebook %s is not closed: %s", notebook.file_id, exc)

    async def _chosen(self, notebook: LiveNotebook) -> str:
        """A kernel for a notebook: the session's default one where it is of its language and no
        other notebook's, else one of its own."""
        async with self._choosing:
            kernels = self._parts.kernels
            specs = await kernels.kernelspecs()
            named, language = kernel_of(notebook.document.read())
            name = named or DEFAULT_KERNEL_NAME
            if name not in specs:
                alike = [
                    n for n, s in specs.items() if s.language.casefold() == language.casefold()
                ]
                if not alike:
                    raise InvalidRequest(
                        f"There is no kernel {name[:80]!r} in this sandbox.",
                        remedy=f"It has {', '.join(specs) or 'none'}: name one with kernel_id.",
                    )
                name = DEFAULT_KERNEL_NAME if DEFAULT_KERNEL_NAME in alike else alike[0]
            default = specs.get(DEFAULT_KERNEL_NAME)
            is_taken = any(
                each.kernel_id == DEFAULT_KERNEL_ID for each in self.opened if each is not notebook
            )
            is_alike = default is not None and default.language == specs[name].language
            if is_alike and not is_taken:
                if DEFAULT_KERNEL_ID not in {each.kernel_id for each in kernels.infos}:
                    with suppress(Conflict):  # somebody was quicker
                        await kernels.start(kernel_id=DEFAULT_KERNEL_ID)
                _name_kernel(notebook, name, specs[name])
                return DEFAULT_KERNEL_ID
            try:
                kernel_id = (await kernels.start(name)).kernel_id
            except QuotaExceeded as exc:
                raise QuotaExceeded(
                    exc.message,
                    remedy="Stop a kernel, or name one that this notebook shall use as kernel_id.",
                ) from exc
            _name_kernel(notebook, name, specs[name])
            return kernel_id


def _name_kernel(notebook: LiveNotebook, name: str, spec: KernelSpec) -> None:
    """Note the kernel in a notebook that names none, so that clients need not ask for one."""
    kernel = {"name": name, "display_name": spec.display_name, "language": spec.language}

    def named(before: Notebook) -> Edited:
        metadata = {
            "kernelspec": kernel,
            "language_info": {"name": spec.language},
            **before.metadata,
        }
        is_same = metadata == before.metadata
        return Edited(before if is_same else replace(before, metadata=metadata), (), "")

    notebook.document.edit(named)
