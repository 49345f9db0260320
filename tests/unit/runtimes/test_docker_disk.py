from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sandbox.runtimes.docker import disk
from sandbox.runtimes.docker.disk import disk_below, has_rates


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel with a disk that is partly a partition; the folder of its devices by number."""
    devices = tmp_path / "dev/block"
    devices.mkdir(parents=True)
    (tmp_path / "null/part1").mkdir(parents=True)
    (tmp_path / "null/part1/partition").write_text("1")
    monkeypatch.setattr(disk, "_BLOCK_DEVICES", devices)
    return devices


def numbers_of(folder: Path) -> str:
    number = os.stat(folder).st_dev
    return f"{os.major(number)}:{os.minor(number)}"


@pytest.mark.parametrize("entry", ["null", "null/part1"])
def test_the_disk_is_the_whole_one(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    (kernel / numbers_of(tmp_path)).symlink_to(tmp_path / entry)
    assert disk_below(str(tmp_path), socket.gethostname()) == ""  # /dev/null is no block device
    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: True)
    assert disk_below(str(tmp_path), socket.gethostname()) == "/dev/null"


def test_there_is_none_on_another_host_and_on_no_single_disk(kernel: Path, tmp_path: Path) -> None:
    assert disk_below(str(tmp_path), socket.gethostname()) == ""
    (kernel / numbers_of(tmp_path)).symlink_to(tmp_path / "null")
    assert disk_below(str(tmp_path), "elsewhere") == ""
    assert disk_below(str(tmp_path / "absent"), socket.gethostname()) == ""


def test_an_engine_that_warns_of_it_has_no_rates() -> None:
    assert has_rates(["WARNING: No swap limit support"])
    assert not has_rates(["WARNING: No blkio throttle.read_bps_device support"])
    assert not has_rates(["WARNING: No io.max (wbps) support"])
