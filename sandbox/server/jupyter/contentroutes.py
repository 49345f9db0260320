"""The contents of a session's workspace: folders, files and notebooks, as in a Jupyter Server.

A notebook that is open as a live document is read from it, and written into it: merged with what
others have made of it since this client has read it. It is never written behind its back.
"""

from __future__ import annotations

import posixpath
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import Any, cast
from urllib.parse import quote
from weakref import WeakKeyDictionary

import anyio.to_thread
from starlette.responses import Response

from sandbox.bulkheads.shares import Owner, Shares
from sandbox.collaboration.authors import Author
from sandbox.collaboration.contracts import LiveNotebook
from sandbox.errors import Conflict, FileError, InvalidRequest
from sandbox.files.models import MAX_ENTRIES, FileStat
from sandbox.notebooks.editing import Edited
from sandbox.notebooks.ipynb import MAX_BYTES, read_ipynb
from sandbox.notebooks.merging import merge
from sandbox.notebooks.models import Notebook
from sandbox.outputs.redaction import Pieces
from sandbox.server.desk import permit_unasked
from sandbox.server.download import Download
from sandbox.server.endpoints import whole_body
from sandbox.server.jupyter import contentmodels as models
from sandbox.server.jupyter.rooms import READS, may_write
from sandbox.server.jupyter.visits import (
    NOSNIFF,
    JupyterRoute,
    Visit,
    body,
    done,
    told,
)
from sandbox.server.sharing import absolute, leads_to, relative
from sandbox.sessions.session import Session

MAX_LISTED = 10_000
"""Entries of one folder."""
MAX_FILE = 16 * 1024 * 1024
"""Of a file whose content is put into JSON; larger ones are downloaded, or uploaded in chunks."""
MAX_MODEL = 32 * 1024 * 1024
LARGE = 1024 * 1024
LARGE_AT_ONCE = 8
LARGE_OF_ONE = 2
"""Contents of more than that, which are held in memory at the same time: in all, and of one
principal."""
MAX_BASES, MAX_BASES_BYTES = 16, 32 * 1024 * 1024
"""Notebooks of one session that clients have read, as they were then; the latest one in any case.
"""
MAX_UNTITLED = 1000
_EMPTY = Notebook((), {})


class Contents:
    """The contents of all sessions."""

    def __init__(self) -> None:
        self._large = Shares("large files", LARGE_AT_ONCE, LARGE_OF_ONE, LARGE_OF_ONE)
        self._bases: WeakKeyDictionary[Session, OrderedDict[tuple[str, str], bytes]] = (
            WeakKeyDictionary()
        )

    def routes(self) -> list[JupyterRoute]:
        """To read, write, make, move and delete. Each asks for what it needs by itself."""
        root, below = "/api/contents", "/api/contents/{path:path}"
        return [
            JupyterRoute(root, "GET", (), self._read, for_guest=self._read_shared),
            JupyterRoute(root, "POST", (), self._make),
            JupyterRoute(below, "GET", (), self._read, for_guest=self._read_shared),
            JupyterRoute(below, "POST", (), self._make),
            JupyterRoute(below, "PUT", ("write_file",), self._save),
            JupyterRoute(below, "PATCH", ("move_file",), self._rename),
            JupyterRoute(below, "DELETE", ("delete_file",), self._delete),
            JupyterRoute("/files/{path:path}", "GET", ("read_file",), _download, is_streamed=True),
        ]

    # --- reading

    async def _read(self, visit: Visit) -> Response:
        path, session = _path(visit), visit.session
        kind, with_content = visit.query("type"), visit.query("content", "1") != "0"
        visit.grant.require("read_file")  # or any other tool of that scope
        stat = await _stat(session, path)
        if stat.type == "directory":
            return await self._folder(visit, path, stat, with_content=with_content)
        if kind == "directory":
            raise InvalidRequest(f"{path!r:.200} is no folder.")
        visit.permit("read_file")
        actual = models.kind_of(stat)
        if kind == "notebook" and actual != "notebook":
            raise InvalidRequest(f"{path!r:.200} is no notebook.")
        shown = models.model(path, stat, "file" if kind == "file" else actual)
        if not with_content:
            return told(shown)
        size = MAX_FILE if stat.type == "symlink" else stat.size  # a link's own says nothing
        async with self._room(visit, size):
            if shown["type"] == "notebook":
                notebook = await self._notebook(visit, path)
                content = await anyio.to_thread.run_sync(models.notebook_json, notebook)
                self._remember(visit, path, content)
                return _json(models.with_content(shown, "json", content))
            data, _ = await session.files.read_bytes(absolute(path), MAX_FILE)
            data = Pieces(session.redactor).last(data)
            found = await anyio.to_thread.run_sync(
                models.file_content, path, data, visit.query("format")
            )
            return _json(models.with_content(shown, *found))

    async def _folder(
        self, visit: Visit, path: str, stat: FileStat, *, with_content: bool
    ) -> Response:
        visit.permit("list_files")
        shown = models.model(path, stat, "directory")
        if with_content:
            entries: list[dict[str, Any]] = []
            async for entry in _entries(visit.session, path):
                below = posixpath.join(path, entry.name)
                entries.append(models.model(below, entry, models.kind_of(entry)))
            shown |= {"format": "json", "content": entries}
        return await anyio.to_thread.run_sync(told, shown)  # of as many entries as may be

    async def _read_shared(self, visit: Visit) -> Response:
        """The notebook that a guest's token is for, as its room has it, and the folders on the way
        there, each with the next step in it and nothing else."""
        path, session, shared = _path(visit), visit.session, visit.grant.notebook
        if shared is None or not leads_to(shared, path):
            raise models.not_there(path)  # the gate turns such requests away already
        for tool in READS:
            permit_unasked(session.policy, tool)
        way = relative(shared.path)
        notebook = await session.notebooks.open(shared.path)
        shown = models.model(way, await session.files.stat(shared.path), "notebook")
        shown["writable"] = may_write(visit.grant, session, shared)
        with_content = visit.query("content", "1") != "0"
        if path != way:
            return told(models.on_the_way(path, shown, with_content=with_content))
        if not with_content:
            return told(shown)
        async with self._room(
            visit, MAX_FILE
        ):  # the file's size says nothing of what is in the room
            content = await anyio.to_thread.run_sync(models.notebook_json, notebook.read())
            return _json(models.with_content(shown, "json", content))

    async def _notebook(self, visit: Visit, path: str) -> Notebook:
        """A notebook as it is now."""
        session = visit.session
        if (live := _live(session, path)) is not None:
            return live.read()
        data, _ = await session.files.read_bytes(absolute(path), MAX_BYTES)
        data = Pieces(session.redactor).last(data)
        return (await anyio.to_thread.run_sync(read_ipynb, data)).notebook

    # --- writing

    async def _save(self, visit: Visit) -> Response:
        path, session = _path(visit), visit.session
        if not path:
            raise InvalidRequest("The workspace itself cannot be written.")
        length = visit.request.headers.get("content-length", "")
        async with self._room(visit, int(length) if length.isdecimal() else MAX_MODEL):
            raw = await whole_body(visit.request, MAX_MODEL)
            saved = await anyio.to_thread.run_sync(models.saved, raw)
            was_there = await _is_there(session, path)
            if saved.type == "directory":
                visit.permit("make_directory")
                await session.files.mkdir(absolute(path))
            elif saved.type == "notebook":
                notebook = _EMPTY
                if saved.content is not None:
                    notebook = await anyio.to_thread.run_sync(models.notebook_given, saved.content)
                await self._save_notebook(visit, path, notebook)
            else:
                if _live(session, path) is not None:
                    raise Conflict(
                        f"{path!r:.200} is open as a notebook.", remedy="Save it as one."
                    )
                await _save_file(session, path, saved)
        return await _answer(visit, path, 200 if was_there else 201)

    async def _save_notebook(self, visit: Visit, path: str, given: Notebook) -> None:
        data = await anyio.to_thread.run_sync(models.notebook_json, given)
        live = _live(visit.session, path)
        if live is None:
            await visit.session.files.write(absolute(path), data)
            return
        read = self._bases.get(visit.session, OrderedDict()).get(_key(visit, path))
        if read is None:
            raise Conflict(
                f"{path!r:.200} is open as a live document, and you have not read it.",
                remedy="Read it first: your change is then merged with those of others.",
            )
        base = (await anyio.to_thread.run_sync(read_ipynb, read)).notebook
        who = visit.grant
        author = Author(f"jupyter-{who.token_id}", who.principal, is_agent=False)
        await live.edit(lambda ours: Edited(merge(base, ours, given), (), ""), author)
        self._remember(visit, path, data)
        await live.save()

    async def _make(self, visit: Visit) -> Response:
        """Make a new file, notebook or folder in a folder, or a copy of one; its name is ours."""
        path, session = _path(visit), visit.session
        wanted = await body(visit.request, models.Made)
        visit.permit("make_directory" if wanted.type == "directory" else "write_file")
        taken = {entry.name async for entry in _entries(session, path)}
        if wanted.copy_from:
            visit.permit("read_file")
            source = models.checked(wanted.copy_from)
            stem, ext = posixpath.splitext(posixpath.basename(source))
            target = posixpath.join(path, _free(f"{stem}-Copy", ext, taken, 1))
            if (live := _live(session, source)) is not None:
                await live.save()
            await copy(session, source, target)
        elif wanted.type == "directory":
            target = posixpath.join(path, _free("Untitled Folder", "", taken))
            await session.files.mkdir(absolute(target), parents=False)
        elif wanted.type == "notebook" or wanted.ext == models.NOTEBOOK:
            target = posixpath.join(path, _free("Untitled", models.NOTEBOOK, taken))
            await session.files.write(absolute(target), models.notebook_json(_EMPTY))
        else:
            ext = models.checked(wanted.ext or "") if wanted.ext else ""
            if "/" in ext:
                raise InvalidRequest("An extension has no slash.")
            target = posixpath.join(path, _free("untitled", ext, taken))
            await session.files.write(absolute(target), b"")
        return await _answer(visit, target, 201)

    async def _rename(self, visit: Visit) -> Response:
        path, session = _path(visit), visit.session
        target = models.checked((await body(visit.request, models.Renamed)).path)
        if not path or not target:
            raise InvalidRequest("The workspace itself is not renamed.")
        if path != target:
            await _let_go(session, path)
            await _let_go(session, target)
            await session.files.move(absolute(path), absolute(target))
        return await _answer(visit, target)

    async def _delete(self, visit: Visit) -> Response:
        path, session = _path(visit), visit.session
        if not path:
            raise InvalidRequest("The workspace itself is not deleted.")
        await _let_go(session, path)
        await session.files.delete(absolute(path), recursive=True)
        return done()

    def _room(self, visit: Visit, size: int) -> AbstractAsyncContextManager[None]:
        """Room in memory for a content, waited for."""
        if size <= LARGE:
            return nullcontext()
        return self._large.place(Owner(visit.grant.principal, visit.session.session_id))

    def _remember(self, visit: Visit, path: str, notebook: bytes) -> None:
        """Note what a client has read, as JSON, which takes far less memory than its values."""
        bases = self._bases.setdefault(visit.session, OrderedDict())
        key = _key(visit, path)
        bases[key] = notebook
        bases.move_to_end(key)
        while len(bases) > MAX_BASES or (
            len(bases) > 1 and sum(map(len, bases.values())) > MAX_BASES_BYTES
        ):
            bases.popitem(last=False)


async def copy(session: Session, source: str, target: str) -> None:
    """Copy a file of a session, byte by byte."""
    async with await session.files.open_read(absolute(source)) as reading:

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in reading:
                yield piece

        await session.files.write(absolute(target), pieces())


async def _save_file(session: Session, path: str, saved: models.Saved) -> None:
    data = await anyio.to_thread.run_sync(models.bytes_given, saved)
    is_later = saved.chunk is not None and saved.chunk != 1
    await session.files.write(absolute(path), data, append=is_later)


async def _let_go(session: Session, path: str) -> None:
    """Close the live notebooks at a path and below, before that is moved or deleted.

    Raises:
        Conflict: Somebody has one open: it would be written again where it was.
    """
    where = absolute(path)
    for live in session.notebooks.opened:
        if live.path == where or live.path.startswith(f"{where}/"):
            await session.notebooks.close(live.path)
    for live in session.notebooks.opened:
        if live.path == where or live.path.startswith(f"{where}/"):
            raise Conflict(
                f"The notebook {live.path!r:.200} is open, and others work in it.",
                remedy="Close it everywhere first.",
            )


async def _download(visit: Visit) -> Response:
    """A file as an attachment that no browser renders, whatever it holds."""
    session, path = visit.session, _path(visit)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(session.use())
        reading = await stack.enter_async_context(await session.files.open_read(absolute(path)))
        pieces = Pieces(session.redactor, keep_length=True)
        head = visit.request.method == "HEAD"
        return Download(reading, stack.pop_all(), None, pieces, head=head)
    raise AssertionError  # pragma: no cover  # every way through the block returns or raises


async def _answer(visit: Visit, path: str, status: int = 200) -> Response:
    """The model of what was written, without its content."""
    stat = await _stat(visit.session, path)
    shown = models.model(path, stat, models.kind_of(stat))
    location = quote(f"{visit.base}/api/contents/{visit.session.redactor.text(path)}")
    return told(shown, status, {"Location": location})


async def _stat(session: Session, path: str) -> FileStat:
    """What is at a path: of a link what it leads to, as far as a listing or reading tells."""
    where = absolute(path)
    stat = await session.files.stat(where)
    if stat.type == "symlink":
        try:
            await session.files.list(where, limit=1)
        except FileError:
            return stat
        return stat.model_copy(update={"type": "directory"})
    if stat.type not in models.SHOWN:
        raise models.not_there(path)
    return stat


async def _entries(session: Session, path: str) -> AsyncIterator[FileStat]:
    """What is in a folder and can be shown, as far as it goes."""
    start = 0
    while start < MAX_LISTED:
        page = await session.files.list(absolute(path), start_index=start, limit=MAX_ENTRIES)
        for entry in page.entries:
            if entry.type in models.SHOWN and not entry.odd:
                yield entry
        start += len(page.entries)
        if not page.entries or start >= page.total:
            return


async def _is_there(session: Session, path: str) -> bool:
    try:
        await session.files.stat(absolute(path))
    except FileError:
        return False  # or it cannot be looked at: writing says why
    return True


def _live(session: Session, path: str) -> LiveNotebook | None:
    where = absolute(path)
    return next((each for each in session.notebooks.opened if each.path == where), None)


def _path(visit: Visit) -> str:
    return models.checked(cast("str", visit.request.path_params.get("path", "")))


def _key(visit: Visit, path: str) -> tuple[str, str]:
    return visit.grant.token_id, path


def _free(stem: str, ext: str, taken: set[str], first: int = 0) -> str:
    """A name that is not taken."""
    for number in range(first, MAX_UNTITLED):
        name = f"{stem}{number or ''}{ext}"
        if name not in taken:
            return name
    raise Conflict(f"All names like {stem}{ext} are taken.")


def _json(data: bytes) -> Response:
    return Response(data, media_type="application/json", headers=NOSNIFF)
