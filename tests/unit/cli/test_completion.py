"""Tab completes commands, policies and sessions, and the shell is taught by one command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ...support import commandline


def completed(tmp_path: Path, *words: str) -> list[str]:
    """What bash is offered for the last word."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("SANDBOX_")}
    env = {
        **known,
        "HOME": str(tmp_path),
        "SANDBOX_STATE_DIR": str(tmp_path / "state"),
        "_SANDBOX_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(("sandbox", *words)),
        "COMP_CWORD": str(len(words)),
    }
    return commandline.run(env=env).stdout.split()


def test_commands_and_policies_are_offered(tmp_path: Path) -> None:
    assert "shell" in completed(tmp_path, "she")
    assert completed(tmp_path, "shell", "--policy", "off") == ["offline"]


def test_without_a_server_no_session_is_offered_and_nothing_is_said(tmp_path: Path) -> None:
    assert completed(tmp_path, "exec", "s-") == []


def test_places_to_copy_are_files_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.csv").write_text("")
    (tmp_path / "dir").mkdir()
    assert completed(tmp_path, "cp", "d") == ["data.csv", "dir/"]


def test_bash_is_taught_by_one_command(tmp_path: Path) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"HOME": str(tmp_path), "SANDBOX_STATE_DIR": str(tmp_path / "state"), "PATH": programs}
    script = """
    sandbox --install-completion >&2
    source ~/.bashrc
    complete -p sandbox
    COMP_WORDS=(sandbox policy sho) COMP_CWORD=2
    _sandbox_completion sandbox
    echo "${COMPREPLY[@]}"
    """
    told = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    complete, offered = told.stdout.splitlines()
    assert complete.endswith(" -F _sandbox_completion sandbox")
    assert offered == "show"
