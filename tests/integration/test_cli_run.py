"""Files into `sandbox run` and results out of it, with real containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.cli import exits

from ..support.leftovers import left_of
from ..support.served import environment

PROGRAM = """
import os, sys
sys.path.insert(0, "src")
import helper
rows = open("data.csv").read()
os.makedirs("out", exist_ok=True)
for name in sys.argv[1:]:
    open(f"out/{name}", "w").write(rows + helper.WORD)
open("out/.hidden", "w").close()
os.symlink("/etc/passwd", "out/link.png")
print(__name__, __file__, sys.argv)
sys.exit(7)
"""
WAIT = "import time; print('begun', flush=True); time.sleep(60)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a program, a module, data and a link that leads out of it."""
    folder = tmp_path / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "analysis.py").write_text(PROGRAM)
    (folder / "data.csv").write_text("1,2\n")
    (folder / "src" / "helper.py").write_text("WORD = 'hi'\n")
    (folder / "src" / "secret").symlink_to("/etc/shadow")
    return folder


def run(
    folder: Path, *words: str, state: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """`sandbox run` in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "sandbox", "run", *words],
        cwd=folder,
        env=environment(state or folder.parent / "state", **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_files_go_in_results_come_out_and_the_exit_code_is_the_programs(project: Path) -> None:
    words = ["--with", "data.csv", "--with", "src/", "analysis.py"]
    done = run(project, *words, "--", "a.png", "b.csv", "--get", "out/*.png")
    assert done.returncode == 7, done.stderr
    argv = "['analysis.py', 'a.png', 'b.csv']"
    assert done.stdout == f"__main__ /workspace/analysis.py {argv}\n"
    assert (project / "out/a.png").read_text() == "1,2\nhi"
    assert sorted(os.listdir(project / "out")) == ["a.png"]
    assert "[wrote out/a.png, 6 bytes]" in done.stderr
    assert "[left out src/secret: a symbolic link]" in done.stderr
    assert "link.png: a symlink" in done.stderr
    assert "To exit" not in done.stderr
    assert "Traceback" not in done.stderr
    assert left_of(project.parent / "state") == []


def test_what_is_there_stays_without_force_and_what_is_not_there_is_said(project: Path) -> None:
    (project / "out").mkdir()
    (project / "out/a.png").write_text("mine")
    options = ["--get", "out/a.png", "--get", "absent/*", "--with", "src", "--with", "data.csv"]
    kept = run(project, *options, "analysis.py", "--", "a.png")
    assert kept.returncode == 7
    assert "out/a.png is there already" in kept.stderr
    assert "--get absent/* matches nothing" in kept.stderr
    assert (project / "out/a.png").read_text() == "mine"
    forced = run(project, *options, "--force", "--to", "results", "analysis.py", "--", "a.png")
    assert forced.returncode == 7
    assert (project / "results/out/a.png").read_text() == "1,2\nhi"


FILE = """
import multiprocessing, sys
def square(x):
    return x * x
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(square, [3]), sys.stdin.read())
    raise ValueError("at the end")
"""


def test_a_file_runs_as_a_file_with_what_is_piped_in(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(FILE)
    with (tmp_path / "given").open("w+") as given:
        given.write("piped")
        given.seek(0)
        done = subprocess.run(
            [sys.executable, "-m", "sandbox", "run", "main.py"],
            cwd=tmp_path,
            env=environment(tmp_path / "state"),
            stdin=given,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "[9] piped\n"), done.stderr
    assert 'File "/workspace/main.py", line 8, in <module>' in done.stderr
    assert "ValueError: at the end" in done.stderr
    assert "run_file" not in done.stderr


def test_requirements_are_refused_before_anything_starts_where_the_policy_denies_them(
    project: Path,
) -> None:
    (project / "requirements.txt").write_text("six\n")
    done = run(project, "-r", "requirements.txt", "-c", "1")
    assert done.returncode == exits.REFUSED
    assert "nothing was started" in done.stderr
    assert "package-index" in done.stderr


def test_requirements_are_installed_where_the_policy_permits_it(project: Path) -> None:
    (project / "requirements.txt").write_text("six==1.17.0\n")
    code = "import six; print(six.__version__)"
    done = run(project, "--policy", "package-index", "-r", "requirements.txt", "-c", code)
    assert (done.returncode, done.stdout) == (0, "1.17.0\n"), done.stderr


def test_more_than_the_workspace_holds_is_refused_before_it_is_copied(project: Path) -> None:
    with (project / "large").open("wb") as file:
        file.truncate(2 * 1024**3)  # and takes nothing here
    done = run(project, "--with", "large", "-c", "1")
    assert done.returncode == exits.REFUSED
    assert "Nothing was copied" in done.stderr
    assert left_of(project.parent / "state") == []


def begun(folder: Path, *words: str, state: Path) -> subprocess.Popen[bytes]:
    """`sandbox run` of code that waits, when it has begun."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "run", *words],
        cwd=folder,
        env=environment(state),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    process.stdout.close()
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_removes_what_was_opened(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = begun(tmp_path, "-c", WAIT, state=tmp_path / "state")
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    assert left_of(tmp_path / "state") == []


def test_ctrl_c_interrupts_the_code_and_a_second_ends_what_does_not_listen(
    tmp_path: Path,
) -> None:
    deaf = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {WAIT}"
    process = begun(tmp_path, "-c", deaf, state=tmp_path / "state")
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == exits.INTERRUPTED
    assert left_of(tmp_path / "state") == []


def sessions(served: Any) -> list[str]:
    import httpx2

    with httpx2.Client(base_url=served.base, headers=served.headers, timeout=60) as http:
        return [each["session_id"] for each in http.get("/mcp/v1/sessions").json()["sessions"]]


@pytest.mark.parametrize("way", ["served", "url"])
def test_the_served_controller_does_it_where_it_is_wanted(
    clean: Any, project: Path, way: str
) -> None:
    given = {"SANDBOX_URL": clean.base, "SANDBOX_TOKEN": clean.token} if way == "url" else {}
    words = ["--served"] if way == "served" else []
    options = ["--with", "data.csv", "--with", "src", "--get", "out/*.png"]
    state = clean.state if way == "served" else project.parent / "other"
    done = run(project, *words, *options, "analysis.py", "--", "a.png", state=state, **given)
    assert done.returncode == 7, done.stderr
    assert (project / "out/a.png").read_text() == "1,2\nhi"
    assert sessions(clean) == []


def test_a_session_of_the_served_controller_is_closed_when_a_signal_ends_the_run(
    clean: Any, tmp_path: Path
) -> None:
    process = begun(tmp_path, "--served", "-c", WAIT, state=clean.state)
    assert len(sessions(clean)) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert sessions(clean) == []
