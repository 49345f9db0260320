"""How far a notebook is: a bar on a terminal, a line for each cell elsewhere, on stderr."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sandbox.outputs.plain import escaped
from sandbox.sessions.notebookrun import Progress as Step

MAX_TITLE = 60


class NotebookProgress:
    """Shows the steps of one run."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._console = console
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(30),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> NotebookProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, step: Step) -> None:
        """Show what runs now; the cell's first line is a stranger's text."""
        title = escaped(step.title[:MAX_TITLE])
        self._bar.update(self._task, completed=step.done, total=step.total, description=title)
        if not self._console.is_terminal and step.title:
            line = f"[{step.done + 1}/{step.total}] {title}"
            self._console.print(line, markup=False, soft_wrap=True)
