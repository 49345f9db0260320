"""Kernels in sandboxes for the field's own programs: nbclient, papermill, jupyter, nbconvert."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import nbformat
import pytest

from sandbox.cli import exits
from sandbox.notebooks.models import Cell

from ..support import nbclientrun
from ..support.leftovers import left_of
from ..support.provisioned import KERNELSPEC, Jupyter
from ..support.served import Served
from .test_notebooks import (
    NOTEBOOKS,
    OF_OUR_KERNEL,
    _cells,
    _normalised,
    _run_by_nbclient,
    notebook,
    text,
)

ENDED_S = 60
ATTEMPT = (
    "import urllib.request\n"
    "try:\n"
    "    print(urllib.request.urlopen('http://example.com', timeout=10).status)\n"
    "except OSError as exc:\n"
    "    print('no way out:', type(exc).__name__)\n"
)


@pytest.fixture(scope="module")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Jupyter:
    made = Jupyter.made(tmp_path_factory.mktemp("jupyter"))
    made.install("--policy", "offline")
    made.install("--policy", "datascience")
    made.spec("by-message", {"policy": "offline"}, interrupt_mode="message")
    return made


@pytest.fixture(autouse=True)
def nothing_is_left(jupyter: Jupyter) -> Any:
    yield
    assert left_of(jupyter.state) == []


# --- notebooks


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("analysis", "sandbox-datascience"),
        ("cleaning", "sandbox-datascience"),
        ("concurrency", KERNELSPEC),
        ("displays", KERNELSPEC),
        ("errors", KERNELSPEC),
        ("logs", KERNELSPEC),
        ("numerics", "sandbox-datascience"),
    ],
)
def test_a_notebook_has_the_outputs_that_it_has_on_a_bare_kernel(
    jupyter: Jupyter, tmp_path: Path, name: str, kernel: str
) -> None:
    source, target = NOTEBOOKS / f"{name}.ipynb", tmp_path / "ours.ipynb"
    with _run_by_nbclient(source, tmp_path / "bare") as other:
        done = jupyter.run(nbclientrun.__file__, str(source), str(target), kernel)
    assert done.returncode == 0, done.stderr
    ours, theirs = _cells(target), _cells(other)
    assert [cell.execution_count for cell in ours] == [cell.execution_count for cell in theirs]
    found = set[str]()
    for mine, its in zip(ours, theirs, strict=True):
        if mine.id in OF_OUR_KERNEL:
            OF_OUR_KERNEL[mine.id](_normalised(mine), _normalised(its))
            found.add(mine.id)
        else:
            assert _shown(mine) == _shown(its), mine.id
    assert found == {cell_id for cell_id in OF_OUR_KERNEL if cell_id.startswith(name)}


def _shown(cell: Cell) -> str:
    """The outputs, without how deep a recursion went, which depends on what a kernel has called."""
    shown = re.sub(r"frame, \d+ times|\d+ frames", "frames", repr(_normalised(cell)))
    return re.sub(r"(Cell In(?:(?!Cell In).)*?\\n\\n)\1+", r"\1", shown)


def written(folder: Path, *cells: str, kernel: str = "python3") -> Path:
    path = folder / "n.ipynb"
    path.write_bytes(notebook(*cells, kernelspec={"name": kernel, "display_name": kernel}))
    return path


def by_nbclient(jupyter: Jupyter, source: Path, target: Path) -> Any:
    return jupyter.run(nbclientrun.__file__, str(source), str(target), KERNELSPEC)


def by_papermill(jupyter: Jupyter, source: Path, target: Path) -> Any:
    return jupyter.run("-m", "papermill", "-k", KERNELSPEC, str(source), str(target))


def by_jupyter_execute(jupyter: Jupyter, source: Path, target: Path) -> Any:
    words = (f"--kernel_name={KERNELSPEC}", str(source), f"--output={target.with_suffix('')}")
    return jupyter.run("-m", "jupyter", "execute", *words)


def by_nbconvert(jupyter: Jupyter, source: Path, target: Path) -> Any:
    words = ("--to", "notebook", "--execute", f"--ExecutePreprocessor.kernel_name={KERNELSPEC}")
    return jupyter.run("-m", "nbconvert", *words, str(source), "--output", str(target))


@pytest.mark.parametrize("run", [by_nbclient, by_papermill, by_jupyter_execute, by_nbconvert])
def test_programs_run_a_notebook_unchanged_and_it_has_no_network(
    jupyter: Jupyter, tmp_path: Path, run: Any
) -> None:
    source, target = written(tmp_path, "x = 6", "print(x * 7)", ATTEMPT), tmp_path / "out.ipynb"
    done = run(jupyter, source, target)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [cell for cell in nbformat.read(target, as_version=4).cells if cell.source]
    texts = ["".join(each.get("text", "") for each in cell.outputs) for cell in cells]
    assert texts[1] == "42\n"
    assert "no way out:" in texts[2]
    assert "network: example.com:80 denied by" in texts[2]  # by which rule, and what to do


def test_a_kernel_that_is_killed_inside_is_known_as_dead(jupyter: Jupyter, tmp_path: Path) -> None:
    killing = "print('before', flush=True)\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    source = written(tmp_path, killing, "print('never')")
    done = by_nbclient(jupyter, source, tmp_path / "out.ipynb")
    assert done.returncode != 0
    assert "DeadKernelError: Kernel died" in done.stderr
    assert "sandbox: The kernel died. It was ended by SIGKILL." in done.stderr


def test_a_kernel_that_runs_out_of_memory_is_dead_and_that_is_said(
    jupyter: Jupyter, tmp_path: Path
) -> None:
    source = written(tmp_path, "hoard = []\nwhile True:\n    hoard.append(bytearray(10_000_000))")
    done = by_nbclient(jupyter, source, tmp_path / "out.ipynb")
    if "MemoryError" not in done.stderr:  # where the policy's limit stops it before the kernel
        assert "DeadKernelError: Kernel died" in done.stderr
        assert "out of memory" in done.stderr


def test_a_kernelspec_may_stand_where_notebooks_look_for_python3(tmp_path: Path) -> None:
    jupyter = Jupyter.made(tmp_path)
    words = ("--policy", "offline", "--name", "python3", "--user")
    refused = jupyter.run("-m", "sandbox", "kernelspec", "install", *words)
    assert refused.returncode == exits.FAILED
    assert "share/jupyter/kernels/python3" in refused.stderr
    jupyter.install(*words, JUPYTER_PREFER_ENV_PATH="0")
    source = written(tmp_path, "import os\nprint(os.getcwd(), os.path.exists('n.ipynb'))")
    # In a virtual environment Jupyter prefers that environment's kernelspecs, unless it is told.
    words = ("-m", "jupyter", "execute", "--inplace", str(source))
    done = jupyter.run(*words, JUPYTER_PREFER_ENV_PATH="0")
    assert done.returncode == 0, done.stderr
    assert text(_cells(source)[0]) == "/workspace False\n"
    assert left_of(jupyter.state) == []


def test_files_that_a_kernelspec_names_are_copied_in(tmp_path: Path) -> None:
    jupyter = Jupyter.made(tmp_path)
    (tmp_path / "data.csv").write_text("1,2\n")
    jupyter.install("--policy", "offline", "--with", str(tmp_path / "data.csv"))
    source = written(tmp_path, "print(open('data.csv').read())")
    done = by_nbclient(jupyter, source, tmp_path / "out.ipynb")
    assert done.returncode == 0, done.stderr
    assert text(_cells(tmp_path / "out.ipynb")[0]) == "1,2\n\n"


def test_a_kernel_of_bash_runs(tmp_path: Path) -> None:
    jupyter = Jupyter.made(tmp_path)
    jupyter.install("--policy", "offline", "--kernel", "bash", "--name", KERNELSPEC)
    source = written(tmp_path, "x=6", "echo $((x * 7))")
    done = by_nbclient(jupyter, source, tmp_path / "out.ipynb")
    assert done.returncode == 0, done.stderr
    assert text(_cells(tmp_path / "out.ipynb")[1]) == "42\n"


# --- clients


def test_a_client_is_answered_as_by_any_kernel(jupyter: Jupyter) -> None:
    told = jupyter.tell("basics", KERNELSPEC)
    kinds = [each["type"] for each in told["cell"]["heard"]]
    assert kinds[0] == "status"
    assert [kind for kind in kinds if kind not in ("status", "stream")] == [
        "execute_input",
        "execute_result",
    ]
    assert {
        each["content"].get("name"): each["content"]["text"]
        for each in told["cell"]["heard"]
        if each["type"] == "stream"
    } == {"stdout": "out\n", "stderr": "err\n"}
    assert told["error"]["reply"]["ename"] == "ZeroDivisionError"
    assert "print" in told["complete"]["matches"]
    assert told["inspect"]["status"] == "ok"
    assert told["is_complete"]["status"] == "incomplete"
    assert told["info"]["language_info"]["name"] == "python"
    assert told["beats"]
    assert told["alive"]


def test_the_first_cell_s_outputs_are_heard(jupyter: Jupyter) -> None:
    assert jupyter.tell("first_outputs", KERNELSPEC) == "first\n"


@pytest.mark.parametrize("name", [KERNELSPEC, "by-message"])
def test_an_interrupt_ends_the_cell_and_keeps_the_state(jupyter: Jupyter, name: str) -> None:
    told = jupyter.tell("interrupt", name)
    assert told == {"interrupted": "KeyboardInterrupt", "kept": "1\n"}


@pytest.mark.parametrize("now", ["now", "politely"])
def test_a_restart_keeps_the_session_and_its_files_and_no_variable(
    jupyter: Jupyter, now: str
) -> None:
    told = jupyter.tell("restart", KERNELSPEC, now)
    assert told == {"text": "file False\n", "count": 1, "session": True}


def test_a_cell_asks_a_client_that_allows_it(jupyter: Jupyter) -> None:
    told = jupyter.tell("asks", KERNELSPEC)
    assert told["text"] == "n = 42\n"
    assert told["refused"] in ("StdinNotImplementedError", "KeyboardInterrupt")


def test_a_comm_carries_bytes_both_ways(jupyter: Jupyter) -> None:
    told = jupyter.tell("comm", KERNELSPEC)
    assert told["content"]["data"] == {"n": 1}
    assert told["buffers"] == ["ff0100", ""]


def test_a_dead_kernel_stays_dead_until_it_is_restarted_beside_its_files(jupyter: Jupyter) -> None:
    told = jupyter.tell("dies", KERNELSPEC, "import os\nos._exit(3)")
    assert told == {"alive": False, "text": "file\n"}


# --- a served controller


@pytest.fixture(scope="module")
def at_served(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Jupyter, str]]:
    made = Jupyter.made(tmp_path_factory.mktemp("served"))
    token = made.folder / "token"
    token.write_text(served.token)
    words = ("--policy", "offline", "--url", served.base, "--token-file", str(token))
    made.install(*words)
    yield made, KERNELSPEC
    assert left_of(made.state) == []


def test_a_served_controller_opens_the_session_and_closes_it_again(
    at_served: tuple[Jupyter, str], served: Served
) -> None:
    jupyter, name = at_served
    told = jupyter.tell("basics", name)
    assert told["error"]["reply"]["ename"] == "ZeroDivisionError"
    assert told["info"]["language_info"]["name"] == "python"
    assert jupyter.tell("interrupt", name) == {"interrupted": "KeyboardInterrupt", "kept": "1\n"}
    assert jupyter.tell("restart", name, "now") == {
        "text": "file False\n",
        "count": 1,
        "session": True,
    }
    assert jupyter.tell("asks", name)["text"] == "n = 42\n"
    assert jupyter.tell("comm", name)["buffers"] == ["ff0100", ""]
    told = jupyter.tell("dies", name, "import os\nos._exit(3)")
    assert told == {"alive": False, "text": "file\n"}
    with httpx2.Client(base_url=served.base, headers=served.headers) as http:
        assert http.get("/mcp/v1/sessions").json()["sessions"] == []


def test_a_policy_that_the_served_controller_does_not_have_is_refused_at_once(
    at_served: tuple[Jupyter, str], served: Served
) -> None:
    jupyter, _ = at_served
    token = str(jupyter.folder / "token")
    words = ("--policy", "absent", "--url", served.base, "--token-file", token)
    done = jupyter.run("-m", "sandbox", "kernelspec", "install", *words)
    assert done.returncode == exits.FAILED
    assert "'absent'" in done.stderr


# --- what cannot be started


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"policy": "absent"}, "There is no policy 'absent'"),
        ({"polcy": "offline"}, "'polcy' is not known"),
        ({"policy": "offline", "kernel": "julia"}, "julia"),
        ({"policy": "offline", "with": ["/absent/file"]}, "/absent/file"),
    ],
)
def test_what_cannot_be_started_is_said_in_the_clients_own_error(
    jupyter: Jupyter, tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    name = f"refused-{tmp_path.name}".lower()[:60].replace("[", "").replace("]", "")
    jupyter.spec(name, config)
    told = jupyter.tell("starts", name)
    assert said in told["text"]
    assert not told["has_kernel"]


def test_an_engine_that_is_not_there_is_said_in_the_clients_own_error(jupyter: Jupyter) -> None:
    name = "no-engine"
    jupyter.spec(name, {"policy": "offline"}, env={"SANDBOX_ENGINE": "unix:///absent.sock"})
    told = jupyter.tell("starts", name)
    assert told["type"] == "KernelNotStarted"
    assert "absent.sock" in told["text"]


# --- whatever ends the client


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("forks", [False, True])
def test_nothing_outlives_a_client_that_is_killed(
    jupyter: Jupyter, number: signal.Signals, forks: bool
) -> None:
    from ..support import kernelclient

    env = {"FORKS": "1"} if forks else {}
    os.environ.update(env)
    try:
        client = jupyter.start(kernelclient.__file__, "lasts", KERNELSPEC)
    finally:
        for each in env:
            del os.environ[each]
    assert client.stdout
    bridge = json.loads(client.stdout.readline())["pid"]
    assert len(left_of(jupyter.state)) == 1
    client.send_signal(number)
    client.wait(30)
    deadline = time.monotonic() + ENDED_S
    while (_runs(bridge) or left_of(jupyter.state)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _runs(bridge)
    client.stdout.close()
    client.stderr and client.stderr.close()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
