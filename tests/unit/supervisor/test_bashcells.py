"""Cells of bash, in real shells on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from sandbox.supervisor.bashkernel.cells import ShellCells
from sandbox.supervisor.bashkernel.completion import asking, completed
from sandbox.supervisor.bashkernel.ending import Ending
from sandbox.supervisor.bashkernel.syntax import problem_of

from ...support.sleepers import sleeps

pytestmark = pytest.mark.anyio
PATIENCE_S = 30


class Bash:
    """A shell, and what its cells wrote."""

    def __init__(self, cwd: Path) -> None:
        self.cells = ShellCells(str(cwd))
        self.written: list[str] = []

    async def run(self, code: str) -> tuple[str, Ending]:
        """What a cell wrote until its end, and that."""
        self.written = written = []
        with anyio.fail_after(PATIENCE_S):
            ending = await self.cells.execute(code, lambda _, text: written.append(text))
        return "".join(written), ending

    async def says(self, code: str) -> str:
        """What a cell writes that ends well."""
        written, ending = await self.run(code)
        assert ending == Ending(0), written
        return written

    async def interrupted(self, code: str, ready: Callable[[], bool]) -> tuple[str, Ending]:
        """Run a cell and interrupt it once something is so."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.run(code))
            await asyncio.sleep(0)  # what is to be interrupted begins first
            await until(ready)
            self.cells.interrupt()
        return running.result()


async def until(ready: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE_S):
        while not ready():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def opened(cwd: Path) -> AsyncIterator[Bash]:
    made = Bash(cwd)
    try:
        yield made
    finally:
        made.cells.close()


@pytest.fixture
async def bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bash]:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with opened(tmp_path) as made:
        yield made


async def test_state_lives_from_cell_to_cell(bash: Bash, tmp_path: Path) -> None:
    assert (
        await bash.run("v=5; cd /; f() { echo f$1; }; alias g='echo g'; set -- a 'b c'; false")
    ) == ("", Ending(1))
    assert await bash.says('echo $?; echo $v $PWD $# "$2"; f 1; g') == "1\n5 / 2 b c\nf1\ng\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('x=1\necho "abc', "bash: line 2: unexpected EOF while looking for matching `\"'"),
        ("echo `date", "bash: line 1: unexpected EOF while looking for matching ``'"),
        (
            "x=1\ncat <<EOF\nabc\n",
            "here-document at line 2 delimited by end-of-file (wanted `EOF')",
        ),
        ("if true; then\n  echo x", "bash: line 3: syntax error: unexpected end of file"),
        ("(echo x", "syntax error: unexpected end of file"),
        ("echo a \\", "bash: line 1: a backslash at the end"),
        ("echo a\necho b &&\\\n\n", "syntax error: unexpected end of file"),
        ("done", "bash: line 1: syntax error near unexpected token `done'"),
    ],
)
async def test_what_bash_cannot_read_is_an_error_at_once_and_nothing_of_it_is_run(
    bash: Bash, code: str, said: str
) -> None:
    await bash.says("x=0")
    began = time.monotonic()
    written, ending = await bash.run(code)
    assert time.monotonic() - began < PATIENCE_S / 2
    assert (written, ending.exit_code, ending.shell_ended) == ("", 2, "")
    assert said in ending.problem
    assert await bash.says("echo $x") == "0\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("echo a\n# a comment \\", "a\n"),
        ("echo 'a\\\\'", "a\\\\\n"),
        ("echo a\\\\", "a\\\n"),
        ("shopt -s extglob\necho /!(*a*|*e*|*o*|*i*|*u*|*y*)", None),
        ("cat <<'EOF'\na \\\nEOF", "a \\\n"),
        ("", ""),
        ("exit_code=3\tx=1; echo $exit_code", "3\n"),
    ],
)
async def test_what_looks_unfinished_and_is_not_is_run(
    bash: Bash, code: str, said: str | None
) -> None:
    written = await bash.says(code)
    assert said is None or written == said


@pytest.mark.parametrize(
    ("code", "exit_code", "how"),
    [
        ("exit", 0, "exit 0"),
        ("exit 3", 3, "exit 3"),
        ("set -e\nfalse", 1, "exit 1"),
        ("exec true", 0, "exit 0"),
        ("kill -9 $$; sleep 60", 137, "killed by SIGKILL"),
        ("sleep 60 & exit 4", 4, "exit 4"),
    ],
)
async def test_the_end_of_the_shell_ends_the_cell_and_is_told_by_it_and_the_next(
    bash: Bash, code: str, exit_code: int, how: str
) -> None:
    await bash.says("v=5")
    written, ending = await bash.run(f"trap 'echo bye' EXIT; echo a; {code}\necho never")
    assert "never" not in written
    assert ending == Ending(exit_code, shell_ended=how)
    told, ending = await bash.run("echo [$v] $?")
    assert told == f"[a new shell, without the variables of the last: {how}]\n[] 0\n"
    assert ending == Ending(0)
    assert await bash.says("echo again") == "again\n"


async def test_a_shell_that_ended_between_cells_is_told_by_the_next(bash: Bash) -> None:
    pid = int(await bash.says("echo $$"))
    os.kill(pid, signal.SIGKILL)
    await until(lambda: bash.cells.has_lost_shell)
    assert await bash.run("echo x") == (
        "[a new shell, without the variables of the last: killed by SIGKILL]\nx\n",
        Ending(0, shell_ended="killed by SIGKILL"),
    )


async def test_nobody_types_and_background_processes_hold_no_cell(bash: Bash) -> None:
    assert await bash.says("cat; read x; echo $?; python3 -c 'input()' 2>&1 | tail -1") == (
        "1\nEOFError: EOF when reading a line\n"
    )
    await bash.says("sleep 61 & server=$!; (sleep 62 &)")
    assert await bash.says("kill $server && echo it ran") == "it ran\n"
    assert "62" in await bash.says("pgrep -af 'sleep 62'; pkill -f 'sleep 62'")


async def test_what_is_written_after_a_cell_is_told_as_that_cells(
    bash: Bash, tmp_path: Path
) -> None:
    assert await bash.says(f"(until [ -e {tmp_path}/go ]; do sleep 0.02; done; echo late) &") == ""
    first = bash.written
    assert await bash.says(f"touch {tmp_path}/go; echo other") == "other\n"
    await until(lambda: first == ["late\n"])


@pytest.mark.parametrize("code", ["sleep 60", "set -m; sleep 60", "f() { sleep 60; }; f", "wait"])
async def test_an_interrupt_ends_the_cell_and_keeps_the_shell(
    bash: Bash, tmp_path: Path, code: str
) -> None:
    begun = tmp_path / "begun"
    await bash.says("v=6; sleep 63 & before=$!; until grep -q sleep /proc/$before/comm; do :; done")
    written, ending = await bash.interrupted(
        f"echo $$ > {begun}; while true; do {code}; done; echo never",
        begun.exists if code == "wait" else sleeps(begun),
    )
    assert (written, ending) == ("", Ending(130, is_interrupted=True))
    assert await bash.says("echo $v; kill $before && echo kept") == "6\nkept\n"


async def test_a_cell_that_handles_an_interrupt_goes_on(bash: Bash, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"trap 'echo caught' INT; echo $$ > {begun}; sleep 60; echo after; trap - INT"
    assert await bash.interrupted(code, sleeps(begun)) == ("caught\nafter\n", Ending(0))


async def test_both_streams_keep_their_order_and_a_wrong_byte_costs_itself_only(bash: Bash) -> None:
    lines = "".join(f"out{n}\nerr{n}\n" for n in range(1, 6))
    assert await bash.says("for n in 1 2 3 4 5; do echo out$n; echo err$n >&2; done") == lines
    assert await bash.says("printf '\\xe2\\x82'; printf '\\xacA\\xffB\\xe2'") == "€A\\xffB\\xe2"
    assert await bash.says("printf 'a\tb\n'") == "a\tb\n"
    assert len(await bash.says("head -c 3000000 /dev/zero | tr '\\0' x")) == 3_000_000


@pytest.mark.parametrize(
    "code",
    [
        "PS1='$(echo x) ' PS2=y PROMPT_COMMAND='echo prompt; false'",
        "set -x",
        "set -v",
        "set -u",
        "set -e",
        "set -f; set -C; set -o posix; IFS=0123456789",
        "trap 'echo t' DEBUG ERR RETURN INT",
        "shopt -s expand_aliases; alias .=false builtin=false printf=false unset=false",
        "printf() { :; }; echo_() { :; }",
        "builtin() { :; }",
        "exec >/dev/null 2>&1 </dev/null",
        "exec 3>&1 4<&0",
        "umask 777",
        "set -o history -H; set -m",
        "return 0",
    ],
)
async def test_what_a_cell_changes_breaks_no_cell_after_it(bash: Bash, code: str) -> None:
    await bash.run(code)
    written, ending = await bash.run('x=1; echo "=$x="')
    assert "=1=\n" in written
    assert ending == Ending(0)


async def test_a_cell_sees_no_descriptor_but_its_own_three(bash: Bash) -> None:
    listing = "python3 -c 'import os; print(sorted(os.listdir(\"/proc/self/fd\")))'"
    assert await bash.says(listing) == "['0', '1', '2', '3']\n"  # the last is the listing itself
    assert await bash.says("[ -t 0 ] || [ -t 1 ] || (: </dev/tty) 2>/dev/null || echo none") == (
        "none\n"
    )


async def test_what_starts_every_interactive_shell_is_read_but_not_from_our_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".bashrc").write_text("own=7; cat; echo noise")
    async with opened(tmp_path) as bash:
        assert await bash.says("echo $own") == "7\n"


async def test_an_interrupt_while_the_shell_starts_ends_the_cell_unrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    begun = tmp_path / "begun"
    (tmp_path / ".bashrc").write_text(f"echo $$ > {begun}; while true; do sleep 60; done")
    async with opened(tmp_path) as bash:
        assert await bash.interrupted("echo x", sleeps(begun)) == (
            "",
            Ending(130, is_interrupted=True),
        )


async def test_words_are_completed_by_what_the_shell_knows(bash: Bash, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file one").touch()
    await bash.says("my_own_name=1; my_own_function() { :; }")

    async def matches(code: str) -> list[str]:
        with anyio.fail_after(PATIENCE_S):
            printed = await bash.cells.ask(asking(code, len(code)))
        return completed(printed, code, len(code))["matches"]

    assert await matches("echo $my_own_n") == ["$my_own_name"]
    assert await matches("x=1; my_own_f") == ["my_own_function"]
    assert await matches("ls fol") == ["folder/"]
    assert await matches("ls folder/f") == ["folder/file one"]
    assert await matches("ls nothing-of-this") == []
    assert await bash.says("echo $?") == "0\n"


def test_only_what_more_lines_could_end_is_unfinished() -> None:
    unfinished = ["echo 'a", "if true", "cat <<E\n", "a \\", "f() {"]
    problems = [problem_of(code.encode()) for code in unfinished]
    assert all(problem is not None and problem.is_unfinished for problem in problems)
    wrong = problem_of(b"fi")
    assert wrong is not None
    assert not wrong.is_unfinished
