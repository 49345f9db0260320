"""Attacks on the packages that sessions share, at a gateway with an index on loopback.

Requests come over a real link; the index is a real server that can lie.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sandbox.bulkheads.shares import Owner
from sandbox.container import images
from sandbox.egress.models import Tightening
from sandbox.egress.packageindex import NAME
from sandbox.policy import load_file
from sandbox.policy.network import AllowRule, DenyRule, NetworkLimits

from ..support.outside import Outside, policy, session
from ..support.packageindex import FakeIndex, fake_index, services, wheel
from ..support.served import sandbox

pytestmark = pytest.mark.anyio

HOST = "packages.sandbox.internal"
BASE = f"http://{HOST}/0"
FILE = "thing-1.0-py3-none-any.whl"
DATA = wheel("thing")
SERVICE = AllowRule(service="package-index")
RULES = policy(SERVICE)
EVE = Owner("eve", "s-eve")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with fake_index() as made:
        made.add("thing", FILE, DATA)
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "packages"


@pytest.fixture
async def shared(index: FakeIndex, folder: Path) -> Outside:
    made = Outside()
    known, cache = services(index, folder)
    await known.variables(frozenset({NAME}))
    made.egress = replace(made.egress, services=known, packages=cache)
    return made


async def test_a_file_that_is_not_what_its_page_says_reaches_nobody(
    shared: Outside, index: FakeIndex, folder: Path
) -> None:
    """Policy rule network: a file has the hash that the index names, or nobody gets it."""
    index.files[f"/files/{FILE}"] = wheel("thing", "6.0")
    async with session(shared, RULES) as inside, session(shared, RULES, owner=EVE) as other:
        for each in (inside, other):
            status, said = await each.open().get(f"{BASE}/thing/{FILE}")
            assert status == 502
            assert b"not what its page says" in said
    assert list(folder.iterdir()) == []
    index.files[f"/files/{FILE}"] = DATA + b"x"  # longer than the page says
    async with session(shared, RULES) as inside:
        assert (await inside.open().get(f"{BASE}/thing/{FILE}"))[0] == 502


async def test_a_file_that_was_changed_on_disk_is_not_served(
    shared: Outside, index: FakeIndex, folder: Path
) -> None:
    """Policy rule network: what is kept is verified again whenever somebody gets it."""
    async with session(shared, RULES) as inside:
        assert await inside.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)
        (kept,) = folder.iterdir()
        assert kept.name == sha256(DATA).hexdigest()
        kept.write_bytes(wheel("thing", "6.0"))
        assert await inside.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)
    assert index.count(f"/files/{FILE}") == 2


async def test_nothing_of_a_sessions_request_but_names_reaches_the_index(
    shared: Outside, index: FakeIndex
) -> None:
    """Policy rule network: a session carries nothing out in headers, queries, bodies or methods."""
    secret = "carried-out"
    async with session(shared, RULES) as inside:
        headers = (f"X-Data: {secret}", f"User-Agent: {secret}", f"Cookie: {secret}")
        assert (await inside.open().get(f"{BASE}/thing/", *headers, "X-Forwarded-Host: e"))[
            0
        ] == 200
        for path in (f"thing/?{secret}", f"thing/{FILE}?{secret}", f"thing/#{secret}"):
            assert (await inside.open().get(f"{BASE}/{path}"))[0] in (400, 403)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await inside.open().get(f"{BASE}/thing/", method=method))[0] == 403
        body = (f"Content-Length: {len(secret)}", "", secret)
        await inside.open().get(f"{BASE}/other/", *body)
    assert secret not in json.dumps(index.asked)
    assert {method for method, _, _ in index.asked} == {"GET"}


@pytest.mark.parametrize(
    "path",
    [
        *("/0/../files/x", "/0/thing/../../files/x", "/0/%2e%2e/x/", "/0/thing/%2e%2e%2fx"),
        *("//0/thing/", "/0/Thing/", "/0/thing/a/b", "/0/thing/.whl", "/1/thing/", "/99/thing/"),
        *("/simple/thing/", "/", "/0/thing", "/0/http:%2f%2fevil.example/", "/0/-r/"),
        *("/0/thing/x\\y", "/0/thing/;x", "/0/@evil.example/", "/0/thing/%00"),
    ],
)
async def test_paths_of_another_form_reach_nobody(
    shared: Outside, index: FakeIndex, path: str
) -> None:
    """Policy rule network: a path names a project and a file of its page, and nothing else."""
    await shared.egress.services.known(frozenset({NAME}))
    before = len(index.asked)
    async with session(shared, RULES) as inside:
        assert (await inside.open().get(f"http://{HOST}{path}"))[0] in (400, 403)
    assert len(index.asked) == before


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:1/x.whl", "http://169.254.169.254/latest/x.whl", "file:///etc/passwd"),
        *("ftp://127.0.0.1/x.whl", "http://evil.example/x.whl", "//evil.example/x.whl"),
    ],
)
async def test_a_page_leads_to_no_host_that_is_none_of_the_indexs(
    shared: Outside, index: FakeIndex, url: str
) -> None:
    """Policy rule network: neither links nor redirections make the controller ask other hosts."""
    other = "other-1.0-py3-none-any.whl"
    index.add("other", other, DATA, url=url)
    async with session(shared, RULES) as inside:
        assert (await inside.open().get(f"{BASE}/other/{other}"))[0] in (403, 502)
        if ":" in url.partition("//")[0]:
            index.redirects[f"/files/{FILE}"] = url
            status, said = await inside.open().get(f"{BASE}/thing/{FILE}")
            assert status == 502
            assert b"root:" not in said


async def test_what_the_rules_would_not_let_out_is_not_answered_either(
    shared: Outside, index: FakeIndex
) -> None:
    """Policy rule network: kept packages are for sessions that could fetch them now."""
    async with session(shared, RULES) as inside:
        assert (await inside.open().get(f"{BASE}/thing/{FILE}"))[0] == 200
    refused = [
        (policy(), None),
        (policy(AllowRule(domain="*.example.com", http=True)), None),
        (policy(AllowRule(domain=HOST, http=True)), None),
        (policy(AllowRule(service="package-index", ask=True)), None),
        (policy(SERVICE, deny=(DenyRule(cidr="127.0.0.0/8"),)), None),
        (RULES, Tightening(is_off=True)),
        (RULES, Tightening(deny=(DenyRule(cidr="127.0.0.1/32"),))),
    ]
    for rules, tightened in refused:
        async with session(shared, rules, tightened, owner=EVE) as inside:
            status, said = await inside.open().get(f"{BASE}/thing/{FILE}")
            assert status in (403, 502), (rules, said)
            assert DATA not in said
            assert inside.denials


async def test_packages_count_as_what_the_session_received(
    shared: Outside, index: FakeIndex
) -> None:
    """Policy rule network.limits: kept or not, packages are bytes of the session."""
    index.add("large", "large-1.0.tar.gz", b"x" * 60_000)
    small = policy(SERVICE, limits=NetworkLimits(total_bytes=100_000))
    async with session(shared, small) as inside:
        assert (await inside.open().get(f"{BASE}/large/large-1.0.tar.gz"))[0] == 200
        client = inside.open()
        await client.send(
            f"GET {BASE}/large/large-1.0.tar.gz HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        )
        assert await client.rest() == b""
        assert inside.rules == ["limits.bytes"]


async def test_a_session_that_gives_up_spoils_no_file_for_others(
    shared: Outside, index: FakeIndex, folder: Path
) -> None:
    """Policy rule network: half a download is nobody's package."""
    index.slow_s = 0.5
    async with session(shared, RULES) as inside, session(shared, RULES, owner=EVE) as other:
        client = inside.open()
        await client.send(f"GET {BASE}/thing/{FILE} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        while index.count(f"/files/{FILE}") == 0:
            await asyncio.sleep(0.01)
        client.leave()
        assert await other.open().get(f"{BASE}/thing/{FILE}") == (200, DATA)
    assert index.count(f"/files/{FILE}") == 1
    assert [path.name for path in folder.iterdir()] == [sha256(DATA).hexdigest()]


async def test_one_sessions_fetches_leave_room_for_anothers(
    shared: Outside, index: FakeIndex
) -> None:
    """Policy rule network: a session that fetches much does not hold up the others."""
    index.slow_s = 5.0
    for number in range(20):
        index.add("slow", f"slow-{number}.tar.gz", b"%d" % number)
    fast = index.add("fast", "fast-1.0.tar.gz", b"fast")
    assert fast
    async with session(shared, RULES) as inside:
        clients = [inside.open() for _ in range(20)]
        for number, client in enumerate(clients):
            url = f"{BASE}/slow/slow-{number}.tar.gz"
            await client.send(f"GET {url} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        while sum(path.startswith("/files/slow") for _, path, _ in index.asked) < 2:
            await asyncio.sleep(0.01)
        async with session(shared, RULES, owner=EVE) as other:
            async with asyncio.timeout(3):
                assert (await other.open().get(f"{BASE}/fast/"))[0] == 200
        for client in clients:
            client.leave()


def test_nothing_of_a_package_runs_while_its_image_is_built(
    index: FakeIndex, tmp_path: Path
) -> None:
    """Policy rule image: a package is unpacked and compiled, and runs in sessions alone."""
    places = ("/tree/ran", "/opt/sandbox/ran", "/build/ran", "/tmp/ran")  # inside
    starting = f"import os; [open(p, 'w') for p in {places} if os.path.isdir(os.path.dirname(p))]"
    index.add("evil", "evil-1.0-py3-none-any.whl", wheel("evil", more={"evil.pth": starting}))
    file = tmp_path / "evil.yaml"
    file.write_text("version: 1\nimage: {pip: [evil]}\n")
    env = {"PIP_INDEX_URL": index.url, "PIP_TRUSTED_HOST": "127.0.0.1"}
    built = sandbox(tmp_path, "image", "build", "--policy", str(file), **env)
    chain = images.chain(load_file(file).image)[-2:]
    try:
        assert built.returncode == 0, built.stderr
        run = ("docker", "run", "--rm", "--network=none", "--user=0", chain[-1].reference)
        look = "ls -d /ran /tree /build /opt/sandbox/ran /tmp/ran 2>/dev/null; echo; python3 -c 1; "
        found = subprocess.run(
            [*run, "sh", "-c", f"{look} ls /tmp/ran"], capture_output=True, text=True, check=True
        )
        assert found.stdout.split() == ["/tmp/ran"]  # only by the Python run now
    finally:
        for recipe in chain:
            subprocess.run(["docker", "image", "rm", recipe.reference], capture_output=True)
