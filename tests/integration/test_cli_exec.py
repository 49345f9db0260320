"""`sandbox exec` and `sandbox cp` in sessions of a served controller."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox.cli import exits

from ..support.ptyprocess import PtyProcess
from ..support.served import environment, sandbox


@pytest.fixture
def session(clean: Any) -> str:
    """A session of the served controller."""
    with httpx2.Client(base_url=clean.base, headers=clean.headers, timeout=60) as http:
        body = {"name": "mine", "reuse": False}
        return http.post("/mcp/v1/sessions", json=body).json()["session_id"]


def inside(clean: Any, session: str, command: str) -> str:
    """What a shell command in the session writes."""
    return sandbox(clean.state, "exec", session, "--", "sh", "-c", command).stdout


@pytest.mark.parametrize("words", [["--"], []])
def test_outputs_are_apart_and_the_exit_code_is_the_commands(
    clean: Any, session: str, words: list[str]
) -> None:
    command = ["sh", "-c", "echo out; echo err >&2; pwd; exit 9"]
    done = sandbox(clean.state, "exec", "--cwd", "/tmp", session, *words, *command)
    assert (done.returncode, done.stdout, done.stderr) == (9, "out\n/tmp\n", "err\n")


def test_the_beginning_of_an_id_and_a_name_are_enough(clean: Any, session: str) -> None:
    for wanted in (session[:8], "mine"):
        assert sandbox(clean.state, "exec", wanted, "echo", "-n", "x").stdout == "x"


def test_a_wrong_id_says_which_there_are(clean: Any, session: str) -> None:
    done = sandbox(clean.state, "exec", "absent", "--", "true")
    assert done.returncode == exits.FAILED
    assert session in done.stderr
    assert "sandbox sessions list" in done.stderr


def test_what_is_piped_in_is_its_input_and_what_it_writes_is_not_changed(
    clean: Any, session: str
) -> None:
    data = os.urandom(1_500_000) + b"\x1b]52;c;aGk=\x07"
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "exec", session, "--", "cat"],
        env=environment(clean.state),
        input=data,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_input_that_is_left_alone_is_not_read(clean: Any, session: str) -> None:
    done = sandbox(clean.state, "exec", "-n", session, "--", "wc", "-c", given="text")
    assert done.stdout == "0\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["absent-program"], 127),
        (["/etc"], 126),
        (["sh", "-c", "kill -9 $$"], 137),
    ],
)
def test_what_does_not_run_or_is_killed_has_a_shells_exit_codes(
    clean: Any, session: str, words: list[str], code: int
) -> None:
    done = sandbox(clean.state, "exec", session, "--", *words)
    assert done.returncode == code
    assert done.stderr


def test_time_that_is_over_and_ctrl_c_end_the_command_inside(clean: Any, session: str) -> None:
    late = sandbox(clean.state, "exec", "--timeout", "1", session, "--", "sleep", "60")
    assert late.returncode == exits.TIMED_OUT
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "exec", session, "sh", "-c", "echo begun; sleep 61"],
        env=environment(clean.state),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == exits.INTERRUPTED
    process.stdout.close()
    assert "sleep 61" not in inside(clean, session, "ps -eo args")


def test_a_command_whose_caller_is_killed_is_stopped(clean: Any, session: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "exec", session, "sh", "-c", "echo begun; sleep 62"],
        env=environment(clean.state),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    process.kill()
    process.wait(30)
    process.stdout.close()
    deadline = time.monotonic() + 30
    while "sleep 62" in inside(clean, session, "ps -eo args"):
        assert time.monotonic() < deadline


def test_on_a_terminal_only_what_draws_is_shown(clean: Any, session: str) -> None:
    hostile = "printf 'a\\033]52;c;aGk=\\007\\033[31mred\\033[m\\033[6n\\n'"
    words = ["exec", session, "--", "sh", "-c", hostile]
    with PtyProcess(*words, env=environment(clean.state)) as process:
        assert process.wait() == 0
    assert b"a\x1b[31mred\x1b[m" in process.shown
    assert b"\x1b]" not in process.shown
    assert b"\x1b[6n" not in process.shown


# --- cp


def copied(clean: Any, folder: Path, *words: str, given: str = "") -> Any:
    return subprocess.run(
        [sys.executable, "-m", "sandbox", "cp", *words],
        cwd=folder,
        env=environment(clean.state),
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_files_and_folders_go_in_and_come_out(clean: Any, session: str, tmp_path: Path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    (tmp_path / "src" / "empty").mkdir()
    (tmp_path / "src" / "deep" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "src" / "deep" / "run.sh").chmod(0o755)
    (tmp_path / "data #1?.csv").write_text("1,2\n")
    done = copied(clean, tmp_path, "src", "data #1?.csv", f"{session}:")
    assert done.returncode == 0, done.stderr
    assert f"[wrote {session}:src/deep/run.sh" in done.stderr
    assert inside(clean, session, "src/deep/run.sh; cat 'data #1?.csv'; ls -d src/empty") == (
        "ran\n1,2\nsrc/empty\n"
    )
    assert copied(clean, tmp_path, "src", f"{session}:other/place").returncode == 0
    assert inside(clean, session, "ls other/place") == "deep\nempty\n"
    done = copied(clean, tmp_path, f"{session}:src", f"{session}:data #1?.csv", "back/")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back/src/deep/run.sh").read_text().endswith("ran\n")
    assert (tmp_path / "back/src/empty").is_dir()
    assert (tmp_path / "back/data #1?.csv").read_text() == "1,2\n"


def test_nothing_here_is_replaced_without_force(clean: Any, session: str, tmp_path: Path) -> None:
    inside(clean, session, "echo new > f")
    (tmp_path / "f").write_text("mine")
    done = copied(clean, tmp_path, f"{session}:f", ".")
    assert done.returncode == exits.FAILED
    assert "--force" in done.stderr
    assert (tmp_path / "f").read_text() == "mine"
    assert copied(clean, tmp_path, "--force", f"{session}:f", ".").returncode == 0
    assert (tmp_path / "f").read_text() == "new\n"


def test_standard_input_and_output_are_places_too(clean: Any, session: str, tmp_path: Path) -> None:
    assert copied(clean, tmp_path, "-", f"{session}:a/b", given="text").returncode == 0
    assert copied(clean, tmp_path, f"{session}:a/b", "-").stdout == "text"
    missing = copied(clean, tmp_path, f"{session}:absent", "-")
    assert missing.returncode == exits.FAILED
    assert "absent" in missing.stderr


def test_what_is_too_large_is_refused_before_it_is_copied(
    clean: Any, session: str, tmp_path: Path
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 * 1024**3)
    done = copied(clean, tmp_path, "large", f"{session}:")
    assert done.returncode == exits.REFUSED
    assert "Nothing was copied" in done.stderr
