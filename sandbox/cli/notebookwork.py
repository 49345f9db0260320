"""What `sandbox notebook run` does: read, run with a progress bar, write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from sandbox.audit import recorded
from sandbox.cli import exits, logs
from sandbox.cli.hostfiles import Outgoing
from sandbox.cli.localaccess import LocalAccess
from sandbox.cli.notebookprogress import NotebookProgress
from sandbox.cli.signals import SignalEnding, ended_by_signals
from sandbox.cli.transfers import copy_in
from sandbox.cli.wholefiles import check_target, write_whole
from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.errorgroups import one_error
from sandbox.errors import InvalidRequest, NotFound, SandboxError
from sandbox.notebooks.ipynb import MAX_BYTES, read_ipynb, write_ipynb
from sandbox.notebooks.models import Notebook
from sandbox.notebooks.parameters import Scalar, has_parameters, inject, parse_parameter
from sandbox.notebooks.runrules import RunOutcome
from sandbox.server.grants import LOCAL
from sandbox.sessions.models import Caller
from sandbox.sessions.notebookrun import NotebookRun, start_kernel
from sandbox.sessions.session import Session

EXIT_CODES = {
    "ok": exits.OK,
    "error": exits.FAILED,
    "died": exits.FAILED,
    "timeout": exits.TIMED_OUT,
    "interrupted": exits.INTERRUPTED,
    "lost": exits.INFRASTRUCTURE,
}
SAVE_INTERVAL_S = 30.0
"""How often a run that lasts is written, so that a crash takes no more of it."""


@dataclass(frozen=True, slots=True)
class NotebookWork:
    """A notebook to run, and how."""

    notebook: Notebook
    notes: tuple[str, ...]
    """What was mended of it."""
    output: Path
    policy: str
    kernel: str
    """Its name; empty for what the notebook names."""
    parameters: Mapping[str, Scalar]
    allow_errors: bool
    timeout_s: float
    """Seconds that each cell may run; 0 for the policy's limit."""
    outgoing: Outgoing
    """What is copied beside it."""

    @classmethod
    def read(
        cls,
        file: Path,
        output: Path | None,
        *,
        policy: str,
        kernel: str,
        parameters: list[str],
        allow_errors: bool,
        timeout_s: float,
        files: list[Path],
    ) -> NotebookWork:
        """The work of a command line.

        Raises:
            InvalidRequest: The notebook, a parameter or a file cannot be used.
        """
        if timeout_s < 0:
            raise InvalidRequest("--timeout is a number of seconds, 0 or more.")
        outgoing = Outgoing()
        for path in files:
            outgoing.add(path, path.resolve().name)
        given = dict(map(parse_parameter, parameters))
        target = output or file.with_name(f"{file.stem}.executed.ipynb")
        check_target(target)
        notebook, notes = read_ipynb(_data(file))
        return cls(
            notebook,
            notes,
            target.resolve(),
            policy,
            kernel,
            given,
            allow_errors,
            timeout_s,
            outgoing,
        )

    def arguments(self) -> dict[str, object]:
        """What the audit log keeps the digest of."""
        told = {"notebook": write_ipynb(self.notebook).decode(), "policy": self.policy}
        return {**told, "parameters": dict(self.parameters), "timeout": self.timeout_s}


def run_work(settings: Settings, work: NotebookWork) -> int:
    """Run it, write what came of it, and return the exit code.

    Raises:
        SandboxError: It could not be run, or not to its end; what was run is written.
    """
    logs.configure(settings.log_level)
    for note in work.notes:
        _say(note)
    if work.parameters and not has_parameters(work.notebook):
        _say("No cell is tagged `parameters`, so the parameters are set in a first cell.")
    return anyio.run(_run, settings, work)


async def _run(settings: Settings, work: NotebookWork) -> int:
    async with ended_by_signals() as ending, controller(settings, "run") as manager:
        what = "sandbox notebook run"
        with recorded(manager.audit, "cli", what, work.arguments(), LOCAL) as call:
            manager.audit.require()
            try:
                session = await manager.open(Caller(LOCAL), policy=work.policy, reuse=False)
            except NotFound as exc:  # no such policy, which is no failure of the notebook
                raise InvalidRequest(exc.message, remedy=exc.remedy) from exc
            async with session.use():
                outcome = await run_in_session(session, work, ending)
            call.ended("ok" if outcome.status == "ok" else "failed", outcome.status)
        return EXIT_CODES[outcome.status]
    return ending.exit_code


async def run_in_session(session: Session, work: NotebookWork, ending: SignalEnding) -> RunOutcome:
    """Run the notebook in a session that is in use, and write what came of it in any case.

    Args:
        ending: Gets what the first Ctrl-C does.

    Raises:
        SandboxError: It could not be run, or not to its end.
    """
    if work.outgoing.files or work.outgoing.folders:
        await copy_in(LocalAccess(session), work.outgoing)
    kernel = await start_kernel(session, work.notebook, work.kernel)
    if kernel.note:
        _say(kernel.note)
    notebook = inject(work.notebook, work.parameters, kernel.spec.language)
    with NotebookProgress() as progress:
        run = NotebookRun(
            session,
            notebook,
            kernel,
            timeout_s=work.timeout_s or None,
            allow_errors=work.allow_errors,
            progress=progress.show,
        )
        ending.interrupt = run.interrupt
        try:
            outcome = await run_to_its_end(run, work.output)
        except SandboxError:
            _say(f"What was run before that: {work.output}")
            raise
        finally:
            ending.interrupt = None
            write_whole(work.output, write_ipynb(run.notebook()))
    _tell(outcome, run.notebook(), work.output)
    return outcome


async def run_to_its_end(run: NotebookRun, output: Path) -> RunOutcome:
    """Run a notebook until it ends; now and then what there is is written.

    Raises:
        SandboxError: A cell could not be run at all.
    """
    async with one_error() as tasks:
        tasks.start_soon(_save, run, output)
        outcome = await run.run()
        tasks.cancel_scope.cancel()
    return outcome


async def _save(run: NotebookRun, output: Path) -> None:
    while True:
        await anyio.sleep(SAVE_INTERVAL_S)
        data = await anyio.to_thread.run_sync(write_ipynb, run.notebook())
        with suppress(InvalidRequest):  # the last time it is said
            write_whole(output, data)


def _tell(outcome: RunOutcome, notebook: Notebook, output: Path) -> None:
    if outcome.index is not None:
        cell = notebook.cells[outcome.index]
        if cell.outputs and cell.outputs[-1]["output_type"] == "error":
            print("\n".join(cell.outputs[-1]["traceback"]), file=sys.stderr)
        _say(f"Cell {outcome.index} ({cell.id}) ended as {outcome.status}: {outcome.reason}")
    errors = f", {outcome.errors} with errors that are allowed" if outcome.errors else ""
    _say(f"{outcome.ran} of {outcome.total} code cells were run{errors}: {output}")


def _say(text: str) -> None:
    print(f"[{text}]", file=sys.stderr)


def _data(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise InvalidRequest(f"{file} cannot be read: {exc.strerror}.") from exc
