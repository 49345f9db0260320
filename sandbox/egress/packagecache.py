"""Pages and files of the package index for all sessions of a controller, fetched once.

What a session gets is what the index says to the controller: nothing of a session's request but
the names of a project and of a file on its page goes there, and a file has the hash that the page
names or is not served at all.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, BinaryIO, TypeVar

from sandbox.bulkheads.shares import Owner, Shares
from sandbox.egress.dialing import Unreachable
from sandbox.egress.hosts import BadHost
from sandbox.egress.indexclient import Source, Upstream, with_login_of
from sandbox.egress.packagefiles import FileStore
from sandbox.egress.packageindex import NAME, PackageIndex, target_of
from sandbox.egress.packagepages import HOST, IndexFile, Project, read_project
from sandbox.egress.threads import in_thread
from sandbox.pipindex import PipIndex
from sandbox.policy.destinations import Target

FRESH_S = 600.0
"""How long a page is taken for what the index says, without asking it again."""
MAX_PAGES_BYTES = 64 * 1024 * 1024
TOO_LARGE = "the file is larger than what is kept of all packages; see package_cache_bytes"
WORKERS = 16
WORKERS_OF_PRINCIPAL = 8
WORKERS_OF_SESSION = 4

_T = TypeVar("_T")


class NoSuchPackage(Exception):
    """The index has no such project, or its page no such file."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A page, and how to ask whether it is still that."""

    project: Project
    etag: str
    fresh_until: float


class PackageCache:
    """The package index as sessions get it. Used in one event loop.

    A fetch that has begun goes on for whoever asks next when the session that asked gives up.
    """

    def __init__(
        self,
        index: PackageIndex,
        upstream: Upstream,
        store: FileStore,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._index = index
        self._upstream = upstream
        self._store = store
        self._clock = clock
        self._pages: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        """By the index's URL, whose number may be another one's later, and the project."""
        self._under_way: dict[object, asyncio.Future[Any]] = {}
        self._shares = Shares(
            "fetches of packages", WORKERS, WORKERS_OF_PRINCIPAL, WORKERS_OF_SESSION
        )

    def variables(self) -> dict[str, str]:
        """What tells programs inside to ask here; nothing while no index is known."""
        urls = [f"http://{HOST}/{index}/" for index in range(len(self._urls))]
        if not urls:
            return {}
        trusted = (*self._index.index.trusted_hosts, HOST)
        uv = {"UV_DEFAULT_INDEX": urls[0], "UV_INDEX": " ".join(urls[1:])}
        said = PipIndex(urls[0], tuple(urls[1:]), trusted).variables()
        return {**said, **{name: value for name, value in uv.items() if value}}

    def target_of_index(self, index: int) -> Target:
        """The host of one of the indexes.

        Raises:
            NoSuchPackage: There is no such index.
        """
        return target_of(self._url(index))

    def target_of_file(self, file: IndexFile) -> Target:
        """The host that a file is on.

        Raises:
            Unreachable: It is on none that could be asked.
        """
        try:
            return target_of(file.url)
        except (ValueError, BadHost) as exc:
            raise Unreachable(f"the index names a file where none can be: {exc}") from exc

    async def page(self, index: int, project: str, owner: Owner) -> Project:
        """A project's page, as the index said within the last ten minutes.

        Raises:
            NoSuchPackage: The index has no such project.
            Unreachable: The index does not say.
        """
        base = self._url(index)
        key = (base, project)
        kept = self._pages.get(key)
        if kept is None or self._clock() >= kept.fresh_until:
            url = f"{base.rstrip('/')}/{project}/"
            source = await self._source(index, url)
            kept = await self._once(key, lambda: self._fetched(project, source, kept), owner)
            self._pages[key] = kept
            self._pages.move_to_end(key)
            self._trim()
        else:
            self._pages.move_to_end(key)
        return kept.project

    async def file(self, index: int, wanted: IndexFile, owner: Owner) -> BinaryIO:
        """A file that a page names, verified, at its beginning; the caller closes it.

        Raises:
            NoSuchPackage: The index does not have it.
            Unreachable: It cannot be had, or is not what the page says.
        """
        if (wanted.size_bytes or 0) > self._store.limit_bytes:
            raise Unreachable(TOO_LARGE)
        for _ in range(2):  # it may have been made room of meanwhile
            if (file := await self._opened(wanted.sha256, owner)) is not None:
                return file
            source = await self._source(index, wanted.url)
            await self._once(wanted.sha256, partial(self._fetch_file, wanted, source), owner)
        if (file := await self._opened(wanted.sha256, owner)) is not None:
            return file
        raise Unreachable(TOO_LARGE)

    @property
    def _urls(self) -> tuple[str, ...]:
        known = self._index.index
        return tuple(url for url in (known.index_url, *known.extra_index_urls) if url)

    def _url(self, index: int) -> str:
        """One of the indexes as they are configured now."""
        urls = self._urls
        if index >= len(urls):
            raise NoSuchPackage("there is no such index")
        return urls[index]

    async def _source(self, index: int, url: str) -> Source:
        """Where to ask, if that is one of the index's own hosts as they are known now."""
        service = (await self._index.known(frozenset({NAME})))[NAME]
        if service.problem:
            raise Unreachable(service.problem)

        def may(found: str) -> bool:
            try:
                return target_of(found) in service.targets
            except (ValueError, BadHost):
                return False

        if not may(url):
            raise Unreachable("the index names a file on a host that is none of its own")
        target = target_of(url)
        trusted = target.host in self._index.index.trusted_hosts
        return Source(with_login_of(self._url(index), url), trusted, may)

    def _fetched(self, project: str, source: Source, kept: _Kept | None) -> _Kept:
        page = self._upstream.page(source, kept.etag if kept else "")
        fresh_until = self._clock() + FRESH_S
        if page is not None:
            read = read_project(project, page.url, page.text, is_json=page.is_json)
            return _Kept(read, page.etag, fresh_until)
        if kept is None:
            raise ValueError("it says that its page is as before, and there was none")
        return replace(kept, fresh_until=fresh_until)

    def _fetch_file(self, wanted: IndexFile, source: Source) -> None:
        limit = self._store.limit_bytes if wanted.size_bytes is None else wanted.size_bytes
        self._store.add(wanted.sha256, lambda into: self._upstream.file(source, into, limit))

    async def _opened(self, sha256: str, owner: Owner) -> BinaryIO | None:
        await self._shares.wait(owner)
        opening = in_thread(
            lambda: self._store.open(sha256), "package-cache", lambda: self._shares.give(owner)
        )
        try:
            await asyncio.wait([opening])
        except asyncio.CancelledError:
            opening.add_done_callback(_close)
            raise
        return opening.result()

    async def _once(self, key: object, work: Callable[[], _T], owner: Owner) -> _T:
        """Do something in a thread, for all who want it while it goes on."""
        under_way: asyncio.Future[_T] | None = self._under_way.get(key)
        if under_way is None:
            await self._shares.wait(owner)
            if (under_way := self._under_way.get(key)) is None:
                under_way = self._begun(key, work, owner)
            else:
                self._shares.give(owner)
        await asyncio.wait([under_way])  # giving up ends it for nobody
        try:
            return under_way.result()
        except FileNotFoundError as exc:
            raise NoSuchPackage(str(exc)) from exc
        except (OSError, ValueError) as exc:
            # Not the URL: it may carry a login.
            raise Unreachable(f"the package index gives nothing: {exc}") from exc

    def _begun(self, key: object, work: Callable[[], _T], owner: Owner) -> asyncio.Future[_T]:
        def ended() -> None:
            self._shares.give(owner)
            self._under_way.pop(key, None)

        made = in_thread(work, "package-cache", ended)
        if not made.done():  # it was begun
            self._under_way[key] = made
        made.add_done_callback(lambda done: done.exception())  # whether or not somebody waits
        return made

    def _trim(self) -> None:
        size = sum(len(kept.project.body) for kept in self._pages.values())
        while size > MAX_PAGES_BYTES:
            _, dropped = self._pages.popitem(last=False)
            size -= len(dropped.project.body)


def _close(opening: asyncio.Future[BinaryIO | None]) -> None:
    """Close a file that nobody waits for any longer."""
    if opening.exception() is None and (file := opening.result()) is not None:
        file.close()
