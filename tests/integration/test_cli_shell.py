"""`sandbox shell` on a real pty, in real containers."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..support.leftovers import left_of
from ..support.ptyprocess import PtyProcess
from ..support.served import environment, sandbox

PROMPT = "$ "


def opened(served: Any) -> str:
    """A new session of a served controller."""
    with httpx2.Client(base_url=served.base, headers=served.headers, timeout=60) as http:
        return http.post("/mcp/v1/sessions", json={"reuse": False}).json()["session_id"]


def test_a_shell_is_a_terminal_and_everything_is_put_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with PtyProcess("shell", env=environment(state)) as process:
        process.see(PROMPT)
        assert process.attributes != process.before
        process.type("stty size; tty; echo $TERM\r")
        process.see("24 80\r\n/dev/pts/")
        process.see("xterm-256color")
        process.resize(40, 100)
        process.type("sleep 0.5; stty size\r")
        process.see("40 100")
        process.type("sleep 60\r")
        process.see("sleep 60")
        process.type("\x03")  # ends the program, and neither the shell nor us
        process.see(PROMPT)
        process.type("echo al''ive; printf '\\033[?1000h\\033[?25l'; exit 5\r")
        process.see("alive")
        assert process.wait() == 5
        assert process.attributes == process.before
    end = process.shown.decode()
    assert "\x1b[?1000l" in end
    assert end.rindex("\x1b[?25h") > end.rindex("\x1b[?25l")
    assert left_of(state) == []


def test_ctrl_d_ends_the_shell(tmp_path: Path) -> None:
    with PtyProcess("shell", env=environment(tmp_path / "state")) as process:
        process.see(PROMPT)
        process.type("\x04")
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back_and_removes_the_container(
    tmp_path: Path, number: signal.Signals
) -> None:
    state = tmp_path / "state"
    with PtyProcess("shell", env=environment(state)) as process:
        process.see(PROMPT)
        process.signal(number)
        assert process.wait() == 128 + number
        assert process.attributes == process.before
    assert left_of(state) == []


def test_a_shell_in_a_session_of_the_server_leaves_the_session_and_no_terminal(clean: Any) -> None:
    session_id = opened(clean)
    with PtyProcess("shell", session_id[:8], env=environment(clean.state)) as process:
        process.see(PROMPT)
        process.type("echo kept > file; stty size\r")
        process.see("24 80")
        process.resize(30, 90)
        process.type("sleep 0.5; stty size; exit 3\r")
        process.see("30 90")
        assert process.wait() == 3
        assert process.attributes == process.before
    read = sandbox(clean.state, "exec", session_id, "--", "cat", "file")
    assert (read.returncode, read.stdout) == (0, "kept\n")
    # Its terminals were closed: as many as the policy allows can be opened one after the other.
    for _ in range(5):
        with PtyProcess("shell", session_id, env=environment(clean.state)) as process:
            process.see(PROMPT)
            process.type("exit\r")
            assert process.wait() == 0


def test_a_session_that_ends_meanwhile_ends_the_shell_with_a_reason(clean: Any) -> None:
    session_id = opened(clean)
    with PtyProcess("shell", session_id, env=environment(clean.state)) as process:
        process.see(PROMPT)
        sandbox(clean.state, "sessions", "close", session_id)
        assert process.wait() != 0
        assert process.attributes == process.before


def test_a_new_sandbox_of_the_server_is_gone_with_its_shell(clean: Any) -> None:
    given = {"SANDBOX_URL": clean.base, "SANDBOX_TOKEN": clean.token}
    with PtyProcess("shell", env=environment(clean.state, **given)) as process:
        process.see(PROMPT)
        process.type("exit 4\r")
        assert process.wait() == 4
    assert "No session is open" in sandbox(clean.state, "sessions", "list").stdout


def test_a_shell_without_a_terminal_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    done = sandbox(tmp_path / "state", "shell")
    assert done.returncode == 2
    assert "sandbox exec" in done.stderr
