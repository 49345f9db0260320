"""An engine whose inspection is honest, with a runtime that is not: only the probe can tell.

The engine is one of these tests' own, beside the machine's: the same program with folders and a
network of its own, and a ``runc`` of ours before the real one in its PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.cli import exits
from sandbox.container import images
from sandbox.container.checks import NotProved
from sandbox.policy import load
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.models import Caller

from ..support import weakrunc
from ..support.controllers import Controllers
from ..support.served import RUNTIME, sandbox

START_TIMEOUT_S = 60
IMAGE = images.reference(load().get("offline").image)

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
    engine = WeakEngine(f"unix://{folder}/sock", folder / "bin")
    engine.leave_out("")
    (folder / "bin" / "real").symlink_to(shutil.which("runc") or "")
    (folder / "daemon.json").write_text("{}")  # not the machine's own
    runc = folder / "bin" / "runc"
    runc.write_text(f"#!{sys.executable} -S\n{Path(weakrunc.__file__).read_text()}")
    runc.chmod(0o755)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                # In a network of its own, for an engine without a bridge takes down the bridge
                # of any other.
                *(
                    "unshare",
                    "--net",
                    "dockerd",
                    "--host",
                    engine.url,
                    "--data-root",
                    folder / "data",
                ),
                *("--exec-root", folder / "exec", "--pidfile", folder / "pid"),
                *("--config-file", folder / "daemon.json", "--bridge", "none"),
                *("--iptables=false", "--ip-masq=false"),
            ],
            env={**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        _load_image(engine.url, process, folder / "log")
        yield engine
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)
        shutil.rmtree(folder)


def _load_image(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    ask = ["docker", "--host", url, "info"]
    while subprocess.run(ask, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline or process.poll() is not None:
            raise AssertionError(f"no engine of our own:\n{log.read_text(errors='replace')}")
        time.sleep(0.1)
    with subprocess.Popen(["docker", "save", IMAGE], stdout=subprocess.PIPE) as saving:
        loaded = subprocess.run(
            ["docker", "--host", url, "load"], stdin=saving.stdout, capture_output=True, check=False
        )
    assert saving.returncode == 0
    assert loaded.returncode == 0, loaded.stderr


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
    assert caught.value.is_measured  # the inspection found nothing
    assert weakrunc.WEAKENINGS[weakening][1] in {
        check.name for check in caught.value.checks if not check.ok
    }


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
