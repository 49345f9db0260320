"""`sandbox kernelspec`: kernels in sandboxes, for Jupyter and what runs notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli import completion
from sandbox.cli.options import CONTROLLER, Json, command, group
from sandbox.cli.tables import print_json, print_table

if TYPE_CHECKING:
    from sandbox.config import Loaded, Settings

app = group("Kernels in sandboxes for Jupyter, nbclient, papermill and nbconvert.")


@command(app, *CONTROLLER, name="install")
def install_kernelspec(
    loaded: Loaded,
    policy: Annotated[
        str,
        typer.Option(help="The policy of its sandboxes.", autocompletion=completion.policies),
    ],
    name: Annotated[
        str, typer.Option(metavar="NAME", help="As notebooks name it; else sandbox-POLICY.")
    ] = "",
    display_name: Annotated[
        str, typer.Option("--display-name", metavar="TEXT", help="As people see it.")
    ] = "",
    user: Annotated[bool, typer.Option("--user", help="For this user; so it is anyhow.")] = False,
    sys_prefix: Annotated[
        bool, typer.Option("--sys-prefix", help="For the environment of this Python.")
    ] = False,
    prefix: Annotated[str, typer.Option(metavar="DIR", help="For the environment there.")] = "",
    kernel: Annotated[
        str, typer.Option(help="The kernel inside: python3, bash, or another of its image.")
    ] = "python3",
    files: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="PATH", help="Copied into each sandbox; may be repeated."),
    ] = None,
    url: Annotated[
        str, typer.Option(metavar="URL", help="A served controller that opens the sessions.")
    ] = "",
    token_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its token, in a file; read at each start.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also in the place of a kernelspec that is not ours.")
    ] = False,
) -> None:
    """Install a kernelspec whose kernels run in sandboxes of a policy.

    Each kernel gets a sandbox of its own, which is removed when the kernel is shut down or its
    client is gone. Jupyter and this command must be of one environment, for the kernel provisioner
    is a part of this package. No folder of this machine is visible inside, the notebook's own
    neither: --with copies what a notebook needs.

    A notebook says itself which kernel it wants: name ours where it is run, or take the name that
    it would use.

    [bold]sandbox kernelspec install --policy offline[/bold]
    · then: jupyter execute --kernel_name=sandbox-offline untrusted.ipynb

    [bold]sandbox kernelspec install --policy datascience --name python3 --sys-prefix[/bold]
    · every notebook that wants python3 runs in a sandbox

    [bold]papermill -k sandbox-offline in.ipynb out.ipynb[/bold]
    """
    from sandbox.cli.kernelspecwork import install

    folder = install(
        loaded,
        {
            "policy": policy,
            "kernel": kernel,
            "url": url,
            "token_file": str(token_file.absolute()) if token_file else "",
            "with": [str(path.absolute()) for path in files or []],
        },
        (user, sys_prefix, prefix),
        name=name,
        display_name=display_name,
        force=force,
    )
    print(f"The kernelspec {folder.name} is in {folder}.")


@command(app, name="list")
def list_kernelspecs(settings: Settings, as_json: Json = False) -> None:
    """List the kernelspecs of ours that Jupyter finds from here."""
    from sandbox.jupyter.kernelspecs import installed

    found = installed()
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "display_name": each.display_name,
                    "path": str(each.folder),
                    "config": None if each.config is None else each.config.data(),
                }
                for each in found
            ]
        )
        return
    rows = [
        (
            each.name,
            "(not readable)" if each.config is None else each.config.policy or "(the default)",
            "" if each.config is None else each.config.kernel,
            "" if each.config is None else each.config.url or "its own",
            str(each.folder),
        )
        for each in found
    ]
    print_table(("kernelspec", "policy", "kernel", "controller", "path"), rows)


@command(app, name="remove")
def remove_kernelspec(
    settings: Settings, names: Annotated[list[str], typer.Argument(metavar="NAME...")]
) -> None:
    """Remove kernelspecs of ours; kernels that run go on. Others are left alone."""
    from sandbox.jupyter.kernelspecs import remove

    for name in names:
        print(f"Removed {remove(name)}.")
