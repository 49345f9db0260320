from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.policy import Limits, MountRule, Policy, cautions, cautions_of, load
from sandbox.resources import policies

READY = load(policies())


@pytest.mark.parametrize("name", READY.names())
def test_no_ready_policy_needs_a_caution(name: str) -> None:
    assert cautions(READY.get(name)) == []


def test_the_open_files_of_a_session_as_a_whole_are_told() -> None:
    (told,) = cautions(Policy(name="p", limits=Limits(pids=512, open_files=4096)))
    assert told.startswith("limits.open_files: ")
    assert "2,097,152" in told


def test_sockets_that_code_may_speak_to_are_told() -> None:
    mounts = (
        MountRule(root="a", target="/data/a"),
        MountRule(root="b", target="/data/b", sockets="allow"),
    )
    (told,) = cautions(Policy(name="p", mounts=mounts))
    assert told.startswith("mounts.1.sockets: ")


def test_cautions_of_a_file_are_of_what_it_comes_to(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("version: 1\nlimits: {open_files: 2048}\n")
    assert len(cautions_of(tmp_path / "p.yaml")) == 1
    (tmp_path / "p.yaml").write_text("version: 1\nlimits: {open_fils: 2048}\n")
    assert cautions_of(tmp_path / "p.yaml") == []
