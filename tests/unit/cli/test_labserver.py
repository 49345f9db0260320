"""Which JupyterLab `sandbox lab` takes, and how that is furnished."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox.cli.labserver import PROGRAM, find_lab
from sandbox.errors import NotFound


def program(folder: Path) -> Path:
    """A JupyterLab in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PROGRAM
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a JupyterLab: its folder, with `here` for our Python and `path`."""
    for name in ("here", "path"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "here/python"))
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_the_one_beside_our_python_else_the_first_on_the_path(nowhere: Path) -> None:
    on_path = program(nowhere / "path")
    assert find_lab(None) == on_path
    beside = program(nowhere / "here")
    assert find_lab(None) == beside


def test_it_is_the_one_that_is_named_or_that_in_the_folder_that_is(nowhere: Path) -> None:
    program(nowhere / "path")
    named = program(nowhere / "mine")
    assert find_lab(named) == named
    assert find_lab(named.parent) == named
    assert find_lab(Path("mine")) == named
    link = nowhere / "link"
    link.symlink_to(named)
    assert find_lab(link) == link


def test_where_there_is_none_it_says_how_to_get_one(nowhere: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find_lab(None)
    assert "pip install jupyterlab" in caught.value.remedy


@pytest.mark.parametrize("named", ["absent", "empty", "text"])
def test_what_is_named_and_is_none_is_not_replaced_by_another(nowhere: Path, named: str) -> None:
    program(nowhere / "here")
    (nowhere / "empty").mkdir()
    (nowhere / "text").write_text("no program")
    with pytest.raises(NotFound, match=named):
        find_lab(nowhere / named)
