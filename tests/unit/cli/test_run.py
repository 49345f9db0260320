"""The words of `sandbox run`: the program's, ours, and what it exits with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.cli import exits
from sandbox.cli.run import Baggage, Work, exit_code, split_arguments
from sandbox.errors import InvalidRequest
from sandbox.kernels.models import ExecutionError

from ...support.results import result


def work(file: Path | None = None, *args: str, kernel: str = "python3") -> Work:
    code = None if file else "1"
    name = str(file) if file else None
    return Work.read(name, code, args, policy="", kernel=kernel, timeout_s=0, images=None)


@pytest.mark.parametrize(
    ("words", "args", "globs"),
    [
        ([], [], []),
        (["a", "--get", "out/*.png"], ["a"], ["out/*.png"]),
        (["--get", "x", "--get=y"], [], ["x", "y"]),
        (["--get", "x", "a"], ["--get", "x", "a"], []),
        (["--get", "x", "--"], ["--get", "x"], []),
        (["--get"], ["--get"], []),
        (["a", "--", "--get", "x"], ["a", "--"], ["x"]),
        (["--", "--"], ["--"], []),
    ],
)
def test_a_get_at_the_very_end_is_ours_unless_two_dashes_follow(
    words: list[str], args: list[str], globs: list[str]
) -> None:
    assert split_arguments(words) == (args, globs)


@pytest.mark.parametrize(
    ("value", "code"),
    [("3", 3), ("0", 0), ("None", 0), ("", 0), ("-1", 255), ("256", 0), ("a reason", 1)],
)
def test_a_program_that_exits_by_itself_decides_the_exit_code(value: str, code: int) -> None:
    error = ExecutionError(name="SystemExit", value=value, traceback="")
    ended = result(status="error").model_copy(update={"error": error})
    assert exit_code(ended) == code


def test_other_endings_have_exit_codes_of_their_own() -> None:
    assert exit_code(result(status="error")) == exits.FAILED
    assert exit_code(result(status="timeout")) == exits.TIMED_OUT
    assert exit_code(result(status="interrupted")) == exits.INTERRUPTED


def run_as_cell(cell: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the code of a cell in a process, whose current folder is the workspace."""
    code = cell.replace("/workspace", str(folder))
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_file_runs_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "beside.py").write_text("WORD = 'imported'\n")
    (tmp_path / "sub" / "main.py").write_text(
        "import atexit, beside, pickle, sys, threading, time\n"
        "class Own: pass\n"
        "pickle.loads(pickle.dumps(Own()))\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "print(__name__, __file__, sys.argv, sys.path[0], beside.WORD, input('? '))\n"
        "'a value that nobody shows'\n"
        "exit(3)\n"
    )
    monkeypatch.chdir(tmp_path)
    done = run_as_cell(work(Path("sub/main.py"), "a b", "'").cell(""), tmp_path, "given\n")
    place = f"{tmp_path}/sub"
    argv = ["sub/main.py", "a b", "'"]
    assert done.stdout.splitlines() == [
        f"? __main__ {place}/main.py {argv} {place} imported given",
        "thread",
        "at exit",
    ]
    assert (done.returncode, done.stderr) == (3, "")


def test_a_file_reads_what_was_piped_in_which_is_then_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main.py").write_text("import sys; print(sys.stdin.read())")
    (tmp_path / "stdin").write_text("piped")
    monkeypatch.chdir(tmp_path)
    done = run_as_cell(work(Path("main.py")).cell("/workspace/stdin"), tmp_path)
    assert done.stdout == "piped\n", done.stderr
    assert not (tmp_path / "stdin").exists()


def test_code_that_is_no_file_runs_as_it_is() -> None:
    assert work().cell("") == "1"
    assert "['-c', 'a b']" in work(None, "a b").preparation()


def test_a_file_need_not_be_utf_8(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_bytes(b"# coding: latin-1\nprint('\xe9')\n")
    assert work(tmp_path / "main.py").is_program


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("It exited with code 9.", 9),
        ("It was ended by SIGSEGV. 1 process that it had left was ended.", 139),
        ("Its process is gone, for a reason that is not known.", exits.FAILED),
    ],
)
def test_a_file_that_takes_its_process_along_exits_as_that(reason: str, code: int) -> None:
    ended = result(status="died", state="lost", reason=reason)
    assert exit_code(ended, is_program=True) == code
    assert exit_code(ended) == exits.FAILED


def test_a_shell_script_finds_its_arguments() -> None:
    assert work(None, "a b", "c", kernel="bash").preparation() == "set -- 'a b' c"
    assert work(kernel="bash").preparation() == work().preparation() == ""


def test_other_kernels_take_no_arguments() -> None:
    with pytest.raises(InvalidRequest):
        work(None, "a", kernel="other")


def test_the_script_and_the_requirements_go_along_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    for name in ("src/main.py", "requirements.txt", "data.csv"):
        (tmp_path / name).write_text("x")
    baggage = Baggage(with_=(Path("src"), Path("data.csv")), requirements=Path("requirements.txt"))
    names = sorted(each.name for each in baggage.outgoing(Path("src/main.py")).files)
    assert names == ["data.csv", "requirements.txt", "src/main.py"]


def test_requirements_are_where_pip_looks_also_when_a_folder_from_elsewhere_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "project").mkdir()
    (tmp_path / "project/requirements.txt").write_text("x")
    monkeypatch.chdir(tmp_path / "here")
    folder = Path("../project")
    baggage = Baggage(with_=(folder,), requirements=folder / "requirements.txt")
    names = sorted(each.name for each in baggage.outgoing(None).files)
    assert names == ["project/requirements.txt", "requirements.txt"]
