"""`sandbox image`: building the images on the engine, and whether they are current."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sandbox.cli.options import command, group
from sandbox.cli.tables import print_table

if TYPE_CHECKING:
    from sandbox.config import Settings

app = group("Build and list the images.")


@command(app, "engine", name="build")
def build_images(
    settings: Settings,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    force: Annotated[bool, typer.Option(help="Build again what is current.")] = False,
    ca_bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust during the build.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every line.")] = False,
) -> None:
    """Build images on the engine; without a name, those that policies can name.

    An image that is current is left alone.

    [bold]sandbox image build datascience[/bold]
    """
    from sandbox.cli.engines import image_client
    from sandbox.container import images
    from sandbox.runtimes.docker import build as builder

    client = image_client(settings)
    for name in names or [name for name in images.names() if name != images.CONTROLLER]:
        if not force and builder.is_current(client, name):
            print(f"{name}: {images.reference(name)} is current")
            continue
        reference = builder.build(
            client, name, progress=_progress(verbose), force=force, ca_bundle=ca_bundle
        )
        print(f"{name}: {reference} is built")


@command(app, "engine", name="list")
def list_images(settings: Settings) -> None:
    """List the images and whether the engine has them as this version needs them."""
    from sandbox.cli.engines import image_client
    from sandbox.container import images
    from sandbox.runtimes.docker import build as builder

    client = image_client(settings)
    rows = [
        (
            name,
            images.reference(name),
            "yes" if builder.is_current(client, name) else f"no: sandbox image build {name}",
        )
        for name in images.names()
    ]
    print_table(("image", "reference", "on the engine"), rows)


def _progress(verbose: bool) -> Callable[[str], None]:
    def show(line: str) -> None:
        if verbose or ": Step " in line or line.count(":") == 1 or "sandbox/" in line:
            print(line, file=sys.stderr, flush=True)

    return show
