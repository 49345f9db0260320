"""Commands of a cell, in an IPython shell in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.supervisor.pykernel.shellcommands import with_script

from ...support.sleepers import is_run

ROOT = Path(__file__).parents[3]
_START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from IPython.core.interactiveshell import InteractiveShell
from sandbox.supervisor.pykernel.shellcommands import install
shell = InteractiveShell(colors="nocolor")
shell.history_manager.enabled = False
install(shell)
for cell in sys.argv[1:]:
    shell.run_cell(cell)
"""
PATIENCE_S = 30


def started(folder: Path, *cells: str, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """A process that runs cells; a keyboard is there, on which nobody types."""
    return subprocess.Popen(
        [sys.executable, "-c", _START, *cells],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "SHELL": "/bin/bash", "IPYTHONDIR": str(folder)},
    )


def run(folder: Path, *cells: str) -> str:
    """What cells print; both streams in the order in which they were written."""
    process = started(folder, *cells)
    assert process.stdin
    out = process.communicate(timeout=PATIENCE_S)[0]
    return out


def test_a_command_that_asks_finds_the_end_of_its_input(tmp_path: Path) -> None:
    process = started(tmp_path, "!cat; read x; echo $?", "x = !cat; echo got", "print(x)")
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(2)]
    process.kill()
    process.communicate()
    assert lines == ["1\n", "['got']\n"]


def test_what_python_and_commands_write_keeps_its_order(tmp_path: Path) -> None:
    cell = (
        "import sys\nprint('a', end=' ')\n!echo b\n"
        "print('c', file=sys.stderr, end=' ')\n!echo d >&2"
    )
    assert run(tmp_path, cell) == "a b\nc d\n"


def test_variables_are_expanded_and_the_exit_code_is_told_as_ipython_does(tmp_path: Path) -> None:
    cells = (
        "n = 3",
        "!exit {n}",
        "print(_exit_code)",
        "!kill -9 $$",
        "print(_exit_code)",
        "!(exit 137)",
        "print(_exit_code)",
        "def f(name):\n    !echo $name {name}\nf('local')",
        "!true\nprint(_exit_code)",
    )
    assert run(tmp_path, *cells) == "3\n-9\n-9\nlocal local\n0\n"


def test_a_failing_command_raises_only_where_that_was_asked_for(tmp_path: Path) -> None:
    cells = ("get_ipython().system_raise_on_error = True", "!exit 3", "x = !exit 4")
    said = run(tmp_path, *cells)
    assert "returned non-zero exit status 3" in said
    assert "returned non-zero exit status 4" in said


@pytest.mark.parametrize(
    "cell",
    [
        "!sleep 60 & echo $!",
        "x = !sleep 60 & echo $!\nprint(x[0])",
        "%%bash\nsleep 60 &\necho $!",
        "%%bash --out pid\nsleep 60 &\necho $!",
        "%%bash --bg\necho $$ > pid; exec sleep 60",
    ],
)
def test_a_background_process_does_not_hold_the_cell_and_lives_on(
    tmp_path: Path, cell: str
) -> None:
    done = (
        "import os, signal, time\n"
        "for _ in range(200 if 'bg' in cell else 0):\n"
        "    if os.path.exists('pid') and open('pid').read().strip(): break\n"
        "    time.sleep(0.05)\n"
        "if os.path.exists('pid'): print(open('pid').read())\n"
        "elif 'pid' in globals(): print(pid)"
    )
    process = started(tmp_path, f"cell = {cell!r}", cell, done, "print('done', flush=True)")
    assert process.stdout
    lines = list(iter(process.stdout.readline, "done\n"))
    [pid] = [int(line) for line in lines if line.strip()]
    try:
        until = time.monotonic() + PATIENCE_S
        while not (words := Path(f"/proc/{pid}/cmdline").read_bytes()):
            assert time.monotonic() < until  # one that just begins a program has none
        # It may still have the name of who made it.
        assert b"sleep 60" in words.replace(b"\0", b" ")
    finally:
        subprocess.run(["kill", str(pid)], check=True)
        process.communicate(timeout=PATIENCE_S)


def test_a_script_is_run_whole_although_its_commands_read(tmp_path: Path) -> None:
    cell = "%%bash -eu -s one two\ncat\nread x || echo no input\necho $# $2\n# end"
    assert run(tmp_path, cell, "%%sh\ncat\necho sh", "%%script perl\nprint 7") == (
        "no input\n2 two\nsh\n7"
    )


def test_a_long_script_is_run_too(tmp_path: Path) -> None:
    cell = f"%%bash\n# {'x' * 200_000}\necho long\ncat <<'EOF' | wc -c\n{'y' * 1000}\nEOF"
    file = tmp_path / "cell.py"
    file.write_text(cell)
    assert (
        run(tmp_path, f"get_ipython().run_cell(open({str(file)!r}).read()); None") == "long\n1001\n"
    )


def test_what_a_script_writes_goes_into_variables_and_its_code_is_an_error(tmp_path: Path) -> None:
    cells = (
        "%%bash --out a --err b --no-raise-error\necho out; echo err >&2; exit 3",
        "print(repr(a), repr(b))",
        "%%bash\nexit 5",
        "%%script nothing-of-this-name\nx",
    )
    said = run(tmp_path, *cells)
    assert said.startswith("'out\\n' 'err\\n'\n")
    assert "CalledProcessError: Command 'b'exit 5\\n'' returned non-zero exit status 5" in said
    assert said.endswith("Couldn't find program: 'nothing-of-this-name'\n")


@pytest.mark.parametrize("cell", ["!{}", "x = !{}", "%%bash\n{}", "%%bash --out x\n{}"])
def test_an_interrupt_ends_a_command_with_what_it_runs_and_the_cell(
    tmp_path: Path, cell: str
) -> None:
    seconds = f"61.{os.getpid()}{time.monotonic_ns()}"
    command = f"sleep {seconds}; touch {tmp_path}/after"
    after = "" if cell.startswith("%%") else "\nprint('after')"
    process = started(tmp_path, cell.format(command) + after, "print('next')")
    deadline = time.monotonic() + PATIENCE_S
    while not is_run("sleep", seconds):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert "KeyboardInterrupt" in said
    assert "after\n" not in said
    assert said.endswith("next\n")
    assert not (tmp_path / "after").exists()


@pytest.mark.parametrize(
    ("words", "argv", "stdin"),
    [
        (["bash"], ["bash", "-c", "x", "bash"], b""),
        (
            ["bash", "-e", "-o", "pipefail"],
            ["bash", "-e", "-o", "pipefail", "-c", "x", "bash"],
            b"",
        ),
        (["/bin/sh", "-s", "a"], ["/bin/sh", "-c", "x", "/bin/sh", "a"], b""),
        (["bash", "-c", "cat"], ["bash", "-c", "cat"], b"x"),
        (["bash", "file.sh"], ["bash", "file.sh"], b"x"),
        (["bash", "-es", "a"], ["bash", "-es", "a"], b"x"),
        (["perl", "-w"], ["perl", "-w"], b"x"),
    ],
)
def test_a_shell_gets_its_script_as_an_argument_and_others_read_it(
    words: list[str], argv: list[str], stdin: bytes
) -> None:
    assert with_script(words, b"x") == (argv, stdin)
