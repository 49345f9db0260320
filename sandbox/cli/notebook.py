"""`sandbox notebook`: notebooks in sandboxes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import completion
from sandbox.cli.options import CONTROLLER, command, group

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group("Run Jupyter notebooks in a sandbox.")


@command(app, *CONTROLLER, "log_level", name="run", log_level="warning")
def run_notebook(
    settings: Settings,
    file: Annotated[Path, typer.Argument(metavar="FILE.ipynb", help="The notebook.")],
    policy: Annotated[
        str,
        typer.Option(
            help="The policy; empty: the default one.", autocompletion=completion.policies
        ),
    ] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="May be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.ipynb", help="Else FILE.executed.ipynb."),
    ] = None,
    allow_errors: Annotated[
        bool, typer.Option("--allow-errors", help="Go on after a cell's error.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Seconds that each cell may run; 0: the policy's.")
    ] = 0,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="PATH",
            help="A file or folder to copy beside the notebook; may be repeated.",
        ),
    ] = None,
    kernel: Annotated[str, typer.Option(help="The kernel; empty: as the notebook says.")] = "",
) -> None:
    """Run a notebook in a sandbox of its own, and write it with its outputs.

    A cell tagged `parameters` is followed by one that sets those given with -p; the tags
    `raises-exception` and `skip-execution` mean what they mean to nbclient. The run stops at the
    first error unless that is allowed. What was run is written in any case, as a whole.

    The exit code is 0 when all cells ended well, 1 when one failed or its kernel died, 2 when the
    notebook or an option is wrong, 3 when the sandbox failed, 124 when a cell's time was over,
    130 after Ctrl-C, which interrupts the cell; a second one ends everything.

    [bold]sandbox notebook run analysis.ipynb --policy datascience --with data.csv[/bold]

    [bold]sandbox notebook run report.ipynb -p year=2026 -p 'title=A year' -o 2026.ipynb[/bold]
    """
    from sandbox.cli.notebookwork import NotebookWork, run_work

    work = NotebookWork.read(
        file,
        output,
        policy=policy,
        kernel=kernel,
        parameters=parameter or [],
        allow_errors=allow_errors,
        timeout_s=timeout,
        files=files or [],
    )
    raise typer.Exit(run_work(settings, work))
