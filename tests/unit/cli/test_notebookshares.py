"""`sandbox notebook share` and `unshare`, with a server that is there."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from sandbox import resources
from sandbox.cli import exits
from sandbox.policy import load

from ...support import commandline
from ...support.roomserver import PATH, TOKEN, RoomServer, bearing, room_server

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RoomServer]:
    async with room_server(tmp_path, load(resources.policies())) as running:
        yield running


@pytest.fixture
def run(server: RoomServer, tmp_path: Path) -> Run:
    """Run a command of `sandbox notebook` with that server."""
    env = {"SANDBOX_STATE_DIR": str(tmp_path / "mine"), "HOME": str(tmp_path)}
    env["SANDBOX_TOKEN"] = TOKEN
    base = f"http://127.0.0.1:{server.port}"

    async def ran(*words: str) -> subprocess.CompletedProcess[str]:
        work = partial(commandline.run, "notebook", *words, "--url", base, env=env)
        return await anyio.to_thread.run_sync(work)

    return ran


async def test_a_share_is_printed_with_its_address_and_how_it_is_opened_and_taken_back(
    server: RoomServer, run: Run
) -> None:
    done = await run("share", server.session_id, PATH, "--for", "2h", "--name", "Grace")
    assert done.returncode == exits.OK, done.stderr
    (share,) = server.tokens.shares("local")
    assert share.notebook is not None
    assert share.notebook.path == f"/workspace/{PATH}"
    assert share.application == "Grace"
    assert share.expires_at == pytest.approx(share.created_at + 7200)
    url, _, *told = done.stdout.splitlines()
    place, _, token = url.partition("?token=")
    assert place == (f"http://127.0.0.1:{server.port}/jupyter/{server.session_id}/lab/tree/{PATH}")
    me = await server.call("GET", f"/jupyter/{server.session_id}/api/me", bearing(token))
    assert me.json()["identity"]["name"] == "Grace (guest)"
    assert told[0].startswith("To read, until ")
    assert "sandbox lab" in told[0]
    assert f"sandbox notebook unshare {server.session_id} {share.token_id}" in told[1]


@pytest.mark.parametrize("edit", [False, True])
async def test_a_program_reads_a_share_as_json(server: RoomServer, run: Run, edit: bool) -> None:
    words = ["--edit"] if edit else []
    done = await run("share", server.session_id, PATH, "--json", *words)
    found = json.loads(done.stdout)
    assert (found["edit"], found["name"]) == (edit, "guest")
    assert found["expires_at"] == pytest.approx(found["created_at"] + 3600)
    assert found["url"].endswith(f"?token={found['token']}")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((PATH, "--for", "soon"), exits.USAGE),
        ((PATH, "--for", "60d"), exits.USAGE),
        ((PATH, "--name", "<b>"), exits.USAGE),
        (("absent.ipynb",), None),
    ],
)
async def test_what_cannot_be_shared_is_refused_and_nothing_is(
    server: RoomServer, run: Run, words: tuple[str, ...], code: int | None
) -> None:
    done = await run("share", server.session_id, *words)
    assert done.returncode == code if code is not None else done.returncode != exits.OK
    assert done.stdout == ""
    assert done.stderr
    assert server.tokens.shares("local") == []


async def test_one_share_is_taken_back_or_all_of_a_session(server: RoomServer, run: Run) -> None:
    shares = [await server.share(name=name) for name in ("a", "b", "c")]
    ids = [each["token_id"] for each in shares]
    done = await run("unshare", server.session_id, ids[1])
    assert done.returncode == exits.OK, done.stderr
    assert f"took back {ids[1]} of /workspace/{PATH}" in done.stdout
    assert {each.token_id for each in server.tokens.shares("local")} == {ids[0], ids[2]}
    done = await run("unshare", server.session_id)
    assert all(each in done.stdout for each in (ids[0], ids[2]))
    assert server.tokens.shares("local") == []
    for each in shares:
        url = f"/jupyter/{server.session_id}/api/me"
        assert (await server.call("GET", url, bearing(each["token"]))).status_code == 401
    done = await run("unshare", server.session_id)
    assert (done.returncode, done.stdout) == (
        exits.OK,
        "Nothing of the session is shared.\n",
    )


async def test_a_share_that_is_none_is_not_taken_back(server: RoomServer, run: Run) -> None:
    share = await server.share()
    done = await run("unshare", server.session_id, "0" * 12)
    assert done.returncode != exits.OK
    assert "no such share" in done.stderr
    assert [each.token_id for each in server.tokens.shares("local")] == [share["token_id"]]
