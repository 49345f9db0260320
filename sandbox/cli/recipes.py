"""`sandbox image`: building the images on the engine, and whether they are current."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sandbox import images
from sandbox.cli.wiring import image_client
from sandbox.config import Settings
from sandbox.runtimes.docker import build as builder


def build_images(
    settings: Settings,
    names: list[str],
    *,
    force: bool,
    ca_bundle: Path | None,
    verbose: bool,
) -> None:
    """Build images that are not current, showing the steps, or every line when verbose.

    Raises:
        SandboxError: One could not be built.
    """
    client = image_client(settings)
    for name in names or [name for name in images.names() if name != images.CONTROLLER]:
        if not force and builder.is_current(client, name):
            print(f"{name}: {images.reference(name)} is current")
            continue
        reference = builder.build(
            client, name, progress=_progress(verbose), force=force, ca_bundle=ca_bundle
        )
        print(f"{name}: {reference} is built")


def list_images(settings: Settings) -> None:
    """Print each image, its reference and whether the engine has it.

    Raises:
        EngineUnavailable: The engine does not answer.
    """
    client = image_client(settings)
    table = Table("image", "reference", "on the engine", box=None, header_style="bold")
    for name in images.names():
        here = "yes" if builder.is_current(client, name) else f"no: sandbox image build {name}"
        table.add_row(name, images.reference(name), here)
    Console(soft_wrap=True).print(table)


def _progress(verbose: bool) -> Callable[[str], None]:
    def show(line: str) -> None:
        if verbose or ": Step " in line or line.count(":") == 1 or "sandbox/" in line:
            print(line, file=sys.stderr, flush=True)

    return show
