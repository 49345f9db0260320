"""A sandbox that was ready before it was asked for is nobody's until then, and has no past."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.errors import NotPermitted
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

from ..support.controllers import Controllers
from ..support.served import RUNTIME
from ..support.waiting import until

ADA = Caller("ada")
EVE = Caller("eve")
KEPT = """\
version: 1
extends: offline
pool: {min: 3, max: 3}
"""
LOOK = """
import hashlib, json, os, random, sys, time
def inside(root):
    return sorted(os.path.join(at, name) for at, folders, files in os.walk(root)
                  for name in (*folders, *files))
def programs():
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            found.append(open(f'/proc/{pid}/cmdline').read().split('\\0')[0].rpartition('/')[2])
        except OSError:
            pass
    return sorted(found)
print(json.dumps({
    'environment': dict(os.environ),
    'uid': os.getuid(),
    'clock': time.time(),
    'workspace': inside('/workspace'),
    'tmp': inside('/tmp'),
    'shm': inside('/dev/shm'),
    'home': inside(os.path.expanduser('~')),
    'secrets': inside('/run/secrets'),
    'programs': programs(),
    'history': [each for each in get_ipython().history_manager.input_hist_raw[:-1] if each],
    'names': sorted(name for name in globals() if not name.startswith('_')),
    'random': random.random(),
    'hash': hash('seeded'),
    'count': get_ipython().execution_count,
}))
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[SessionManager]:
    engine = DockerRuntime.connect_engine()
    controllers = Controllers(engine, tmp_path / "state", RUNTIME)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "kept.yaml").write_text(KEPT)
    controllers.policies = [folder]
    async with controllers.running(pool=True) as manager:
        await until(lambda: any(info.ready == 3 for info in manager.pool.infos()), 60)
        yield manager
    assert await controllers.containers() == []
    await engine.aclose()


async def looked(session: Session) -> dict[str, Any]:
    async with session.use():
        execution = await session.kernels.execute(LOOK)
        result = await execution.wait(60)
    assert result.status == "ok", result
    return json.loads(result.outputs[0]["text"])


async def test_one_that_waited_looks_like_one_that_was_made_for_its_session(
    manager: SessionManager,
) -> None:
    """Invariant 7: nothing tells that it waited, nor what for."""
    waited = await manager.open(ADA, policy="kept", reuse=False)
    assert waited.info().was_ready
    manager.pool.keeps = lambda _policy: False  # type: ignore[method-assign]
    made = await manager.open(ADA, policy="kept", reuse=False)
    assert not made.info().was_ready
    before = time.time()
    ours, theirs = await looked(waited), await looked(made)
    for each in (ours, theirs):
        assert before - 1 < each.pop("clock") < time.time() + 1
    assert ours.pop("uid") == waited.claim.uid
    assert theirs.pop("uid") == made.claim.uid
    assert ours.pop("random") != theirs.pop("random")
    assert ours.pop("hash") != theirs.pop("hash")
    own = {"HOSTNAME"}
    assert {key: said for key, said in ours.pop("environment").items() if key not in own} == {
        key: said for key, said in theirs.pop("environment").items() if key not in own
    }
    assert ours == theirs


async def test_sessions_of_two_principals_share_nothing_of_the_pool(
    manager: SessionManager,
) -> None:
    """Invariant 7: each is one session's, and of one principal."""
    of_ada = await manager.open(ADA, policy="kept")
    of_eve = await manager.open(EVE, policy="kept")
    assert of_ada.info().was_ready
    assert of_eve.info().was_ready
    assert of_ada.container_id != of_eve.container_id
    ada, eve = await looked(of_ada), await looked(of_eve)
    assert ada["uid"] != eve["uid"]
    assert ada["random"] != eve["random"]
    assert ada["hash"] != eve["hash"]


async def test_nothing_leaves_one_that_nobody_has(manager: SessionManager) -> None:
    """Invariant 1: without a claim there is no way out at all."""
    nobodys = next(iter(manager.pool._waiting.values()))
    with pytest.raises(NotPermitted, match="Nobody has this sandbox yet"):
        await nobodys._serve(None)  # type: ignore[arg-type]


async def test_one_claim_is_all_that_one_can_have(manager: SessionManager) -> None:
    """Invariant 7: it has left the pool, and the journal says whose it is."""
    session = await manager.open(ADA, policy="kept")
    assert not manager.pool.has(session.claim.sandbox_id)
    row = manager._services.journal.of_sandbox(session.claim.sandbox_id)
    assert row is not None
    assert row.principal == "ada"
