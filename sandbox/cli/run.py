"""`sandbox run`: one piece of code in a sandbox of its own, with files in and results out."""

from __future__ import annotations

import inspect
import posixpath
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from sandbox.cli import exits, fileprogram, logs
from sandbox.cli.cellchannel import run_cell
from sandbox.cli.execute import PIECE_BYTES, piped_at_once, run_in
from sandbox.cli.hostfiles import HostFolder, Outgoing, name_inside
from sandbox.cli.newsession import new_session
from sandbox.cli.printing import Printer
from sandbox.cli.sessionaccess import Access
from sandbox.cli.signals import SignalEnding, ended_by_signals
from sandbox.cli.targets import ControllerTarget
from sandbox.cli.transfers import copy_in, copy_out, matching, shown
from sandbox.config import Settings
from sandbox.container.spec import WORKSPACE
from sandbox.errors import InvalidRequest, SandboxError
from sandbox.kernels.models import ExecutionResult
from sandbox.server.arguments import MAX_CODE

EXIT_CODES = {
    "ok": exits.OK,
    "error": exits.FAILED,
    "died": exits.FAILED,
    "timeout": exits.TIMED_OUT,
    "interrupted": exits.INTERRUPTED,
    "lost": exits.INFRASTRUCTURE,
    "running": exits.INFRASTRUCTURE,
}
PYTHON, BASH = "python3", "bash"
STDIN = "/tmp/.sandbox/stdin"  # noqa: S108  # in the session
"""What a program reads as its standard input, until it has begun."""
_ENDED = re.compile(r"It (?:exited with code (\d{1,3})|was ended by (SIG[A-Z]+))\b")


@dataclass(frozen=True, slots=True)
class Baggage:
    """What goes along with code, and what is to come back."""

    with_: tuple[Path, ...] = ()
    """Files and folders that are copied in."""
    requirements: Path | None = None
    """A file of packages to be installed."""
    get: tuple[str, ...] = ()
    """Globs of results, relative to the workspace."""
    to: Path = Path()
    """The folder they are written to."""
    force: bool = False
    """Whether they may replace what is there."""

    def outgoing(self, script: Path | None) -> Outgoing:
        """What is copied in; looked at before anything starts.

        Raises:
            InvalidRequest: It cannot be copied.
        """
        outgoing = Outgoing()
        for path in self.with_:
            outgoing.add(path, name_inside(path))
        for path in (script, self.requirements):
            if path is not None and not outgoing.has(path, name_inside(path)):
                outgoing.add(path, name_inside(path))
        return outgoing


@dataclass(frozen=True, slots=True)
class Work:
    """What to run."""

    code: str
    policy: str
    kernel: str
    timeout_s: float
    """Seconds it may run; 0 for the policy's limit."""
    images: Path
    stem: str
    script: Path | None = None
    """The file that the code is of; None for other code."""
    args: tuple[str, ...] = ()
    """What the program is given."""

    @property
    def is_program(self) -> bool:
        """Whether it is a file that runs as a file, and not the code of a cell."""
        return self.script is not None and self.kernel == PYTHON

    @classmethod
    def read(
        cls,
        file: str | None,
        code: str | None,
        args: Sequence[str] = (),
        *,
        policy: str,
        kernel: str,
        timeout_s: float,
        images: Path | None,
    ) -> Work:
        """The work of a command line.

        Raises:
            InvalidRequest: The code cannot be read, or is not text of a bounded length.
        """
        folder, stem, script = Path.cwd(), "output", None
        if code is None:
            if file not in (None, "-"):
                script = Path(file)
                folder, stem = script.parent, script.stem
            is_program = script is not None and kernel == PYTHON
            code = _read(file or "-", errors="replace" if is_program else "strict")
        if len(code) > MAX_CODE or "\0" in code:
            raise InvalidRequest(f"Code has at most {MAX_CODE} characters and no NUL.")
        if timeout_s < 0:
            raise InvalidRequest("--timeout is a number of seconds, 0 or more.")
        if args and kernel not in (PYTHON, BASH):
            raise InvalidRequest(f"Arguments can be given to {PYTHON} and {BASH} only.")
        folder = images or folder
        return cls(code, policy, kernel, timeout_s, folder, stem, script, tuple(args))

    def arguments(self) -> dict[str, object]:
        """What the audit log keeps the digest of."""
        told = {"code": self.code, "policy": self.policy, "kernel": self.kernel}
        return {**told, "timeout": self.timeout_s, "args": list(self.args)}

    def preparation(self) -> str:
        """Code that is run before a cell, so that it finds its arguments."""
        if not self.args or self.kernel not in (PYTHON, BASH):
            return ""
        if self.kernel == BASH:
            return f"set -- {shlex.join(self.args)}"
        return f"import sys as _sys; _sys.argv[:] = {['-c', *self.args]!r}; del _sys"

    def cell(self, stdin: str) -> str:
        """The code of the cell that runs it.

        Args:
            stdin: A file of the session that a program reads as its standard input; empty: none.
        """
        if not self.is_program or self.script is None:
            return self.code
        name = name_inside(self.script)
        place = posixpath.join(WORKSPACE, name)
        call = f"run_file({place!r}, {[name, *self.args]!r}, {stdin!r})"
        return f"{inspect.getsource(fileprogram)}\n\n{call}\n"


def split_arguments(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What a program is given, and the globs of ``--get`` that stand behind that.

    Whatever follows ``--`` is the program's, but for ``--get GLOB`` at the very end, which is
    ours; a last ``--`` hands even that to the program.
    """
    args, globs = list(words), list[str]()
    if args[-1:] == ["--"]:
        return args[:-1], []
    while True:
        if args and args[-1].startswith("--get="):
            globs.insert(0, args.pop().removeprefix("--get="))
        elif len(args) > 1 and args[-2] == "--get":
            globs.insert(0, args.pop())
            args.pop()
        else:
            return args, globs


def run_work(
    settings: Settings, target: ControllerTarget, work: Work, baggage: Baggage, *, as_json: bool
) -> int:
    """Run it, print what comes, fetch the results, and return the exit code.

    Raises:
        SandboxError: It could not be run.
    """
    logs.configure(settings.log_level)
    takes_files = bool(baggage.with_ or baggage.requirements or baggage.get or work.args)
    script = work.script if takes_files or work.is_program else None
    outgoing = baggage.outgoing(script if script and script.is_file() else None)
    return anyio.run(_run, settings, target, work, baggage, outgoing, as_json)


async def _run(
    settings: Settings,
    target: ControllerTarget,
    work: Work,
    baggage: Baggage,
    outgoing: Outgoing,
    as_json: bool,
) -> int:
    async with ended_by_signals() as ending:
        installs = baggage.requirements is not None
        opened = new_session(
            settings, target, work.policy, "sandbox run", work.arguments(), installs=installs
        )
        async with opened as (access, call):
            if outgoing.files or outgoing.folders:
                await copy_in(access, outgoing)
            if baggage.requirements is not None:
                code = await _install(access, baggage.requirements, ending)
                if code != exits.OK:
                    if call is not None:
                        call.ended("failed", "not_installed")
                    return code
            if work.is_program and work.script and not work.script.is_file():  # such as a pipe
                await access.write(name_inside(work.script), _pieces(work.code.encode()), None)
            printer = Printer(work.images, work.stem, quiet=as_json)
            try:
                result = await _execute(access, work, printer, ending)
            finally:
                printer.restore()
            code = exit_code(result, is_program=work.is_program)
            if call is not None:
                is_well = code == exits.OK
                call.ended("ok" if is_well else "failed", "ok" if is_well else result.status)
            printer.close(result)
            if as_json:
                print(result.model_dump_json(indent=2))
            if baggage.get and not await _fetch(access, baggage) and code == exits.OK:
                return exits.FAILED
            return code
    return ending.exit_code


async def _install(access: Access, requirements: Path, ending: SignalEnding) -> int:
    """Install what a file of the workspace names; its output goes to standard error."""
    pip = ["python", "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    argv = [*pip, "--requirement", name_inside(requirements)]
    code = await run_in(access, argv, ending, to_stderr=True)
    if code != exits.OK:
        print(f"[the packages of {requirements} could not be installed]", file=sys.stderr)
    return code


async def _execute(
    access: Access, work: Work, printer: Printer, ending: SignalEnding
) -> ExecutionResult:
    async with access.channel("kernel") as channel:
        await channel.send({"kernel": "" if work.kernel == PYTHON else work.kernel})
        if prepared := work.preparation():
            await run_cell(channel, prepared, None)
        given = piped_at_once() if work.is_program else None
        if given is not None:
            await access.write(STDIN, _pieces(given), 0o600)

        async def interrupt() -> None:
            await channel.send({"interrupt": True})

        ending.interrupt = interrupt
        cell = work.cell(STDIN if given is not None else "")
        result = await run_cell(channel, cell, printer, work.timeout_s)
        ending.interrupt = None
        return result


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), PIECE_BYTES):
        yield data[at : at + PIECE_BYTES]


def exit_code(result: ExecutionResult, *, is_program: bool = False) -> int:
    """What the program exits with: as it says itself, else how it ended; for a file also where it
    took its process along."""
    if is_program and result.status == "died" and (found := _ENDED.match(result.reason or "")):
        return int(found[1]) if found[1] else 128 + signal.Signals[found[2]]
    if result.status != "error" or result.error is None or result.error.name != "SystemExit":
        return EXIT_CODES[result.status]
    said = result.error.value.strip()
    if said in ("", "None", "False"):
        return exits.OK
    number = said.removeprefix("-")
    if number.isdecimal() and len(number) < 10:
        return int(said) & 0xFF
    return exits.FAILED


async def _fetch(access: Access, baggage: Baggage) -> bool:
    """Write the results; False when one that is there may not be replaced."""
    problems: list[str] = []
    with HostFolder(baggage.to, force=baggage.force) as folder:
        for pattern in baggage.get:
            try:
                found, most = await matching(access, pattern)
            except SandboxError as exc:
                print(f"sandbox: --get {shown(pattern)}: {exc}", file=sys.stderr)
                continue
            if not found:
                print(f"sandbox: --get {shown(pattern)} matches nothing", file=sys.stderr)
            told = "" if baggage.to == Path() else f"{baggage.to}/"
            problems += await copy_out(access, found, folder, most=most, told=told)
    for problem in problems:
        print(f"sandbox: {problem}", file=sys.stderr)
    return not problems


def _read(file: str, errors: str = "strict") -> str:
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            return stream.read(MAX_CODE + 1).decode(errors=errors)
    except OSError as exc:
        raise InvalidRequest(f"{file} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{file} is not a text in UTF-8.") from exc
