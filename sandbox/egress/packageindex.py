"""The service ``package-index``: which hosts pip needs, found where the controller runs.

That is the hosts of pip's own configuration, and those that serve the files of the index: they are
read off one page of it. Nothing of that is written down anywhere; it is asked anew now and then,
and when it cannot be found nothing is open.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, cast
from urllib.parse import unquote, urljoin, urlsplit

import anyio.to_thread

from sandbox import pipindex
from sandbox.egress.hosts import BadHost, parse_authority
from sandbox.egress.rules import Service, Target
from sandbox.pipindex import PipIndex

NAME = "package-index"
PAGE = "pip"
"""The package whose page is read: every index has it."""
KEEP_S = 3600.0
KEEP_PROBLEM_S = 15.0
FETCH_TIMEOUT_S = 20.0
MAX_PAGE_BYTES = 16 * 1024 * 1024
MAX_TARGETS = 16
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of an index.

    Args:
        url: Where it was in the end.
        is_json: Whether it is JSON; otherwise HTML.
        text: Its text.
    """

    url: str
    is_json: bool
    text: str


Fetch = Callable[[str, bool], Page]
"""Fetches a URL, and says whether its host is trusted without a certificate; blocks.

Raises ``OSError`` or ``ValueError`` when there is no such page.
"""


class PackageIndex:
    """What is known of the package index.

    Args:
        fetch: Fetches a page.
        configured: Reads pip's configuration; blocks.
        built_in: The index that pip takes without one; blocks.
        clock: Seconds that only grow.
    """

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
        self._index: PipIndex | None = None
        self._service = Service(problem="its hosts have not been looked up yet")
        self._good_until = float("-inf")
        self._one_at_a_time = asyncio.Lock()

    async def known(self, names: frozenset[str]) -> Mapping[str, Service]:
        """See ``Services`` of ``sandbox.egress.surroundings``."""
        return {NAME: await self._known()} if NAME in names else {}

    async def variables(self, names: frozenset[str]) -> Mapping[str, str]:
        """What tells pip inside to use the same index, without credentials."""
        if NAME not in names:
            return {}
        async with self._one_at_a_time:
            index = await self._read()
        variables = {
            "PIP_INDEX_URL": _without_login(index.index_url),
            "PIP_EXTRA_INDEX_URL": " ".join(map(_without_login, index.extra_index_urls)),
            "PIP_TRUSTED_HOST": " ".join(index.trusted_hosts),
        }
        return {name: value for name, value in variables.items() if value}

    async def _known(self) -> Service:
        if self._clock() < self._good_until:
            return self._service
        async with self._one_at_a_time:
            if self._clock() >= self._good_until:
                self._index = None
                index = await self._read()
                self._service = await anyio.to_thread.run_sync(self._look_up, index)
                keep_s = KEEP_PROBLEM_S if self._service.problem else KEEP_S
                self._good_until = self._clock() + keep_s
        return self._service

    async def _read(self) -> PipIndex:
        if self._index is None:
            self._index = await anyio.to_thread.run_sync(self._read_configuration)
        return self._index

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
                targets |= {_target(each) for each in (url, page.url, *_files(page))}
        except (OSError, ValueError, BadHost, RecursionError) as exc:
            # Not the URL: it may carry a login.
            return Service(problem=f"the package index does not say where its files are: {exc}")
        if len(targets) > MAX_TARGETS:
            return Service(problem=f"the package index names more than {MAX_TARGETS} hosts")
        return Service(frozenset(targets))


def fetcher(tls: Callable[[], ssl.SSLContext]) -> Fetch:
    """A fetcher that trusts what this context does."""

    def fetch(url: str, is_trusted: bool) -> Page:
        context = tls()
        if is_trusted:  # as the operator's configuration of pip says
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        bare = _without_login(url)
        request = urllib.request.Request(bare, headers={"Accept": _ACCEPT})  # noqa: S310
        parts = urlsplit(url)
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            token = base64.b64encode(login.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=FETCH_TIMEOUT_S, context=context) as answer:  # noqa: S310
            raw: bytes = answer.read(MAX_PAGE_BYTES + 1)
            if len(raw) > MAX_PAGE_BYTES:
                raise ValueError("its page is too large")
            kind = str(answer.headers.get_content_type())
            return Page(str(answer.geturl()), kind.endswith("json"), raw.decode("utf-8", "replace"))

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


def _target(url: str) -> Target:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise ValueError("it names files by other than https or http")
    is_plain = parts.scheme == "http"
    authority = parts.netloc.rpartition("@")[2]
    host, port = parse_authority(authority, 80 if is_plain else 443)
    return Target(host.text, port, is_plain)


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
