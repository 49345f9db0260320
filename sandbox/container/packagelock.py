"""The lock of what a policy adds to an image: a line for each package, with its exact file's hash.

It is text beside the policy files, made by a build and then read by every other, so that the same
policy is the same image wherever it is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.errors import InvalidRequest
from sandbox.policy import ImagePolicy

TOLD = "sandbox-lock: "
FAILED = "sandbox-failed: "
"""Begin the lines of a build that tell a package, and why it failed: images/additions/add.py."""
MAX_LOCKED = 2000

_LINE = re.compile(
    r"(?P<kind>pip) (?P<name>[A-Za-z0-9._-]{1,100})==(?P<version>[0-9A-Za-z.!+_-]{1,100})"
    r" sha256:[0-9a-f]{64}"
    r"|(?P<deb>apt) (?P<deb_name>[a-z0-9][a-z0-9+.-]{1,100})"
    r"=(?P<deb_version>[0-9A-Za-z.+~:-]{1,100}) sha256:[0-9a-f]{64}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Locked:
    """One package of a lock."""

    kind: str
    """``pip`` or ``apt``."""
    name: str
    version: str


def packages_of(lock: bytes) -> tuple[Locked, ...]:
    """The packages of a lock.

    Raises:
        InvalidRequest: It is not one.
    """
    found: list[Locked] = []
    for line in lock.decode("utf-8", "replace").splitlines():
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None or len(found) == MAX_LOCKED:
            raise InvalidRequest(
                f"The lock has a line that is none of a lock: {line[:120]!r}.",
                remedy="`sandbox image build --force --policy NAME` makes it anew.",
            )
        if match["kind"]:
            found.append(Locked("pip", match["name"], match["version"]))
        else:
            found.append(Locked("apt", match["deb_name"], match["deb_version"]))
    return tuple(found)


def lock_of(image: ImagePolicy, told: Iterable[str]) -> bytes:
    """The lock that the lines of a build come to.

    Raises:
        InvalidRequest: One of them is none of a lock.
    """
    lists = image.lists()
    head = [
        "# What the packages of these lists came to. `sandbox image build --policy NAME` made it",
        "# and reads it; keep it beside the policy files.",
        *(f"# {key}: {lists[key]}" for key in lists),
    ]
    packages = sorted(line.removeprefix(TOLD) for line in told if line.startswith(TOLD))
    lock = "".join(f"{line}\n" for line in (*head, *packages)).encode()
    packages_of(lock)
    return lock
