"""``!command``, ``x = !command`` and ``%%bash`` with its like, where there is no keyboard.

A command inherits the cell's descriptors, so it writes where Python writes, in that order, and what
it leaves running holds nothing up: a cell waits for the command itself. What is to be a Python text
goes to a file without a name. No thread and no pty is made for any of it.
"""

# IPython is annotated in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

from IPython.core.magic_arguments import MagicArgumentParser
from IPython.utils.process import arg_split  # pyright: ignore[reportPrivateImportUsage]
from IPython.utils.text import LSString, SList

INTERRUPT_S = 1.0
"""How long what was interrupted may still take, before it is killed."""
SCRIPT_MAGICS = ("bash", "sh", "perl", "ruby", "python", "python2", "python3", "pypy")
MAX_ARGUMENT_BYTES = 100_000
"""Of a script that is given as an argument; Linux takes 128 KiB."""
_SHELLS = frozenset(("bash", "sh", "dash"))
_TAKES_VALUE = frozenset(("o", "O"))


class ShellCommands:
    """The commands of one IPython shell."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell

    def system(self, command: str) -> None:
        """Run ``!command``; how it ended is in ``_exit_code``, negative for a signal."""
        expanded = self._shell.var_expand(command, depth=1)
        self._tell(_signalled(self._call(_argv(expanded))), command)

    def getoutput(self, command: str, split: bool = True, depth: int = 0) -> Any:
        """Run a command and return what it writes, on either stream."""
        expanded = self._shell.var_expand(command, depth=depth + 1)
        with _file() as output:
            code = self._call(_argv(expanded), stdout=output, stderr=output)
            text = _content(output)
        if self._shell.system_raise_on_error:
            self._tell(_signalled(code), command)
        return SList(text.splitlines()) if split else LSString(text)

    def script(self, line: str, cell: str) -> None:
        """Run the text of a cell by a program, ``%%script``.

        Raises:
            CalledProcessError: It ended with another code than 0.
        """
        args, words = _parser().parse_known_args(arg_split(line))
        if not words:
            raise ValueError("%%script needs the name of a program.")
        if args.bg and (args.out or args.err or args.proc):
            self._shell.magics_manager.registry["ScriptMagics"].shebang(line, cell)
            return
        text = f"{cell.rstrip(chr(10))}\n".encode("utf-8", "replace")
        argv, stdin = with_script(words, text)
        try:
            with _file(stdin) as given:
                if args.bg:
                    self._start(argv, given, subprocess.DEVNULL, subprocess.DEVNULL)
                    return
                code = self._captured(argv, given, args.out, args.err)
        except FileNotFoundError:
            print(f"Couldn't find program: {words[0]!r}")
            return
        if code and args.raise_error:
            raise _plain(subprocess.CalledProcessError(code, text))

    def _captured(self, argv: Sequence[str], stdin: int, out: str | None, err: str | None) -> int:
        """Run a program; what it writes is put into the variables that have these names."""
        with contextlib.ExitStack() as files:
            kept = {name: files.enter_context(_file()) for name in (out, err) if name}
            try:
                return self._call(
                    argv,
                    stdin,
                    kept[out] if out else None,
                    kept[err] if err else None,
                )
            finally:
                for name, file in kept.items():
                    self._shell.user_ns[name] = _content(file)

    def _call(
        self,
        argv: Sequence[str],
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> int:
        """Run a program to its end, or end it with all of its group when interrupted."""
        process = self._start(argv, stdin, stdout, stderr)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            self._shell.user_ns["_exit_code"] = -signal.SIGINT
            _end(process)
        else:
            return code
        finally:
            self._settle()
        raise _plain(KeyboardInterrupt())

    def _start(
        self, argv: Sequence[str], stdin: int, stdout: int | None, stderr: int | None
    ) -> subprocess.Popen[bytes]:
        self._settle()
        # In a group of its own, as a shell would start it, to be interrupted with what it starts.
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, process_group=0)

    def _settle(self) -> None:
        """What was written before is before what is written now."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # a cell may have put anything there
                stream.flush()
        if (streams := getattr(self._shell, "streams", None)) is not None:
            streams.settle()

    def _tell(self, code: int, command: str) -> None:
        self._shell.user_ns["_exit_code"] = code
        if code and self._shell.system_raise_on_error:
            raise _plain(subprocess.CalledProcessError(code, command))


def install(shell: Any) -> None:
    """Let an IPython shell run its commands so."""
    commands = ShellCommands(shell)
    shell.system, shell.getoutput = commands.system, commands.getoutput
    shell.register_magic_function(commands.script, "cell", "script")
    for name in SCRIPT_MAGICS:
        shell.register_magic_function(_named(commands, name), "cell", name)


def with_script(words: Sequence[str], text: bytes) -> tuple[list[str], bytes]:
    """How a program is given a script: its arguments, and what it reads.

    A shell gets it as an argument, since what it runs would read on in the script otherwise; other
    programs read it.
    """
    argv = list(words)
    if os.path.basename(argv[0]) in _SHELLS and len(text) <= MAX_ARGUMENT_BYTES:
        end = _options_end(argv)
        if end is not None:
            before, after = argv[:end], argv[end + 1 :]
            return [*before, "-c", text.decode(), argv[0], *after], b""
    return argv, text


def _options_end(argv: Sequence[str]) -> int | None:
    """Where a shell's options end, at ``-s`` or at all; None where it reads no script then."""
    takes_value = False
    for index, word in enumerate(argv[1:], 1):
        if takes_value:
            takes_value = False
        elif word in ("-s", "-"):
            return index
        elif word[:1] not in ("-", "+") or word == "--" or (word[1:2] != "-" and "c" in word):
            return None
        elif word[1:2] != "-":
            if "s" in word[1:]:
                return None
            takes_value = word[-1] in _TAKES_VALUE
    return len(argv)


def _named(commands: ShellCommands, name: str) -> Any:
    def script(line: str, cell: str) -> None:
        commands.script(f"{name} {line}", cell)

    script.__doc__ = f"""%%{name}: run the text of the cell by {name}, as ``%%script {name}``.

    --out NAME, --err NAME   put what it writes into variables
    --bg                     do not wait for it
    --proc NAME              with --bg: put the process into a variable
    --no-raise-error         an exit code that is not 0 is no error
    """
    return script


def _parser() -> MagicArgumentParser:
    parser = MagicArgumentParser()
    for option in ("--out", "--err", "--proc"):
        parser.add_argument(option)
    parser.add_argument("--bg", action="store_true")
    parser.add_argument("--no-raise-error", action="store_false", dest="raise_error")
    return parser


_E = TypeVar("_E", bound=BaseException)


def _plain(error: _E) -> _E:
    """An error that IPython shows without frames: none of them is the cell's."""
    words = f"{type(error).__name__}: {error}".removesuffix(": ")
    vars(error)["_render_traceback_"] = lambda: [words]
    return error


def _argv(command: str) -> list[str]:
    return [os.environ.get("SHELL") or "/bin/sh", "-c", command]


def _signalled(code: int) -> int:
    """An exit code as IPython tells it: what a shell says of a signal is negative."""
    return -(code - 128) if code > 128 else code


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process and its group, and see that it ends."""
    try:
        for number in (signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(INTERRUPT_S)
                return
    except KeyboardInterrupt:  # somebody does not want to wait
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def _file(content: bytes = b"") -> Generator[int]:
    """A file without a name, to be read from its beginning."""
    fd = os.memfd_create("cell", os.MFD_CLOEXEC)
    try:
        with open(os.dup(fd), "wb") as writer:
            writer.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _content(fd: int) -> str:
    with open(os.dup(fd), "rb") as reader:
        reader.seek(0)
        return reader.read().decode("utf-8", "replace")
