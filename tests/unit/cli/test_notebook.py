"""`sandbox notebook run` on what it cannot run: refused before a sandbox is made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.cli import exits
from sandbox.cli.notebookwork import NotebookWork
from sandbox.cli.wholefiles import write_whole
from sandbox.errors import InvalidRequest
from sandbox.notebooks.ipynb import write_ipynb
from sandbox.notebooks.models import Cell, Notebook

from ...support import commandline

VALID = write_ipynb(Notebook((Cell("a", "code", "1"),)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "n.ipynb").write_bytes(VALID)
    (tmp_path / "text.ipynb").write_text("no JSON")
    (tmp_path / "data").mkdir()
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "data/a.csv").write_text("2")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent.ipynb"], "absent.ipynb cannot be read"),
        (["data"], "data cannot be read"),
        (["text.ipynb"], "no JSON"),
        (["n.ipynb", "-p", "x"], "name=value"),
        (["n.ipynb", "-p", "a b=1"], "name=value"),
        (["n.ipynb", "--timeout", "-1"], "--timeout"),
        (["n.ipynb", "--with", "absent"], "absent cannot be read"),
        (["n.ipynb", "--with", "fifo"], "fifo is neither a file nor a folder"),
        (["n.ipynb", "--with", "a.csv", "--with", "data/a.csv"], "would be 'a.csv'"),
        (["n.ipynb", "-o", "absent/out.ipynb"], "no folder that can be written to"),
        (["n.ipynb", "-o", "data"], "no file that can be written"),
        (["n.ipynb", "-o", "fifo"], "no file that can be written"),
    ],
)
def test_what_cannot_be_run_is_refused_as_wrong_usage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(folder)
    env = {"SANDBOX_STATE_DIR": str(folder / "state"), "HOME": str(folder)}
    done = commandline.run("notebook", "run", *words, env=env)
    assert done.returncode == exits.USAGE
    assert said in done.stderr
    assert not (folder / "n.executed.ipynb").exists()


def test_the_result_is_beside_the_notebook_unless_a_place_is_named(folder: Path) -> None:
    def output(name: str | None) -> Path:
        work = NotebookWork.read(
            folder / "n.ipynb",
            name and folder / name,  # type: ignore[arg-type]
            policy="",
            kernel="",
            parameters=["x=1", "x=2"],
            allow_errors=False,
            timeout_s=0,
            files=[],
        )
        assert work.parameters == {"x": 2}
        return work.output

    assert output(None) == folder / "n.executed.ipynb"
    assert output("n.ipynb") == folder / "n.ipynb"


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.ipynb"
    path.write_bytes(b"before")
    path.chmod(0o640)
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == 0o640
    (tmp_path / "link").symlink_to(path)
    write_whole(tmp_path / "link", b"through a link")
    assert path.read_bytes() == b"through a link"
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(TypeError):
        write_whole(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"through a link"
    with pytest.raises(InvalidRequest):
        write_whole(tmp_path / "absent/out", b"")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "out.ipynb"]
