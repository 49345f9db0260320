"""One session more than the host has memory for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import QuotaExceeded
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions.capacity import IDLE_BYTES, Capacity
from sandbox.sessions.models import Caller

from .controllers import Controllers, run

GIB = 1024**3
MIB = 1024**2
ADA = Caller("ada")


def engine(memory_bytes: int = 8 * GIB) -> EngineInfo:
    return EngineInfo("e", "1", "1", 2, ("runc",), True, "x86_64", memory_bytes, 2)


def machine(proc: Path, free_bytes: int) -> Path:
    """A /proc of a machine with 8 GiB, of which so much is free."""
    told = f"MemTotal: {8 * GIB // 1024} kB\nMemAvailable: {free_bytes // 1024} kB\n"
    (proc / "meminfo").write_text(told)
    return proc


def test_what_fits_is_what_is_free_beside_what_is_kept(tmp_path: Path) -> None:
    capacity = Capacity(512 * MIB, machine(tmp_path, 512 * MIB + 3 * IDLE_BYTES))
    assert capacity.room(engine()) == 3
    capacity.check(engine(), 2, [])
    with pytest.raises(QuotaExceeded):
        capacity.check(engine(), 3, [])
    machine(tmp_path, 100 * MIB)
    assert capacity.room(engine()) == 0


def test_nothing_is_refused_where_the_engines_host_is_another_machine(tmp_path: Path) -> None:
    capacity = Capacity(512 * MIB, machine(tmp_path, 0))
    assert capacity.room(engine(16 * GIB)) is None
    capacity.check(engine(16 * GIB), 100, [])
    assert Capacity(512 * MIB, tmp_path / "absent").room(engine()) is None


@pytest.mark.parametrize(
    ("ends_in_s", "again_s"), [([], 60), ([300.0, 20.7], 20), ([0.3], 5), ([9000.0], 60)]
)
def test_who_is_refused_is_told_the_figures_and_when_to_try_again(
    tmp_path: Path, ends_in_s: list[float], again_s: int
) -> None:
    capacity = Capacity(512 * MIB, machine(tmp_path, 540 * MIB))
    with pytest.raises(QuotaExceeded) as refused:
        capacity.check(engine(), 0, ends_in_s)
    assert "540MiB" in refused.value.message
    assert "512MiB" in refused.value.message
    assert f"in {again_s} s" in refused.value.remedy


@pytest.mark.anyio
async def test_no_session_is_opened_without_memory_and_those_that_are_open_go_on(
    controllers: Controllers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Capacity.__init__, "__defaults__", (tmp_path,))
    async with controllers.running() as manager:
        session = await manager.open(ADA)
        machine(tmp_path, 100 * MIB)
        before = controllers.container_ids()
        with pytest.raises(QuotaExceeded, match="at capacity"):
            await manager.open(ADA, reuse=False)
        assert controllers.container_ids() == before
        assert await manager.open(ADA) is session
        assert (await run(session, "1 + 1")).status == "ok"
        machine(tmp_path, 4 * GIB)
        assert await manager.open(ADA, reuse=False) is not session
