from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import NotFound, PolicyError, SandboxError
from sandbox.policy import LivePolicies, load

from ...support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[SandboxError | None]:
    return []


@pytest.fixture
def live(tmp_path: Path, clock: Clock, told: list[SandboxError | None]) -> LivePolicies:
    (tmp_path / "a.yaml").write_text("version: 1\nlimits: {pids: 100}\n")
    return LivePolicies(
        lambda: load(tmp_path, default="a"), [tmp_path], changed=told.append, clock=clock
    )


def edit(folder: Path, clock: Clock, text: str, name: str = "a") -> None:
    (folder / f"{name}.yaml").write_text(text)
    clock.now += 5


def test_an_edited_policy_is_read_again(
    live: LivePolicies, tmp_path: Path, clock: Clock, told: list[SandboxError | None]
) -> None:
    before = live.get("a")
    edit(tmp_path, clock, "version: 1\nlimits: {pids: 50}\n")
    assert live.get("a").limits.pids == 50
    assert before.limits.pids == 100  # who has it goes on under it
    assert told == [None]


def test_a_policy_may_be_added_and_removed(
    live: LivePolicies, tmp_path: Path, clock: Clock
) -> None:
    edit(tmp_path, clock, "version: 1\nextends: a\n", name="b")
    assert live.names() == ["a", "b"]
    (tmp_path / "b.yaml").unlink()
    clock.now += 5
    assert live.names() == ["a"]


def test_a_mistake_keeps_the_last_good_set_and_is_told(
    live: LivePolicies, tmp_path: Path, clock: Clock, told: list[SandboxError | None]
) -> None:
    edit(tmp_path, clock, "version: 1\nlimits: {pidz: 50}\n")
    assert live.get("a").limits.pids == 100
    assert isinstance(live.problem, PolicyError)
    assert live.problem.key == "limits.pidz"
    assert told == [live.problem]
    with pytest.raises(NotFound) as caught:
        live.get("new")
    assert "limits.pidz" in caught.value.remedy
    edit(tmp_path, clock, "version: 1\nlimits: {pids: 51}\n")
    assert live.get("a").limits.pids == 51
    assert live.problem is None


def test_files_are_not_looked_at_with_every_call(
    live: LivePolicies, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "a.yaml").write_text("version: 1\nlimits: {pids: 50}\n")
    assert live.get("a").limits.pids == 100
    clock.now += 5
    assert live.get("a").limits.pids == 50


def test_a_wrong_policy_at_the_start_keeps_the_controller_from_starting(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("version: 2\n")
    with pytest.raises(PolicyError):
        LivePolicies(lambda: load(tmp_path, default="a"), [tmp_path])
