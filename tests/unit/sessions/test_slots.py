"""The state directory and its slots: one controller each, and an owner id that outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.errors import ConfigError
from sandbox.sessions.slots import slot_names, take_slot, try_slot

_HOLD = """
import sys, pathlib
from sandbox.sessions.slots import take_slot
slot = take_slot(pathlib.Path(sys.argv[1]), sys.argv[2])
print(slot.name, slot.owner, flush=True)
sys.stdin.read()
"""


def hold(root: Path, kind: str) -> subprocess.Popen[str]:
    """Another controller process that holds a slot until its stdin closes."""
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(root), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_state_directory_is_made_private(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    take_slot(root, "serve").release()
    for made in (root, root / "controllers", root / "controllers/serve"):
        assert made.stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    with pytest.raises(ConfigError) as caught:
        take_slot(loose, "serve")
    assert str(loose) in str(caught.value)
    assert caught.value.remedy
    assert not list(loose.iterdir())


def test_a_state_directory_under_a_file_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="SANDBOX_STATE_DIR"):
        take_slot(tmp_path / "file" / "state", "serve")


def test_a_slot_keeps_its_owner_id_from_one_controller_to_the_next(tmp_path: Path) -> None:
    with take_slot(tmp_path, "serve") as first:
        assert first.journal.parent == tmp_path / "controllers/serve"
    with take_slot(tmp_path, "serve") as second:
        assert second.owner == first.owner
        assert len(second.owner) == 32


def test_a_taken_serve_slot_names_the_process_that_holds_it(tmp_path: Path) -> None:
    with take_slot(tmp_path, "serve"), pytest.raises(ConfigError, match=f"process {os.getpid()}"):
        take_slot(tmp_path, "serve")


def test_desktop_controllers_get_the_first_free_slot_each(tmp_path: Path) -> None:
    with take_slot(tmp_path, "stdio") as first, take_slot(tmp_path, "stdio") as second:
        assert (first.name, second.name) == ("stdio-1", "stdio-2")
        assert first.owner != second.owner
        first.release()
        with take_slot(tmp_path, "stdio") as third:
            assert (third.name, third.owner) == ("stdio-1", first.owner)
        assert try_slot(tmp_path, "stdio-2") is None
    assert slot_names(tmp_path) == ["stdio-1", "stdio-2"]


def test_a_killed_controller_lets_go_of_its_slot_and_its_owner_id_passes_on(tmp_path: Path) -> None:
    with hold(tmp_path, "serve") as other:
        assert other.stdout is not None
        name, owner = other.stdout.readline().split()
        assert name == "serve"
        with pytest.raises(ConfigError, match=f"process {other.pid}"):
            take_slot(tmp_path, "serve")
        other.kill()
        other.wait(timeout=10)
        with take_slot(tmp_path, "serve") as slot:
            assert slot.owner == owner


def test_releasing_twice_is_harmless(tmp_path: Path) -> None:
    slot = take_slot(tmp_path, "run")
    slot.release()
    slot.release()
    with take_slot(tmp_path, "run") as again:
        assert again.name == "run-1"


@pytest.mark.parametrize("content", [b"", b"../../etc\n", b"\xff" * 32, b"A" * 32])
def test_a_damaged_owner_id_stops_the_controller_and_frees_the_slot(
    tmp_path: Path, content: bytes
) -> None:
    take_slot(tmp_path, "serve").release()
    (tmp_path / "controllers/serve/owner").write_bytes(content)
    with pytest.raises(ConfigError, match="owner"):
        take_slot(tmp_path, "serve")
    (tmp_path / "controllers/serve/owner").unlink()
    with take_slot(tmp_path, "serve") as slot:
        assert len(slot.owner) == 32
