"""What a session can do to others, and to the controller, by being forked."""

from __future__ import annotations

import pickle
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.egress.models import Tightening
from sandbox.errors import NotFound, SandboxError
from sandbox.kernels import carrying
from sandbox.link.link import Link
from sandbox.sessions import forking
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller
from sandbox.workspaces import archive

from ..support.controllers import run, shell, text_of
from .conftest import RUNTIME
from .test_volumes import hostile_archive

ADA = Caller("ada")

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def _controlling(tmp_path: Path) -> AsyncIterator[SessionManager]:
    settings = Settings(state_dir=tmp_path / "state", runtime=RUNTIME)  # type: ignore[arg-type]
    async with controller(settings, "run") as manager:
        yield manager


@pytest.fixture
async def forker(tmp_path: Path) -> AsyncIterator[SessionManager]:
    """A controller of this test's own."""
    async with _controlling(tmp_path) as manager:
        yield manager


class Bomb:
    """Makes a file where it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({str(self.marker)!r}, 'w')",)


async def test_what_a_pickle_runs_it_runs_in_the_fork(
    forker: SessionManager, tmp_path: Path
) -> None:
    """Invariant 3: the controller never unpickles."""
    tmp_path.chmod(0o777)
    session = await forker.open(ADA)
    bomb = f"open('/tmp/loaded', 'a'); __import__('os').path.isdir({str(tmp_path)!r}) and open("
    bomb += f"{str(tmp_path / 'loaded')!r}, 'w')"
    code = f"class Bomb:\n    def __reduce__(self): return exec, ({bomb!r},)\nbomb = Bomb()"
    assert (await run(session, code)).status == "ok"
    found = await forker.forks.fork(ADA, session.session_id)
    other = await forker.get(ADA, found.sessions[0].session_id)
    look = "import os; print(os.path.exists('/tmp/loaded'))"
    assert text_of(await run(other, look)) == "True\n"
    assert text_of(await run(session, look)) == "False\n"
    assert not (tmp_path / "loaded").exists()


async def test_variables_that_lie_reach_nothing_outside_the_fork(
    forker: SessionManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: whatever a supervisor gives as variables is bytes to the controller."""
    tmp_path.chmod(0o777)
    session = await forker.open(ADA)

    async def lie(
        _link: Link, _kernel: str, _most: int, sink: Callable[[bytes], Awaitable[None]]
    ) -> None:
        await sink(pickle.dumps(Bomb(tmp_path / "loaded")))

    await run(session, "kept = 1")
    monkeypatch.setattr(forking, "carry_out", lie)
    found = await forker.forks.fork(ADA, session.session_id)
    (state,) = found.sessions[0].kernels
    assert (state.carried, bool(state.problem)) == ((), True)
    assert not (tmp_path / "loaded").exists()
    assert text_of(await run(session, "print(kept)")) == "1\n"


def test_the_controllers_half_of_forks_reads_neither_pickles_nor_archives() -> None:
    """Invariant 3: none of its modules can."""
    for module in (forking, carrying, archive):
        text = Path(str(module.__file__)).read_text()
        assert not [word for word in ("import pickle", "tarfile", "marshal") if word in text]


async def test_files_that_lie_reach_nothing_outside_the_fork(
    forker: SessionManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: the controller extracts nothing, and tar inside is the fork's own uid."""
    target = tmp_path / "target"
    target.mkdir()
    target.chmod(0o777)
    session = await forker.open(ADA)
    async with session.use():
        await session.files.write("made-up.tar", hostile_archive(target))
    monkeypatch.setattr(forking, "COPY", ("/bin/cat", "/workspace/made-up.tar"))
    with pytest.raises(SandboxError):
        await forker.forks.fork(ADA, session.session_id)
    assert list(target.iterdir()) == []
    assert [info.session_id for info in forker.list(ADA)] == [session.session_id]
    assert (await shell(session, "ls")).stdout == "made-up.tar\n"


async def test_files_without_an_end_stop_at_their_bound(
    forker: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: neither memory nor time of the controller is without a bound."""
    session = await forker.open(ADA)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(forking, "COPY", ("/bin/cat", "/dev/zero"))
    monkeypatch.setattr(forking, "PASTE", ("/bin/sh", "-c", "cat > /dev/null"))
    with pytest.raises(SandboxError, match="More came of the files"):
        await forker.forks.fork(ADA, session.session_id)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024
    assert [info.session_id for info in forker.list(ADA)] == [session.session_id]


async def test_a_fork_gets_back_nothing_of_the_network(forker: SessionManager) -> None:
    """Invariant 5: what was taken is taken for good."""
    session = await forker.open(ADA)
    await forker.tighten(ADA, session.session_id, Tightening.of("none", ()))
    found = await forker.forks.fork(ADA, session.session_id)
    other = await forker.get(ADA, found.sessions[0].session_id)
    assert other.network.tightened == session.network.tightened
    assert other.info().network.is_tightened


async def test_a_foreign_session_is_not_forked(forker: SessionManager) -> None:
    """Invariant 6: a foreign id and an absent one have the same answer."""
    session = await forker.open(ADA)
    told: list[str] = []
    for session_id in (session.session_id, "s-absent"):
        with pytest.raises(NotFound) as refused:
            await forker.forks.fork(Caller("mallory"), session_id)
        told.append(str(refused.value).replace(session_id, "ID"))
    assert told[0] == told[1]
