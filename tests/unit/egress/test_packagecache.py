"""Packages that all sessions of a controller share, through a session's gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.bulkheads.shares import Owner
from sandbox.egress import packagecache
from sandbox.egress.machine import outfit
from sandbox.egress.packagecache import FRESH_S, NoSuchPackage
from sandbox.egress.packageindex import KEEP_S
from sandbox.pipindex import PipIndex
from sandbox.policy.network import AllowRule, NetworkLimits

from ...support.clock import Clock
from ...support.outside import Outside, policy, session
from ...support.packageindex import FakeIndex, fake_index, services, wheel

pytestmark = pytest.mark.anyio

BASE = "http://packages.sandbox.internal/0"
FILE = "thing-1.0-py3-none-any.whl"
RULES = policy(AllowRule(service="package-index"))
DATA = wheel("thing")
EVE = Owner("eve", "s-eve")


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with fake_index() as made:
        made.add("thing", FILE, DATA)
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def shared(index: FakeIndex, tmp_path: Path, clock: Clock) -> Outside:
    """A world with this index, of which all sessions share what one has fetched."""
    made = Outside()
    known, cache = services(index, tmp_path / "packages", clock=clock)
    await known.variables(frozenset({"package-index"}))
    made.egress = replace(made.egress, services=known, packages=cache)
    return made


async def test_a_page_and_a_file_come_from_the_index(shared: Outside, index: FakeIndex) -> None:
    async with session(shared, RULES) as inside:
        status, page = await inside.open().get(f"{BASE}/thing/")
        assert (status, json.loads(page)["files"][0]["url"]) == (200, FILE)
        assert await inside.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)
        told = inside.gateway.info()
    assert told.connections == 2
    assert told.received_bytes == len(page) + len(DATA)
    assert told.denials == ()
    assert {seen.rule for seen in shared.seen} == {"allow[0] service package-index"}
    assert [seen.host for seen in shared.seen] == ["packages.sandbox.internal"] * 2


async def test_a_second_session_gets_the_file_without_a_request(
    shared: Outside, index: FakeIndex
) -> None:
    for owner in (EVE, Owner("ada", "s-other")):
        async with session(shared, RULES, owner=owner) as inside:
            assert await inside.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)
    assert index.count(f"/files/{FILE}") == 1
    assert index.count("/simple/thing/") == 1


async def test_sessions_that_ask_at_once_fetch_once(shared: Outside, index: FakeIndex) -> None:
    index.slow_s = 0.3
    async with session(shared, RULES) as inside, session(shared, RULES, owner=EVE) as other:
        got = await asyncio.gather(
            *(each.open().get(f"{BASE}/thing/{FILE}") for each in (inside, other, inside, other))
        )
    assert got == [(200, DATA)] * 4
    assert index.count(f"/files/{FILE}") == 1


async def test_a_page_is_asked_for_anew_only_when_it_is_old_and_only_if_it_changed(
    shared: Outside, index: FakeIndex, clock: Clock
) -> None:
    async with session(shared, RULES) as inside:
        await inside.open().get(f"{BASE}/thing/")
        clock.now += FRESH_S + 1
        assert (await inside.open().get(f"{BASE}/thing/"))[0] == 200
        assert "If-None-Match" in index.asked[-1][2]
        index.add("thing", "thing-2.0-py3-none-any.whl", wheel("thing", "2.0"))
        _, page = await inside.open().get(f"{BASE}/thing/")
        assert len(json.loads(page)["files"]) == 1
        clock.now += FRESH_S + 1
        _, page = await inside.open().get(f"{BASE}/thing/")
        assert len(json.loads(page)["files"]) == 2
    assert index.count("/simple/thing/") == 3


@pytest.mark.parametrize("path", ["absent/", "thing/absent-1.0.whl"])
async def test_what_the_index_does_not_have_is_not_found(shared: Outside, path: str) -> None:
    async with session(shared, RULES) as inside:
        assert (await inside.open().get(f"{BASE}/{path}"))[0] == 404
        assert inside.denials == ()


async def test_head_answers_the_size_alone(shared: Outside) -> None:
    async with session(shared, RULES) as inside:
        assert await inside.open().get(f"{BASE}/thing/", method="HEAD") == (200, b"")
        assert await inside.open().get(f"{BASE}/thing/{FILE}", method="HEAD") == (200, b"")


async def test_a_file_whose_download_fails_is_told_and_tried_again(
    shared: Outside, index: FakeIndex
) -> None:
    kept = index.files.pop(f"/files/{FILE}")
    async with session(shared, RULES) as inside:
        status, said = await inside.open().get(f"{BASE}/thing/{FILE}")
        assert status == 502
        assert b"it answers 404" in said
        assert inside.rules == ["unreachable"]
        index.files[f"/files/{FILE}"] = kept
        assert await inside.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)


async def test_an_index_that_names_no_url_or_does_not_speak_http_is_told_as_unreachable(
    shared: Outside, index: FakeIndex
) -> None:
    spaced = f"http://127.0.0.1:{index.port}/files/with a space"
    index.add("spaced", "spaced-1.0-py3-none-any.whl", b"x", url=spaced)
    index.raw["/simple/broken/"] = b"no HTTP at all\r\n\r\n"
    index.raw["/simple/short/"] = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\nshort"
    )
    async with session(shared, RULES) as inside:
        for path in ("spaced/spaced-1.0-py3-none-any.whl", "broken/", "short/"):
            status, said = await inside.open().get(f"{BASE}/{path}")
            assert status == 502
            assert b"as HTTP wants" in said
        assert inside.rules == ["unreachable"] * 3
        assert await inside.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)


async def test_an_old_page_is_read_anew_also_when_others_have_to_make_room_for_it(
    shared: Outside, index: FakeIndex, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("other", "other-1.0-py3-none-any.whl", DATA)
    async with session(shared, RULES) as inside:
        _, page = await inside.open().get(f"{BASE}/thing/")
        _, other = await inside.open().get(f"{BASE}/other/")
        clock.now += FRESH_S + 1
        monkeypatch.setattr(packagecache, "MAX_PAGES_BYTES", len(page) + len(other) - 1)
        assert await inside.open().get(f"{BASE}/thing/") == (200, page)


async def test_an_index_that_is_configured_no_longer_has_nothing(
    index: FakeIndex, tmp_path: Path, clock: Clock
) -> None:
    with fake_index() as other:
        other.add("thing", FILE, DATA)
        urls = [index.url, other.url]
        known, cache = services(
            index, tmp_path, clock=clock, configured=lambda: PipIndex(urls[0], tuple(urls[1:]))
        )
        await known.known(frozenset({"package-index"}))
        file = (await cache.page(1, "thing", EVE)).files[FILE]
        urls[:] = [other.url]
        clock.now += KEEP_S + 1
        await known.known(frozenset({"package-index"}))
        for asked in (cache.page(1, "thing", EVE), cache.file(1, file, EVE)):
            with pytest.raises(NoSuchPackage):
                await asked
        index.add("thing", "thing-2.0-py3-none-any.whl", DATA)
        assert list((await cache.page(0, "thing", EVE)).files) == [FILE]


async def test_a_file_larger_than_the_cache_is_not_fetched(
    index: FakeIndex, tmp_path: Path
) -> None:
    made = Outside()
    known, cache = services(index, tmp_path, limit_bytes=len(DATA) - 1)
    await known.variables(frozenset({"package-index"}))
    made.egress = replace(made.egress, services=known, packages=cache)
    async with session(made, RULES) as inside:
        status, said = await inside.open().get(f"{BASE}/thing/{FILE}")
    assert status == 502
    assert b"package_cache_bytes" in said
    assert index.count(f"/files/{FILE}") == 0


async def test_programs_inside_are_told_to_ask_the_gateway(shared: Outside) -> None:
    given = (await outfit(shared.egress, RULES)).variables
    assert given == {
        "PIP_INDEX_URL": f"{BASE}/",
        "PIP_TRUSTED_HOST": "packages.sandbox.internal",
        "UV_DEFAULT_INDEX": f"{BASE}/",
    }


async def test_programs_under_a_rule_that_asks_a_person_ask_the_index_itself(
    shared: Outside, index: FakeIndex
) -> None:
    asking = policy(AllowRule(service="package-index", ask=True))
    given = (await outfit(shared.egress, asking)).variables
    assert given == {"PIP_INDEX_URL": index.url}


async def test_a_file_beyond_the_sessions_bytes_is_not_fetched(
    shared: Outside, index: FakeIndex
) -> None:
    index.add("large", "large-1.0-py3-none-any.whl", b"x" * 200_000)
    small = policy(AllowRule(service="package-index"), limits=NetworkLimits(total_bytes=128 * 1024))
    async with session(shared, small) as inside:
        client = inside.open()
        await client.send(
            f"GET {BASE}/large/large-1.0-py3-none-any.whl HTTP/1.1\r\n"
            "Host: packages.sandbox.internal\r\n\r\n".encode()
        )
        assert await client.rest() == b""
        assert inside.rules == ["limits.bytes"]
    assert index.count("/files/large-1.0-py3-none-any.whl") == 0
