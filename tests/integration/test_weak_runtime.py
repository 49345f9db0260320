"""An engine whose inspection is honest, with a runtime that is not: only the probe can tell.

The engine is one of these tests' own, beside the machine's: the same program with folders and a
network of its own, and a ``runc`` of ours before the real one in its PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.cli import exits
from sandbox.container.checks import NotProved
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.models import Caller

from ..support import weakrunc
from ..support.controllers import Controllers
from ..support.ownengine import own_engine
from ..support.served import RUNTIME, sandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(RUNTIME != "runc", reason="it is runc that is weakened"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an engine"),
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="the engine is not of this machine"),
]


@dataclass(frozen=True)
class WeakEngine:
    """An engine of our own: its address, and the folder of its runtime."""

    url: str
    bin: Path

    def leave_out(self, weakening: str) -> None:
        """Say what its runtime leaves out from now on; empty for nothing."""
        (self.bin / "weakening").write_text(weakening)


@pytest.fixture(scope="module")
def weak() -> Iterator[WeakEngine]:
    # Not below pytest's own folders: the path of a socket has at most 107 bytes.
    folder = Path(f"/tmp/weak-engine-{os.getpid()}")
    (folder / "bin").mkdir(parents=True)
    weak = WeakEngine(f"unix://{folder}/sock", folder / "bin")
    weak.leave_out("")
    (folder / "bin" / "real").symlink_to(shutil.which("runc") or "")
    runc = folder / "bin" / "runc"
    runc.write_text(f"#!{sys.executable} -S\n{Path(weakrunc.__file__).read_text()}")
    runc.chmod(0o755)
    with own_engine(folder, env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}):
        yield weak


@pytest.fixture
async def controllers(weak: WeakEngine, tmp_path: Path) -> AsyncIterator[Controllers]:
    """Controllers on that engine; nothing of theirs may be left at the end."""
    engine = DockerRuntime.connect_engine(host=weak.url)
    made = Controllers(engine, tmp_path / "state", RUNTIME)
    yield made
    weak.leave_out("")
    left = await made.remove_all()
    await engine.aclose()
    assert not left


@pytest.mark.parametrize("weakening", weakrunc.WEAKENINGS)
async def test_a_runtime_that_does_less_than_its_engine_says_is_caught_by_the_probe(
    weak: WeakEngine, controllers: Controllers, weakening: str
) -> None:
    """Invariant 4, where the engine's word is right and the container is not."""
    weak.leave_out(weakening)
    async with controllers.running() as manager:
        with pytest.raises(NotProved) as caught:
            await manager.open(Caller("ada"), policy="offline")
        assert manager.list(Caller("ada")) == []
    failed = {check.name for check in caught.value.checks if not check.ok}
    if caught.value.is_measured:  # the inspection found nothing
        assert weakrunc.WEAKENINGS[weakening][1] in failed
    else:  # the host was quicker to say so, which is looked at meanwhile
        assert weakrunc.WEAKENINGS[weakening][1] in ("memory_limit", "pids_limit")
        assert len(failed & {"host.memory", "host.pids"}) == len(failed) == 1


async def test_the_same_engine_with_an_honest_runtime_is_accepted(
    weak: WeakEngine, controllers: Controllers
) -> None:
    """Otherwise the refusals above would say nothing of what was left out."""
    weak.leave_out("")
    async with controllers.running() as manager:
        session = await manager.open(Caller("ada"), policy="offline")
        assert (await manager.close(Caller("ada"), session.session_id)).state == "closed"


@pytest.mark.parametrize(
    ("weakening", "code"), [("", exits.OK), ("no seccomp filter", exits.FAILED)]
)
def test_verify_fails_where_the_runtime_ignores_seccomp(
    weak: WeakEngine, tmp_path: Path, weakening: str, code: int
) -> None:
    """Invariant 4, on demand."""
    weak.leave_out(weakening)
    state = tmp_path / "state"
    words = ("verify", "--policy", "offline", "--json", "--engine", weak.url)
    done = sandbox(state, *words)
    weak.leave_out("")
    assert done.returncode == code, done.stderr
    (verdict,) = json.loads(done.stdout)
    assert verdict["ok"] == (code == exits.OK)
    wrong = {row["name"] for row in verdict["rows"] if not row["ok"]}
    assert ("seccomp_mode" in wrong) == (code == exits.FAILED)
