"""Which hosts the package index is made of, as the operator's pip and the index itself say."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from sandbox.egress.packageindex import KEEP_PROBLEM_S, KEEP_S, NAME, PackageIndex, Page
from sandbox.pipindex import PipIndex
from sandbox.policy.destinations import Target

INDEX = "https://user:word@index.example/simple"
NAMES = frozenset({NAME})

pytestmark = pytest.mark.anyio


class Index:
    """An index with one page, and a clock."""

    def __init__(self, page: Page | Exception, config: PipIndex | None = None) -> None:
        self.page = page
        self.fetched: list[str] = []
        self.now = 0.0
        self.config = config or PipIndex(INDEX)
        self.known = PackageIndex(
            self.fetch,
            configured=lambda: self.config,
            built_in=lambda: "https://built-in.example/simple",
            clock=lambda: self.now,
        )

    def fetch(self, url: str, is_trusted: bool) -> Page:
        self.fetched.append(url)
        if isinstance(self.page, Exception):
            raise self.page
        return self.page

    async def hosts(self) -> set[str]:
        service = (await self.known.known(NAMES))[NAME]
        return {target.host for target in service.targets}

    async def problem(self) -> str:
        return (await self.known.known(NAMES))[NAME].problem


def listed(*urls: str) -> Page:
    """A page that names files, as JSON."""
    text = json.dumps({"files": [{"url": url} for url in urls]})
    return Page("https://index.example/simple/pip/", is_json=True, text=text)


async def test_the_hosts_are_those_of_the_index_and_of_its_files() -> None:
    index = Index(listed("https://files.example/a.whl", "../../b.whl"))
    assert await index.hosts() == {"index.example", "files.example"}
    assert index.fetched == ["https://user:word@index.example/simple/pip/"]


async def test_a_page_in_html_says_the_same() -> None:
    page = Page(
        "https://index.example/simple/pip/",
        is_json=False,
        text='<a href="https://files.example:8443/a.whl#sha256=0">a</a><a href="../b.whl">b</a>',
    )
    found = (await Index(page).known.known(NAMES))[NAME].targets
    assert found == {Target("index.example", 443), Target("files.example", 8443)}


async def test_without_configuration_it_is_what_pip_has_built_in() -> None:
    index = Index(listed(), PipIndex())
    assert await index.hosts() == {"built-in.example", "index.example"}


async def test_pip_inside_gets_the_same_index_without_credentials() -> None:
    index = Index(listed(), PipIndex(INDEX, ("http://u:p@more.example/simple",), ("more.example",)))
    assert dict(await index.known.variables(NAMES)) == {
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "http://more.example/simple",
        "PIP_TRUSTED_HOST": "more.example",
    }
    assert await index.known.variables(frozenset()) == {}


@pytest.mark.parametrize(
    "page",
    [
        OSError("no route"),
        ValueError("too large"),
        Page("https://index.example/simple/pip/", is_json=True, text="{not json"),
        Page("https://index.example/simple/pip/", is_json=True, text="[" * 100_000),
        listed("file:///etc/passwd"),
        listed("https://0x7f.1/a.whl"),
        listed(*(f"https://h{number}.example/a" for number in range(40))),
    ],
)
async def test_what_cannot_be_found_opens_nothing_and_says_why(page: Page | Exception) -> None:
    index = Index(page)
    assert await index.hosts() == set()
    problem = await index.problem()
    assert problem
    assert "word" not in problem


async def test_what_was_found_is_kept_for_a_while_and_a_failure_for_moments() -> None:
    index = Index(OSError("down"))
    assert await index.problem()
    index.page = listed()
    assert await index.problem()
    index.now += KEEP_PROBLEM_S
    assert await index.hosts() == {"index.example"}
    index.now += KEEP_S - 1
    assert await index.hosts() == {"index.example"}
    assert len(index.fetched) == 2
    index.now += 1
    await index.hosts()
    assert len(index.fetched) == 3


async def test_opening_a_session_never_waits_for_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    index, over = Index(listed()), threading.Event()
    answered = index.fetch

    def slow(url: str, is_trusted: bool) -> Page:
        over.wait(60)
        return answered(url, is_trusted)

    index.known = PackageIndex(slow, configured=lambda: index.config, clock=lambda: index.now)
    try:
        async with asyncio.timeout(5):
            for _ in range(20):
                assert "PIP_INDEX_URL" in await index.known.variables(NAMES)
        monkeypatch.setattr("sandbox.egress.packageindex.WAIT_S", 0.05)
        async with asyncio.timeout(5):
            assert "still being looked up" in await index.problem()
    finally:
        over.set()
    monkeypatch.setattr("sandbox.egress.packageindex.WAIT_S", 20)
    assert await index.hosts() == {"index.example"}
    assert len(index.fetched) == 1


async def test_what_is_old_is_told_while_what_is_new_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index, over = Index(listed()), threading.Event()
    assert await index.hosts() == {"index.example"}
    answered = index.fetch

    def slow(url: str, is_trusted: bool) -> Page:
        over.wait(60)
        return answered(url, is_trusted)

    monkeypatch.setattr(index.known, "_fetch", slow)
    monkeypatch.setattr("sandbox.egress.packageindex.WAIT_S", 0.05)
    index.now += KEEP_S
    try:
        async with asyncio.timeout(5):
            assert await index.hosts() == {"index.example"}
            assert "PIP_INDEX_URL" in await index.known.variables(NAMES)
    finally:
        over.set()
