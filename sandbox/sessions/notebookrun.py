"""Running a notebook in a session: its code cells in order, as users of nbclient know it.

A cell's outputs and count of before are taken away when the run begins, so that what a run that
stopped half-way leaves is of that run. What is no error of the code, such as a time-out or a dead
kernel, is told in the cell as an error output, too, and ends the run whatever is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from sandbox.errors import InvalidRequest
from sandbox.kernels.execution import Execution
from sandbox.kernels.kernels import DEFAULT_KERNEL_NAME
from sandbox.kernels.models import ExecutionResult, KernelSpec
from sandbox.notebooks.models import Cell, Notebook, kernel_of
from sandbox.notebooks.runrules import EXITED, RunOutcome, allows_errors, is_run
from sandbox.sessions.cellresults import filled, reason_of
from sandbox.sessions.session import Session

MAX_OUTPUT_BYTES = 40 * 1024 * 1024
"""Of all cells together, so that what is written can be read again."""


@dataclass(frozen=True, slots=True)
class RunningKernel:
    """The kernel that runs a notebook."""

    kernel_id: str
    """Empty for the session's default one."""
    name: str
    spec: KernelSpec
    note: str = ""
    """What to tell of the choice; empty when it is the one that the notebook names."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is: a cell is about to run, or all have."""

    done: int
    total: int
    index: int
    """Of the cell in the notebook."""
    title: str
    """Its first line; empty at the end."""


async def start_kernel(session: Session, notebook: Notebook, wanted: str = "") -> RunningKernel:
    """The kernel that a notebook names, or another one of its language, in a session of its own.

    Args:
        wanted: The kernel's name, whatever the notebook names; empty for what it does.

    Raises:
        InvalidRequest: The image has no such kernel; the message names those that it has.
    """
    specs = await session.kernels.kernelspecs()
    named, language = kernel_of(notebook)
    name, note = wanted or named or DEFAULT_KERNEL_NAME, ""
    if name not in specs:
        alike = [each for each, spec in specs.items() if _alike(spec.language, language)]
        if wanted or not alike:
            there = ", ".join(f"{each} ({spec.language!r:.40})" for each, spec in specs.items())
            of = f" of {language[:40]!r}" if language and not wanted else ""
            raise InvalidRequest(
                f"The image {session.policy.image!r} has no kernel {name[:80]!r}{of}.",
                remedy=f"It has {there or 'none'}: name one of them, or another policy.",
            )
        name = alike[0]
        note = f"The notebook names the kernel {named[:80]!r}; {name} of its language runs it."
    kernel_id = ""
    if name != DEFAULT_KERNEL_NAME:
        kernel_id = (await session.kernels.start(name)).kernel_id
    return RunningKernel(kernel_id, name, specs[name], note)


class NotebookRun:
    """One run of a notebook in a session that is in use.

    Args:
        timeout_s: How long each cell may run, in seconds; the policy's limit when None, never more.
        allow_errors: Go on after any cell's error.
        progress: Called before each cell and at the end.
    """

    def __init__(
        self,
        session: Session,
        notebook: Notebook,
        kernel: RunningKernel,
        *,
        timeout_s: float | None = None,
        allow_errors: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._session = session
        self._kernel = kernel
        self._timeout_s = timeout_s
        self._allow_errors = allow_errors or allows_errors(notebook)
        self._progress = progress
        self._indices = [at for at, cell in enumerate(notebook.cells) if is_run(cell)]
        wanted = set(self._indices)
        cells = [_cleared(c) if at in wanted else c for at, c in enumerate(notebook.cells)]
        self._notebook = replace(notebook, cells=tuple(cells))
        self._executions: dict[int, Execution] = {}
        self._running: Execution | None = None
        self._is_stopped = False
        self._status = "running"

    async def run(self) -> RunOutcome:
        """Run it to its end or to what ends it.

        Raises:
            SandboxError: A cell could not be run at all; :meth:`notebook` has those before it.
        """
        try:
            outcome = await self._run()
        except BaseException:
            self._status = "lost"
            raise
        self._status = outcome.status
        return outcome

    async def _run(self) -> RunOutcome:
        total, errors = len(self._indices), 0
        for done, index in enumerate(self._indices):
            cell = self._notebook.cells[index]
            self._progress(Progress(done, total, index, cell.title))
            if self._is_stopped:
                return RunOutcome("interrupted", done, total, errors, index, "It was interrupted.")
            result = await self._execute(index, cell)
            if result.status == "error" and (self._allow_errors or allows_errors(cell)):
                errors += 1
            elif result.status != "ok":
                status = "lost" if result.status == "running" else result.status
                return RunOutcome(status, done + 1, total, errors, index, reason_of(result))
            elif self._executions[index].has_exited:
                return RunOutcome("ok", done + 1, total, errors, index, EXITED)
        last = self._indices[-1] if self._indices else 0
        self._progress(Progress(total, total, last, ""))
        return RunOutcome("ok", total, total, errors)

    async def interrupt(self) -> None:
        """Let the running cell be interrupted, and no other one run."""
        self._is_stopped = True
        if self._running is not None:
            await self._running.cancel()

    def notebook(self) -> Notebook:
        """The notebook with what its cells have shown so far; later ones may change earlier ones'
        displays."""
        cells = list(self._notebook.cells)
        left = MAX_OUTPUT_BYTES
        for index, execution in self._executions.items():
            left -= execution.size_bytes
            result = execution.snapshot()
            cells[index] = filled(cells[index], execution.record, result, has_room=left > 0)
        return Notebook(tuple(cells), self._metadata())

    def _metadata(self) -> dict[str, Any]:
        name, spec, session = self._kernel.name, self._kernel.spec, self._session
        policy, digest = session.policy.name, session.claim.policy_digest
        ran = {"policy": policy, "policy_digest": digest, "status": self._status}
        kernel = {"name": name, "display_name": spec.display_name, "language": spec.language}
        metadata = self._notebook.metadata
        return {
            **metadata,
            "kernelspec": _completed(metadata.get("kernelspec"), kernel),
            "language_info": _completed(metadata.get("language_info"), {"name": spec.language}),
            "sandbox": ran,
        }

    async def _execute(self, index: int, cell: Cell) -> ExecutionResult:
        execution = await self._session.kernels.execute(
            cell.source, kernel_id=self._kernel.kernel_id, timeout_s=self._timeout_s
        )
        self._executions[index] = self._running = execution
        try:
            if self._is_stopped:  # asked for while it was being queued
                await execution.cancel()
            return await execution.wait(None)
        finally:
            self._running = None


def _completed(told: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    """What a notebook says of its kernel, with what is missing of it."""
    return {**known, **(cast("dict[str, Any]", told) if isinstance(told, dict) else {})}


def _alike(language: str, wanted: str) -> bool:
    return bool(wanted) and language.casefold() == wanted.casefold()


def _cleared(cell: Cell) -> Cell:
    metadata = {name: value for name, value in cell.metadata.items() if name != "execution"}
    return replace(cell, outputs=(), execution_count=None, metadata=metadata)
