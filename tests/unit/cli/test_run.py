"""The words of `sandbox run`: the program's, ours, and what it exits with."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("status", "said", "code"),
    [("ok", 0, 0), ("error", 3, 3), ("error", -1, 255), ("error", 256, 0), ("died", 7, 7)],
)
def test_the_exit_code_that_the_kernel_tells_is_the_programs(
    status: str, said: int, code: int
) -> None:
    assert exit_code(result(status=status, exit_code=said)) == code


def test_other_endings_have_exit_codes_of_their_own() -> None:
    assert exit_code(result(status="error")) == exits.FAILED
    assert exit_code(result(status="timeout")) == exits.TIMED_OUT
    assert exit_code(result(status="interrupted")) == exits.INTERRUPTED


def test_a_program_finds_its_arguments_its_name_and_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "main.py").write_text("1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", [])
    names: dict[str, object] = {}
    exec(work(Path("sub/main.py"), "a b", "'").preparation(), names)  # noqa: S102
    assert sys.argv == ["sub/main.py", "a b", "'"]
    assert names["__file__"] == "/workspace/sub/main.py"
    assert sys.path == ["/workspace/sub"]


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
