"""What a controller puts on record of itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.audit import verify
from sandbox.audit.chain import read_line
from sandbox.audit.logfiles import lines, segments
from sandbox.config import Settings
from sandbox.errors import ConfigError
from sandbox.policy import LivePolicies, load
from sandbox.sessions.auditing import controller_log
from sandbox.sessions.slots import take_slot

RIGHT = "version: 1\ndescription: {}\n"


def told(folder: Path) -> list[dict[str, Any]]:
    return [read_line(data).values for path in segments(folder) for data in lines(path)]


def test_policies_that_are_edited_are_on_record_also_when_they_are_refused(tmp_path: Path) -> None:
    own = tmp_path / "policies"
    own.mkdir()
    file = own / "mine.yaml"
    file.write_text(RIGHT.format("one"))
    now = [0.0]
    policies = LivePolicies(lambda: load(own, default="mine"), [own], clock=lambda: now[0])
    state = tmp_path / "state"
    with take_slot(state, "serve") as slot:
        with controller_log(slot, Settings(state_dir=state), policies, time.time) as log:
            before = policies.digest
            for text in (RIGHT.format("twenty-two"), "version: 7\n", RIGHT.format("one")):
                file.write_text(text)
                now[0] += 10
                policies.refresh()
            assert log.head.seq == 5
        entries = told(slot.audit)
        assert verify(slot.audit, "serve").is_intact
    read = [entry for entry in entries if entry["kind"] == "policy"]
    assert [entry["event"] for entry in read] == ["loaded", "reloaded", "refused", "reloaded"]
    assert read[0]["digest"] == read[3]["digest"] == before != read[1]["digest"]
    assert "mine.yaml" in read[2]["reason"]
    assert [entry["event"] for entry in entries if entry["kind"] == "controller"] == [
        "started",
        "stopped",
    ]


def test_no_two_controllers_write_one_log(tmp_path: Path) -> None:
    settings, policies = Settings(state_dir=tmp_path), load()
    slot = take_slot(tmp_path, "serve")
    with slot, controller_log(slot, settings, policies, time.time):
        with pytest.raises(ConfigError):
            take_slot(tmp_path, "serve")
        with take_slot(tmp_path, "run") as one, take_slot(tmp_path, "run") as other:
            assert len({slot.audit, one.audit, other.audit}) == 3
