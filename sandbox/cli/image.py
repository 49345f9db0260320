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
    from sandbox.runtimes.docker.build import ImageClient

app = group("Build and list the images.")


@command(app, "engine", "policies", name="build")
def build_images(
    settings: Settings,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    policy: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="The image of a policy, with the packages it adds."),
    ] = "",
    force: Annotated[
        bool, typer.Option(help="Build again what is current, from the packages of today.")
    ] = False,
    ca_bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates to trust during the build.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every line.")] = False,
) -> None:
    """Build images on the engine; without a name, those that policies can name.

    An image that is current is left alone. What a policy's packages come to, with hashes, is kept
    as a lock beside its file, in `locks/`, and built again from that.

    [bold]sandbox image build datascience[/bold]

    [bold]sandbox image build --policy research[/bold]
    """
    from sandbox.cli.engines import image_client
    from sandbox.container import images
    from sandbox.runtimes.docker import build as builder

    client = image_client(settings)
    if policy:
        _build_policy(client, settings, policy, force, ca_bundle, verbose)
        if not names:
            return
    for name in names or [name for name in images.names() if name != images.CONTROLLER]:
        if not force and builder.is_current(client, name):
            print(f"{name}: {images.reference(name)} is current")
            continue
        reference = builder.build(
            client, name, progress=_progress(verbose), force=force, ca_bundle=ca_bundle
        )
        print(f"{name}: {reference} is built")


def _build_policy(
    client: ImageClient,
    settings: Settings,
    named: str,
    force: bool,
    ca_bundle: Path | None,
    verbose: bool,
) -> None:
    from sandbox.cli.folders import policy_file
    from sandbox.container import images
    from sandbox.errors import PolicyError
    from sandbox.policy import load_file
    from sandbox.policy.lockfiles import read_lock, write_lock
    from sandbox.runtimes.docker import build as builder

    file = policy_file(settings, named)
    image = load_file(file).image
    progress = _progress(verbose)
    path = image.lock_file(file.parent)
    lock = read_lock(path) if image.has_additions else b""
    try:
        if image.has_additions and (force or not lock):
            lock = builder.resolve(client, image, progress=progress, ca_bundle=ca_bundle)
            write_lock(path, lock)
            print(f"{named}: what its packages come to is in {path}")
        image = image.under(lock)
        if not force and builder.is_current(client, image):
            print(f"{named}: {images.reference(image)} is current")
            return
        reference = builder.build(
            client, image, progress=progress, lock=lock, force=force, ca_bundle=ca_bundle
        )
    except PolicyError as exc:
        raise PolicyError(exc.reason, file=str(file), key=exc.key, remedy=exc.remedy) from exc
    print(f"{named}: {reference} is built")


@command(app, "engine", "policies", name="list")
def list_images(settings: Settings) -> None:
    """List the images and whether the engine has them as this version needs them."""
    from sandbox.cli.engines import image_client
    from sandbox.cli.folders import policy_set
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
    policies = policy_set(settings)
    rows += [
        (
            f"policy {policy.name}",
            images.reference(policy.image),
            "yes"
            if builder.is_current(client, policy.image)
            else f"no: sandbox image build --policy {policy.name}",
        )
        for policy in map(policies.get, policies.names())
        if policy.image.has_additions
    ]
    print_table(("image", "reference", "on the engine"), rows)


def _progress(verbose: bool) -> Callable[[str], None]:
    def show(line: str) -> None:
        if verbose or ": Step " in line or line.count(":") == 1 or "sandbox/" in line:
            print(line, file=sys.stderr, flush=True)

    return show
