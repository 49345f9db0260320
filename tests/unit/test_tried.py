"""What `make test` does with a test that fails: a second try alone, told; none for attacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ONCE = """\
import pathlib, pytest

@pytest.mark.parametrize("name", {names})
def test_it(name):
    seen = pathlib.Path(__file__).with_name(name)
    known = seen.exists()
    seen.touch()
    assert known
"""


def tried(folder: Path, source: str, room: str = "unit") -> tuple[int, str]:
    file = folder / "tests" / room / "test_it.py"
    file.parent.mkdir(parents=True)
    file.write_text(source)
    done = subprocess.run(
        [ROOT / "scripts" / "tried", "--rootdir", folder, "--numprocesses", "2", file],
        env={"PATH": "/usr/bin:/bin", "UNSTEADY": str(folder / "unsteady")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    unsteady = folder / "unsteady"
    return done.returncode, unsteady.read_text() if unsteady.exists() else ""


def test_who_passes_alone_is_told_as_unsteady(tmp_path: Path) -> None:
    status, told = tried(tmp_path, ONCE.format(names=["a", "b c"]))
    assert status == 0
    assert "tests/unit/test_it.py::test_it[a]\n" in told
    assert "tests/unit/test_it.py::test_it[b c]\n" in told


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("def test_it(): assert False", "unit"),
        (ONCE.format(names=["a", "b", "c", "d"]), "unit"),
        (ONCE.format(names=["a"]), "security"),
        ("import nothing_of_that_name", "unit"),
    ],
    ids=["fails again", "four", "an attack", "not even read"],
)
def test_nothing_else_passes(tmp_path: Path, source: str, room: str) -> None:
    status, told = tried(tmp_path, source, room)
    assert (status, told) in [(1, ""), (2, "")]


def test_what_passes_at_once_is_not_told(tmp_path: Path) -> None:
    assert tried(tmp_path, "def test_it(): pass") == (0, "")
