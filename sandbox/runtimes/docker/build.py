"""Building images through the engine's API.

The engine's own builder is used, without BuildKit, a registry or the docker program; so it works
the same on a local, a remote and an older engine.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import re
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

import requests
from docker.errors import DockerException, ImageNotFound

from sandbox.container import images
from sandbox.container.images import Recipe
from sandbox.container.packagelock import FAILED, TOLD, lock_of, packages_of
from sandbox.errors import EngineUnavailable, InfrastructureError, PolicyError, SandboxError
from sandbox.policy import ImagePolicy
from sandbox.runtimes.docker import buildhost
from sandbox.runtimes.docker.bootstrap import bootstrap
from sandbox.runtimes.docker.client import make_client
from sandbox.runtimes.docker.endpoint import Endpoint, find_endpoint
from sandbox.runtimes.docker.faults import unavailable

Lines = Iterable[dict[str, Any]]
Progress = Callable[[str], None]

LABEL = "io.sandbox."
_REGISTRY_TIMEOUT_S = 15
_ANSWER_TIMEOUT_S = 120
_TAIL_LINES = 25
_STEP = re.compile(r"Step (\d+)/(\d+) : (.*)", re.DOTALL)
_STEP_LENGTH = 90
# The other steps take no time.
_WORTH_TELLING = ("RUN", "COPY")


class ImageClient(Protocol):
    """The part of ``docker.APIClient`` that building uses; docker-py itself carries no types."""

    base_url: str

    def get(self, url: str, *, timeout: float) -> requests.Response: ...
    def info(self) -> dict[str, Any]: ...
    def inspect_image(self, image: str) -> dict[str, Any]: ...
    def pull(self, repository: str, tag: str, *, stream: bool, decode: bool) -> Lines: ...
    def tag(self, image: str, repository: str, tag: str) -> bool: ...
    def import_image_from_file(
        self, filename: str, repository: str, tag: str, changes: list[str]
    ) -> str: ...
    def build(
        self,
        *,
        fileobj: BinaryIO,
        custom_context: bool,
        tag: str | None,
        buildargs: Mapping[str, str],
        labels: Mapping[str, str],
        network_mode: str,
        nocache: bool,
        rm: bool,
        forcerm: bool,
        decode: bool,
    ) -> Lines: ...
    def prune_images(self, filters: Mapping[str, Any]) -> dict[str, Any]: ...
    def close(self) -> None: ...


def connect(endpoint: Endpoint) -> ImageClient:
    """Make a client to build with; blocks.

    Raises:
        EngineUnavailable: The engine does not answer.
    """
    try:
        client, _ = make_client(endpoint, timeout_s=_ANSWER_TIMEOUT_S, connections=2)
    except (DockerException, requests.RequestException, OSError) as exc:
        raise unavailable(endpoint.url, exc) from exc
    return cast(ImageClient, client)


def is_current(client: ImageClient, image: str | ImagePolicy) -> bool:
    """Whether the engine has an image as this version of the package would build it.

    Raises:
        NotFound: There is no recipe of that name.
        EngineUnavailable: The engine does not answer.
    """
    try:
        return _present(client, images.reference(image))
    except (DockerException, requests.RequestException) as exc:
        raise EngineUnavailable(f"The container engine does not answer: {exc}") from exc


def build(
    client: ImageClient,
    image: str | ImagePolicy,
    *,
    progress: Progress,
    lock: bytes = b"",
    force: bool = False,
    ca_bundle: Path | None = None,
) -> str:
    """Build an image and all that it stands on, as far as they are not there yet. Blocks.

    Args:
        lock: What the packages that a policy adds came to.
        force: Build every step again, with the Debian packages of today.
        ca_bundle: Certificates to trust during the build; see `buildhost.loan`.

    Returns:
        The image's exact reference; one that has a name is also tagged `latest`.

    Raises:
        NotFound: There is no recipe of that name.
        InvalidRequest: The lock is none.
        PolicyError: The packages that a policy adds cannot be had as it says.
        InfrastructureError: A step failed; the message ends with its last lines.
        EngineUnavailable: The engine does not answer.
    """
    packages_of(lock)
    base, *steps = images.chain(image, lock)
    wanted = steps[-1]
    try:
        if force or not _present(client, wanted.reference):
            lent = buildhost.loan(ca_bundle)
            if force or not _present(client, base.reference):
                _make_base(client, base, progress)
            parent = plain = base
            for step in steps:
                if force or not _present(client, step.reference):
                    _build_step(client, step, parent, lent, progress, force, plain=plain)
                parent = step
                plain = plain if images.is_added(step) else step
        if isinstance(image, str):
            client.tag(wanted.reference, wanted.repository, "latest")
    except (DockerException, requests.RequestException) as exc:
        raise EngineUnavailable(f"The container engine failed or does not answer: {exc}") from exc
    return wanted.reference


def resolve(
    client: ImageClient,
    image: ImagePolicy,
    *,
    progress: Progress,
    ca_bundle: Path | None = None,
) -> bytes:
    """Find out what the packages that a policy adds come to today. Blocks.

    Returns:
        Their lock.

    Raises:
        PolicyError: They cannot be had.
        InfrastructureError: A step failed; the message ends with its last lines.
        EngineUnavailable: The engine does not answer.
    """
    build(client, image.base, progress=progress, ca_bundle=ca_bundle)
    *_, parent, recipe, _ = images.chain(image.under(b""))
    progress(f"{recipe.name}: looking up {image}")
    try:
        lent = buildhost.loan(ca_bundle)
        said = _build_step(client, recipe, parent, lent, progress, force=True, is_kept=False)
    except (DockerException, requests.RequestException) as exc:
        raise EngineUnavailable(f"The container engine failed or does not answer: {exc}") from exc
    return lock_of(image, said)


def _present(client: ImageClient, reference: str) -> bool:
    try:
        client.inspect_image(reference)
    except ImageNotFound:
        return False
    return True


def _make_base(client: ImageClient, recipe: Recipe, progress: Progress) -> None:
    if _registry_answers(client):
        repository, _, tag = images.BASE_IMAGE.partition(":")
        progress(f"base: pulling {images.BASE_IMAGE}")
        _follow(client.pull(repository, tag, stream=True, decode=True), progress, "base")
        client.tag(images.BASE_IMAGE, recipe.repository, _tag(recipe))
        return
    architecture = str(client.info()["Architecture"])
    if architecture != platform.machine():
        raise InfrastructureError(
            f"No container registry gives {images.BASE_IMAGE} to the engine, and it cannot be "
            f"made here: the engine runs on {architecture}, this machine is {platform.machine()}.",
            remedy="Give the engine access to a registry.",
        )
    with tempfile.TemporaryDirectory(prefix="sandbox-base-") as folder:
        archive = Path(folder) / "base.tar"
        bootstrap(archive, progress)
        client.import_image_from_file(
            str(archive),
            recipe.repository,
            _tag(recipe),
            changes=[f"LABEL {key}={value}" for key, value in _labels(recipe).items()]
            + ['CMD ["bash"]'],
        )


def _registry_answers(client: ImageClient) -> bool:
    """Whether the engine gets the base image's description from its registry, and soon."""
    # A request of our own: docker-py cannot bound a single call, and a pull tries for minutes.
    try:
        answer = client.get(
            f"{client.base_url}/distribution/{images.BASE_IMAGE}/json",
            timeout=_REGISTRY_TIMEOUT_S,
        )
    except requests.RequestException:
        return False
    return bool(answer.ok)


def _build_step(
    client: ImageClient,
    recipe: Recipe,
    parent: Recipe,
    lent: buildhost.Loan,
    progress: Progress,
    force: bool,
    is_kept: bool = True,
    plain: Recipe | None = None,
) -> list[str]:
    """Build a recipe, and return the lines that its steps say to us.

    Args:
        plain: The last one below it in which there is nothing that a policy has added.
    """
    if is_kept:
        progress(f"{recipe.name}: building {recipe.reference}")
    # Arguments that a Dockerfile does not declare are an error to older engines.
    declared = recipe.files["Dockerfile"].decode()
    arguments = {
        key: value
        for key, value in lent.arguments.items()
        if f"ARG {key}\n" in declared or key.lower().endswith("_proxy")
    }
    if "\nARG PLAIN=" in declared:
        arguments["PLAIN"] = (plain or parent).reference
    lines = client.build(
        fileobj=io.BytesIO(recipe.context(lent.files)),
        custom_context=True,
        tag=recipe.reference if is_kept else None,
        buildargs={**arguments, "BASE": parent.reference, "STAGE": recipe.digest},
        labels=_labels(recipe),
        network_mode="host",
        nocache=force,
        rm=True,
        forcerm=True,
        decode=True,
    )
    try:
        return _follow(lines, progress, recipe.name)
    finally:
        # Nameless leftovers: its stages, and what a forced or a doubled build of it has replaced.
        for label in ("stage", "digest"):
            client.prune_images({"dangling": True, "label": f"{LABEL}{label}={recipe.digest}"})


def _follow(lines: Lines, progress: Progress, name: str) -> list[str]:
    """Tell each step as it begins, and what its programs said last if one fails.

    Returns:
        The lines that are for us.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    said: list[str] = []
    error = rest = ""
    # To the end, also after an error: only then is the connection given back.
    for line in lines:
        error = error or str(line.get("error", ""))
        *whole, rest = f"{rest}{line.get('stream', '')}".split("\n")
        said += [each for each in whole if each.startswith((TOLD, FAILED))]
        text = str(line.get("stream", "")).strip()
        if step := _STEP.match(text):
            if step[3].startswith(_WORTH_TELLING):
                words = " ".join(step[3].split())
                progress(f"{name}: {step[1]}/{step[2]} {words[:_STEP_LENGTH]}")
        elif text:
            tail.append(text)
    if error and (why := next((each for each in said if each.startswith(FAILED)), "")):
        raise _refused(why.removeprefix(FAILED))
    if error:
        told = "\n".join([*tail, error])
        raise InfrastructureError(f"The image {name} could not be built:\n{told}")
    return said


def _refused(why: str) -> PolicyError:
    """The error about packages that cannot be had: the program that says so, and why."""
    program, _, reason = why.partition(": ")
    remedies = {
        "pip": "Correct the name or the versions; only packages with a wheel can be added.",
        "apt": "Correct the name; if the lock is old, add --force to look everything up anew.",
    }
    kind = "pip" if program == "pip" else "apt"
    return PolicyError(f"{program} says: {reason}", key=f"image.{kind}", remedy=remedies[kind])


def _labels(recipe: Recipe) -> dict[str, str]:
    return {f"{LABEL}image": recipe.name, f"{LABEL}digest": recipe.digest}


def _tag(recipe: Recipe) -> str:
    return recipe.reference.rpartition(":")[2]


def main() -> int:
    """Build the named images, or all that a policy can name, showing each step in a line."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.runtimes.docker.build")
    parser.add_argument("name", nargs="*", choices=[[], *images.names()], metavar="NAME")
    parser.add_argument("--force", action="store_true", help="build again what is current")
    chosen = parser.parse_args()
    wanted = chosen.name or [name for name in images.names() if name != images.CONTROLLER]
    try:
        with closing(connect(find_endpoint("", "", os.environ))) as client:
            for name in wanted:
                build(client, name, progress=partial(print, flush=True), force=chosen.force)
    except SandboxError as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
