"""The service ``package-index``: which hosts pip needs, found where the controller runs.

That is the hosts of pip's own configuration, and those that serve the files of the index: they are
read off one page of it. Nothing of that is written down anywhere; it is asked anew now and then,
and when it cannot be found nothing is open.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

from sandbox import pipindex
from sandbox.egress.hosts import BadHost, parse_authority
from sandbox.egress.indexclient import Page, Source, Upstream, without_login
from sandbox.egress.threads import in_thread
from sandbox.pipindex import PipIndex
from sandbox.policy.destinations import Service, Target

NAME = "package-index"
PAGE = "pip"
"""The package whose page is read: every index has it."""
KEEP_S = 3600.0
KEEP_PROBLEM_S = 15.0
WAIT_S = 5.0
"""For what is being looked up; who has waited so long gets what is known."""
MAX_TARGETS = 16
logger = logging.getLogger(__name__)


Fetch = Callable[[str, bool], Page]
"""Fetches a URL, and says whether its host is trusted without a certificate; blocks.

Raises ``OSError`` or ``ValueError`` when there is no such page.
"""


class PackageIndex:
    """What is known of the package index; all that it is given but the clock blocks."""

    def __init__(
        self,
        fetch: Fetch,
        *,
        configured: Callable[[], PipIndex] = pipindex.configured,
        built_in: Callable[[], str] = pipindex.built_in,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._configured = configured
        self._built_in = built_in
        self._clock = clock
        self._index = PipIndex()
        self._service = Service(problem="its hosts are still being looked up")
        self._good_until = float("-inf")
        self._reading: asyncio.Future[PipIndex] | None = None
        self._fetching: asyncio.Future[Service] | None = None

    async def known(self, names: frozenset[str]) -> Mapping[str, Service]:
        """See ``Services`` of ``sandbox.egress.wayout``: what is known after a short wait."""
        if NAME not in names:
            return {}
        await asyncio.wait([self._refreshed()], timeout=WAIT_S)  # giving up ends it for nobody
        return {NAME: self._service}

    async def variables(self, names: frozenset[str]) -> Mapping[str, str]:
        """What tells pip inside to use the same index, without credentials.

        No network is asked for that. The index's hosts begin to be looked up, for whoever will
        want to know them next.
        """
        if NAME not in names:
            return {}
        self._refreshed()
        if self._reading is not None and not self._index.index_url:
            await asyncio.wait([self._reading], timeout=WAIT_S)
        index = self._index
        if not index.index_url:
            logger.warning("a session opens without an index for pip, which is not known yet")
        bare = tuple(map(without_login, index.extra_index_urls))
        return PipIndex(without_login(index.index_url), bare, index.trusted_hosts).variables()

    @property
    def index(self) -> PipIndex:
        """What pip is configured with, as far as that was read."""
        return self._index

    def _refreshed(self) -> asyncio.Future[Service]:
        """What is known, once it is; looked up in threads while it is not, or is old."""
        if self._fetching is None or (self._fetching.done() and self._clock() >= self._good_until):
            self._reading = in_thread(self._read_configuration, "package-index")
            self._fetching = asyncio.get_running_loop().create_future()
            self._reading.add_done_callback(self._was_read)
        return self._fetching

    def _was_read(self, reading: asyncio.Future[PipIndex]) -> None:
        if (exc := reading.exception()) is not None:
            self._was_fetched(Service(problem=f"pip's configuration cannot be read: {exc}"))
            return
        self._index = index = reading.result()
        looking = in_thread(lambda: self._look_up(index), "package-index")
        looking.add_done_callback(lambda done: self._was_fetched(_result(done)))

    def _was_fetched(self, service: Service) -> None:
        self._service = service
        self._good_until = self._clock() + (KEEP_PROBLEM_S if service.problem else KEEP_S)
        if self._fetching is not None and not self._fetching.done():
            self._fetching.set_result(service)

    def _read_configuration(self) -> PipIndex:
        found = self._configured()
        if found.index_url:
            return found
        return PipIndex(self._built_in(), found.extra_index_urls, found.trusted_hosts)

    def _look_up(self, index: PipIndex) -> Service:
        urls = [url for url in (index.index_url, *index.extra_index_urls) if url]
        if not urls:
            return Service(problem="pip is not configured where the controller runs, nor installed")
        targets: set[Target] = set()
        try:
            for url in urls:
                trusted = urlsplit(url).hostname in index.trusted_hosts
                page = self._fetch(f"{url.rstrip('/')}/{PAGE}/", trusted)
                targets |= {target_of(each) for each in (url, page.url, *_files(page))}
        except (OSError, ValueError, BadHost, RecursionError) as exc:
            # Not the URL: it may carry a login.
            return Service(problem=f"the package index does not say where its files are: {exc}")
        if len(targets) > MAX_TARGETS:
            return Service(problem=f"the package index names more than {MAX_TARGETS} hosts")
        return Service(frozenset(targets))


def _result(done: asyncio.Future[Service]) -> Service:
    exc = done.exception()
    return done.result() if exc is None else Service(problem=f"it cannot be looked up: {exc}")


def fetcher(upstream: Upstream) -> Fetch:
    """A fetcher of pages."""

    def fetch(url: str, is_trusted: bool) -> Page:
        page = upstream.page(Source(url, is_trusted))
        if page is None:
            raise ValueError("it says that its page is as before, and there was none")
        return page

    return fetch


def _files(page: Page) -> Iterator[str]:
    """The URLs of the files that a page names."""
    if page.is_json:
        loaded: Any = json.loads(page.text)
        files: Any = cast("dict[str, Any]", loaded).get("files") if isinstance(loaded, dict) else ()
        for file in cast("list[Any]", files or ()):
            yield urljoin(page.url, str(file["url"]) if isinstance(file, dict) else "")  # pyright: ignore[reportUnknownArgumentType]
        return
    links = _Links()
    links.feed(page.text)
    yield from (urljoin(page.url, link) for link in links.found)


class _Links(HTMLParser):
    """The links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a link."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def target_of(url: str) -> Target:
    """The host of a URL, as a service has it.

    Raises:
        ValueError, BadHost: It is none of HTTP.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise ValueError("it names files by other than https or http")
    is_plain = parts.scheme == "http"
    authority = parts.netloc.rpartition("@")[2]
    host, port = parse_authority(authority, 80 if is_plain else 443)
    return Target(host.text, port, is_plain)
