"""The command line against a real engine."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.cli import exits

from ..support.leftovers import left_of
from ..support.served import Served, environment, sandbox

PICTURE = (
    "from IPython.display import display, SVG\n"
    "display(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))"
)


@pytest.mark.parametrize(
    ("words", "code", "out"),
    [
        (["-c", "print(6 * 7)"], exits.OK, "42\n"),
        (["-c", "'value'"], exits.OK, "'value'\n"),
        (["--kernel", "bash", "-c", "echo $((6 * 7))"], exits.OK, "42\n"),
        (["-c", "print(1); raise SystemExit(3)"], 3, "1\n"),
        (["-c", "1 / 0"], exits.FAILED, ""),
        (["-c", "import os; os._exit(9)"], 9, ""),
        (["--timeout", "1", "-c", "import time; time.sleep(60)"], exits.TIMED_OUT, ""),
        (["--policy", "absent", "-c", "1"], exits.FAILED, ""),
        (["--policy", "../x", "-c", "1"], exits.USAGE, ""),
    ],
)
def test_run_prints_what_the_code_writes_and_exits_with_how_it_ended(
    tmp_path: Path, words: list[str], code: int, out: str
) -> None:
    done = sandbox(tmp_path / "state", "run", *words)
    assert (done.returncode, done.stdout) == (code, out), done.stderr
    assert "Traceback (most recent call last):\n  File" not in done.stderr
    assert left_of(tmp_path / "state") == []


def test_run_saves_pictures_beside_the_file(tmp_path: Path) -> None:
    script = tmp_path / "plot.py"
    script.write_text(PICTURE)
    done = sandbox(tmp_path / "state", "run", str(script))
    assert done.returncode == 0
    assert (tmp_path / "plot-1.svg").read_text().startswith("<svg")
    assert "plot-1.svg" in done.stderr


def test_run_reads_code_from_standard_input_and_answers_json(tmp_path: Path) -> None:
    done = sandbox(tmp_path / "state", "run", "--json", "-", given="print('hi')")
    result = json.loads(done.stdout)
    assert result["status"] == "ok"
    assert result["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "hi\n"}]


def test_ctrl_c_interrupts_the_code_and_removes_the_container(tmp_path: Path) -> None:
    state = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "run", "-c", "import time; print(1); time.sleep(60)"],
        env=environment(state),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout
    assert process.stdout.readline() == b"1\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == exits.INTERRUPTED
    process.stdout.close()
    assert left_of(state) == []


def test_sessions_of_the_running_server_are_listed_shown_and_closed(clean: Any) -> None:
    import httpx2

    with httpx2.Client(base_url=clean.base, headers=clean.headers, timeout=60) as http:
        session_id = http.post("/mcp/v1/sessions", json={"name": "mine"}).json()["session_id"]
    listed = sandbox(clean.state, "sessions", "list")
    shown = json.loads(sandbox(clean.state, "sessions", "show", session_id).stdout)
    absent = sandbox(clean.state, "sessions", "close", "absent")
    closed = sandbox(clean.state, "sessions", "close", "--all")
    assert session_id in listed.stdout
    assert "mine" in listed.stdout
    assert shown["session_id"] == session_id
    assert absent.returncode == exits.FAILED
    assert "absent" in absent.stderr
    assert closed.stdout == f"closed {session_id}\n"
    assert json.loads(sandbox(clean.state, "sessions", "list", "--json").stdout) == []


def test_the_doctor_finds_this_machine_able(tmp_path: Path) -> None:
    done = sandbox(tmp_path / "state", "doctor", "--json")
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"engine", "cgroup", "seccomp", "image", "policies", "disk", "memory"} <= set(found)
    assert done.returncode == 0, done.stdout
    assert all(row["remedy"] for row in found.values() if row["verdict"] == "fail")


def test_the_images_are_listed_as_current(tmp_path: Path) -> None:
    done = sandbox(tmp_path / "state", "image", "list")
    assert done.returncode == 0
    assert "python" in done.stdout


def test_building_what_is_current_does_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    done = sandbox(tmp_path / "state", "image", "build", "python")
    assert done.returncode == 0
    assert "is current" in done.stdout
    assert time.monotonic() - began < 30


def test_the_server_greets_with_its_token_and_configuration_to_paste(clean: Any) -> None:
    log = clean.log.read_text()
    ways = dict(line.split()[:2] for line in log.splitlines() if line.startswith("  "))
    assert (ways["MCP"], ways["Token"]) == (clean.url, clean.token)
    assert f"claude mcp add --transport http sandbox {clean.url}" in log
    pasted = next(line for line in log.splitlines() if line.strip().startswith('{"servers"'))
    assert json.loads(pasted)["servers"]["sandbox"]["url"] == clean.url


@pytest.mark.anyio
async def test_every_way_in_that_the_server_tells_of_is_there(clean: Served) -> None:
    told = re.findall(r"^  (?:REST|Jupyter) .*", clean.log.read_text(), re.MULTILINE)
    urls = re.findall(r"https?://[^\s)]+", " ".join(told))
    assert len(urls) == 3
    async with clean.http() as http:
        for url in urls:
            # Below a session's folder is a Jupyter Server, at the folder itself no page.
            at = f"{url}api/status" if "/jupyter/" in url else url
            assert (await http.get(at)).status_code == 200, at
