"""`sandbox python` on a real pty and a real kernel."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..support.leftovers import left_of
from ..support.ptyprocess import PtyProcess
from ..support.served import environment, sandbox

PICTURE = "from IPython.display import SVG; SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')"


@pytest.fixture
def session(clean: Any) -> str:
    """A session of the served controller."""
    with httpx2.Client(base_url=clean.base, headers=clean.headers, timeout=60) as http:
        return http.post("/mcp/v1/sessions", json={"reuse": False}).json()["session_id"]


def test_a_console_runs_cells_of_several_lines_and_the_kernel_keeps_them(
    clean: Any, session: str, tmp_path: Path
) -> None:
    (tmp_path / "picture-1.svg").write_text("mine")
    with PtyProcess("python", session[:8], env=environment(clean.state), cwd=tmp_path) as process:
        process.see(">>> ")
        process.type("x = 41\r")
        process.see(">>> ")
        process.type("x + 1\r")
        process.see("42")
        process.type("for i in range(2):\r")
        process.see("... ")
        process.type("print('row', i * 21)\r")
        process.see("... ")
        process.type("\r")
        process.see("row 0\r\nrow 21")
        process.type("1 / 0\r")
        process.see("ZeroDivisionError")
        process.see(">>> ")
        process.type("import time; print('be' + 'gun'); time.sleep(60)\r")
        process.see("begun")
        process.type("\x03")
        process.see("KeyboardInterrupt")
        process.see(">>> ")
        process.type(f"{PICTURE}\r")
        process.see("picture-2.svg")
        process.see(">>> ")
        process.type("zebra_crossing = 7\r")
        process.see(">>> ")
        process.type("zebra_c\t + 1\r")
        process.see("\r\n8\r\n")
        process.see(">>> ")
        process.type("\x04")
        assert process.wait() == 0
        assert process.attributes == process.before
    assert (tmp_path / "picture-1.svg").read_text() == "mine"
    again = sandbox(clean.state, "python", session, given="print(x)\n")
    assert (again.returncode, again.stdout) == (0, "41\n")


def test_code_that_is_piped_in_is_one_cell_whose_exit_code_counts(clean: Any, session: str) -> None:
    done = sandbox(clean.state, "python", session, given="import sys\nprint(1)\nsys.exit(6)\n")
    assert (done.returncode, done.stdout) == (6, "1\n")
    failed = sandbox(clean.state, "python", session, given="1 / 0\n")
    assert failed.returncode == 1
    assert "ZeroDivisionError" in failed.stderr


def test_a_console_of_its_own_is_gone_afterwards(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = sandbox(state, "python", given="print(6 * 7)\n")
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert left_of(state) == []


def test_a_signal_ends_a_console_and_removes_what_it_opened(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with PtyProcess("python", env=environment(state)) as process:
        process.see(">>> ")
        process.signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
    assert left_of(state) == []
