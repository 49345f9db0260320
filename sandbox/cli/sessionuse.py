"""The commands that use a session: what they take; what they do is in the module of their name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import completion
from sandbox.cli.options import CONTROLLER, Json, command

if TYPE_CHECKING:
    from sandbox.config import Settings

SERVED = ("state_dir", "log_level")
"""The settings of commands that use a session of the running server."""
_WHERE = "Where"

Url = Annotated[
    str,
    typer.Option(
        metavar="URL",
        envvar="SANDBOX_URL",
        rich_help_panel=_WHERE,
        help="The server to use; else that of this state folder, started by `sandbox serve`.",
    ),
]
Token = Annotated[
    str,
    typer.Option(
        metavar="TOKEN",
        envvar="SANDBOX_TOKEN",
        rich_help_panel=_WHERE,
        help="The token for it; the variable keeps it out of the list of processes.",
    ),
]
Served = Annotated[
    bool,
    typer.Option(
        "--served",
        rich_help_panel=_WHERE,
        help="Use the running `sandbox serve` of this state folder, not a controller of its own.",
    ),
]
Policy = Annotated[
    str, typer.Option(help="The policy; empty: the default.", autocompletion=completion.policies)
]
SessionId = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        autocompletion=completion.sessions,
        help="The session's id, the beginning of it, or its name; see `sandbox sessions list`.",
    ),
]
MaybeSession = Annotated[
    str,
    typer.Argument(
        metavar="[SESSION]",
        autocompletion=completion.sessions,
        help="A session of the server; else a new one, which ends with this.",
    ),
]
Folder = Annotated[
    str, typer.Option("--cwd", metavar="DIR", help="The folder inside; empty: the workspace.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to an app."""
    command(app, *CONTROLLER, "log_level", name="run", log_level="warning")(run)
    command(app, *CONTROLLER, "log_level", name="shell", log_level="warning")(shell)
    # What stands behind the session is the command's own, also what looks like an option.
    command(app, *SERVED, name="exec", is_greedy=True, log_level="warning")(execute)
    command(app, *SERVED, name="cp", log_level="warning")(copy)
    command(app, *SERVED, name="lab", log_level="warning")(lab)
    command(app, *CONTROLLER, "log_level", name="python", log_level="warning")(python)


def run(
    settings: Settings,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A file of code; `-` reads stdin.")
    ] = None,
    args: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- ARGS]...", help="What the program is given, after `--`."),
    ] = None,
    code: Annotated[str | None, typer.Option("-c", metavar="CODE", help="The code itself.")] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            metavar="PATH",
            help="A file or folder to copy in, under the same relative name; may be repeated.",
        ),
    ] = None,
    requirements: Annotated[
        Path | None,
        typer.Option(
            "-r",
            "--requirements",
            metavar="FILE",
            help="Packages to install first; the policy must permit it, as package-index does.",
        ),
    ] = None,
    get: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GLOB", help="Results to copy out, such as 'out/*.png'; may be repeated."
        ),
    ] = None,
    to: Annotated[
        Path, typer.Option(metavar="DIR", help="Where results go; else the current folder.")
    ] = Path(),
    force: Annotated[
        bool, typer.Option("--force", help="Let results replace files that are there.")
    ] = False,
    policy: Policy = "",
    kernel: Annotated[str, typer.Option(help="The kernel: python3, bash, …")] = "python3",
    timeout: Annotated[float, typer.Option(help="Seconds it may run; 0: the policy's.")] = 0,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to save pictures; else beside FILE.")
    ] = None,
    url: Url = "",
    token: Token = "",
    served: Served = False,
    as_json: Json = False,
) -> None:
    """Run code in a sandbox of its own, which is gone afterwards; files in, results out.

    FILE runs as `python FILE` does: __file__, __name__, sys.argv, its folder to import from, the
    workspace as the current folder; what is piped in is its standard input (8 MiB at most). Of
    the files around it those are there that --with names. CODE and `-` run as a cell, whose last
    value is shown. Outputs are printed as they come, pictures that are shown (plt.show()) are
    saved beside FILE and named. The exit code is the program's own (sys.exit), else 0 when it
    ended well, 1 when it raised or died, 124 when its time was over. Ctrl-C interrupts it; a
    second one ends everything.

    [bold]sandbox run -c 'print(sum(range(10)))'[/bold]

    [bold]sandbox run --policy datascience plot.py[/bold]

    [bold]sandbox run count.py -- --by word < text.txt[/bold]

    [bold]sandbox run --with data.csv --with src/ --get 'out/*.png' analysis.py -- --fast[/bold]
    · results are never written outside the folder, nor over a file without --force

    [bold]sandbox run --policy package-index -r requirements.txt --with . main.py[/bold]

    [bold]sandbox run analysis.py -- --fast --get 'out/*.png'[/bold]
    · a --get at the very end is taken, too; `… -- --get x --` gives it to the program

    [bold]echo 'uname -a' | sandbox run --kernel bash -[/bold]
    """
    from sandbox.cli.run import Baggage, Work, run_work, split_arguments
    from sandbox.cli.targets import ControllerTarget

    words = list(args or [])
    if code is not None and file is not None:
        words, file = [file, *words], None
    if (file is None) == (code is None):
        raise typer.BadParameter("give either FILE or -c CODE")
    given, globs = split_arguments(words)
    work = Work.read(
        file, code, given, policy=policy, kernel=kernel, timeout_s=timeout, images=images
    )
    baggage = Baggage(
        with_=tuple(with_ or ()),
        requirements=requirements,
        get=(*(get or ()), *globs),
        to=to,
        force=force,
    )
    target = ControllerTarget(url, token, served)
    raise typer.Exit(run_work(settings, target, work, baggage, as_json=as_json))


def shell(
    settings: Settings,
    session: MaybeSession = "",
    policy: Policy = "",
    cwd: Folder = "",
    url: Url = "",
    token: Token = "",
    served: Served = False,
) -> None:
    """Open an interactive shell in a sandbox, and exit as it does.

    Without SESSION it is a new sandbox, which is gone afterwards. Every key goes to the program;
    `exit` or Ctrl-D ends the shell. What programs write may draw, but neither ask your terminal
    anything nor reach your clipboard, titles or files.

    [bold]sandbox shell[/bold] · [bold]sandbox shell --policy datascience[/bold]

    [bold]sandbox shell 7f3a[/bold] · look around where an agent works

    [bold]sandbox shell --url https://sandbox.example.org[/bold] · with SANDBOX_TOKEN set
    """
    from sandbox.cli.shell import run_shell
    from sandbox.cli.targets import ControllerTarget

    raise typer.Exit(
        run_shell(settings, ControllerTarget(url, token, served), session, policy, cwd)
    )


def execute(
    settings: Settings,
    session: SessionId,
    words: Annotated[
        list[str], typer.Argument(metavar="[--] COMMAND [ARGS]...", help="The program to run.")
    ],
    cwd: Folder = "",
    timeout: Annotated[float, typer.Option(help="Seconds it may run; 0: the policy's.")] = 0,
    no_input: Annotated[
        bool, typer.Option("--no-input", "-n", help="Do not read standard input here.")
    ] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Run a command in a session of the running server, and exit as it does.

    Its standard output and error come out as they are; what is piped in is its input, up to 8 MiB.
    No shell reads it: for pipes and variables write bash -c. Ctrl-C stops it with all that it
    started. Options of ours stand before SESSION.

    [bold]sandbox exec 7f3a -- ls -l out[/bold]

    [bold]cat data.csv | sandbox exec 7f3a -- wc -l[/bold]

    [bold]sandbox exec --cwd src 7f3a -- bash -c 'python main.py | head'[/bold]
    """
    from sandbox.cli.execute import run_command
    from sandbox.cli.targets import ControllerTarget

    argv = words[1:] if words[0] == "--" else words
    if not argv:
        raise typer.BadParameter("say what to run: sandbox exec SESSION -- COMMAND")
    target = ControllerTarget(url, token, served=True)
    raise typer.Exit(
        run_command(
            settings, target, session, argv, cwd=cwd, timeout_s=timeout, reads_nothing=no_input
        )
    )


def copy(
    settings: Settings,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE... TARGET",
            autocompletion=completion.places,
            help="SESSION:PATH in a session, PATH here; `-` is standard input or output.",
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Replace files here that are there already.")
    ] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Copy files and folders into a session of the running server, or out of it.

    Symbolic links and special files in folders are left out and named. What comes out is never
    written outside the target, nor over a file without --force; files in the session are replaced.

    [bold]sandbox cp data.csv src/ 7f3a:[/bold] · into the workspace

    [bold]sandbox cp 7f3a:out/result.csv .[/bold] · [bold]sandbox cp 7f3a:out results[/bold]

    [bold]tar c src | sandbox cp - 7f3a:src.tar[/bold] · [bold]sandbox cp 7f3a:log - | less[/bold]
    """
    from sandbox.cli.copy import Copying, run_copy
    from sandbox.cli.targets import ControllerTarget

    if len(words) < 2:
        raise typer.BadParameter("give a source and a target, such as data.csv SESSION:")
    copying = Copying.of(words, force=force)
    raise typer.Exit(run_copy(settings, ControllerTarget(url, token, served=True), copying))


def python(
    settings: Settings,
    session: MaybeSession = "",
    policy: Policy = "",
    images: Annotated[
        Path, typer.Option(metavar="DIR", help="Where to save pictures; else the current folder.")
    ] = Path(),
    url: Url = "",
    token: Token = "",
    served: Served = False,
) -> None:
    """Open a Python console on a session's kernel: its variables are there, and stay.

    It is the kernel that an agent's cells run in. Cells of several lines end with an empty one,
    Tab completes, Ctrl-C interrupts the cell, Ctrl-D leaves; the session stays. Without SESSION it
    is a new one, which ends with the console. Code that is piped in runs as one cell.

    [bold]sandbox python 7f3a[/bold] · [bold]sandbox python --policy datascience[/bold]

    [bold]echo 'df.describe()' | sandbox python 7f3a[/bold]
    """
    from sandbox.cli.console import run_console
    from sandbox.cli.targets import ControllerTarget

    target = ControllerTarget(url, token, served)
    raise typer.Exit(run_console(settings, target, session, policy, images))


def lab(
    settings: Settings,
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            autocompletion=completion.sessions,
            help="The session's id, the beginning of it, or its name; or the URL of a shared "
            "notebook; `-` reads it from stdin.",
        ),
    ],
    notebook: Annotated[
        str, typer.Argument(metavar="[NOTEBOOK]", help="The notebook to open at first.")
    ] = "",
    port: Annotated[int, typer.Option(help="The port on 127.0.0.1; 0: any free one.")] = 0,
    jupyter: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The `jupyter-lab` to use, or the folder it is in."),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser", help="Open it in the browser of this machine.")
    ] = False,
    url: Url = "",
    token: Token = "",
) -> None:
    """Open your own JupyterLab with a session of the running server, until Ctrl-C.

    Its pages come from the JupyterLab that is installed here; files, kernels, terminals and
    notebooks are those of the session, which an agent may use at the same moment. With
    jupyter-collaboration installed, its edits and outputs appear as they happen. The URL of a
    shared notebook opens that notebook alone, without files, kernels and terminals.

    [bold]pip install jupyterlab jupyter-collaboration[/bold]

    [bold]sandbox lab SESSION analysis.ipynb[/bold] · [bold]sandbox lab -[/bold], then the URL
    """
    from sandbox.cli.lab import LabWork, run_lab
    from sandbox.cli.targets import ControllerTarget

    work = LabWork(session, notebook, port, jupyter, browser)
    raise typer.Exit(run_lab(settings, ControllerTarget(url, token), work))
