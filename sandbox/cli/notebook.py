"""`sandbox notebook`: notebooks in sandboxes of their own, and those of sessions, shared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import completion
from sandbox.cli.options import CONTROLLER, Json, command, group
from sandbox.cli.sessionuse import SessionId, Token, Url

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group("Run Jupyter notebooks in a sandbox, and share those of a session.")


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


@command(app, "state_dir", "log_level", name="share", log_level="warning")
def share_notebook(
    settings: Settings,
    session: SessionId,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The notebook in the session.")],
    lifetime: Annotated[
        str, typer.Option("--for", metavar="SPAN", help="How long it counts: 30m, 12h, 7d.")
    ] = "1h",
    edit: Annotated[bool, typer.Option("--edit", help="Let the other edit it, too.")] = False,
    name: Annotated[str, typer.Option(help="How others in the notebook see who comes.")] = "guest",
    url: Url = "",
    token: Token = "",
    as_json: Json = False,
) -> None:
    """Print an address with which somebody else follows one notebook of a session, live.

    It is good for that notebook and for nothing else: no other file, no kernel, no tool. Whoever
    has it may look, or with --edit write cells and run none, until the time is over or it is taken
    back.

    [bold]sandbox notebook share SESSION analysis.ipynb --for 2h[/bold]

    [bold]sandbox lab -[/bold] · opens it in the other's JupyterLab, on their machine: paste the URL
    """
    from sandbox.cli.notebookshares import share
    from sandbox.cli.targets import ControllerTarget

    target = ControllerTarget(url, token)
    share(settings, target, session, path, lifetime, edit=edit, name=name, as_json=as_json)


@command(app, "state_dir", "log_level", name="unshare", log_level="warning")
def unshare_notebook(
    settings: Settings,
    session: SessionId,
    share_id: Annotated[
        str, typer.Argument(metavar="[ID]", help="Which share; empty: all of the session.")
    ] = "",
    url: Url = "",
    token: Token = "",
) -> None:
    """Take back what was shared of a session; whoever is in it is cut off within seconds."""
    from sandbox.cli.notebookshares import unshare
    from sandbox.cli.targets import ControllerTarget

    unshare(settings, ControllerTarget(url, token), session, share_id)
