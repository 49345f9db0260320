"""What is installed in an image, told by what it is made from: its recipes, its locks, its lists.

An image holds exactly what its locks say, with their hashes, so nobody has to look into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandbox import resources
from sandbox.container.packagelock import packages_of
from sandbox.errors import InvalidRequest
from sandbox.policy import ImagePolicy
from sandbox.policy.packages import normalized

MAX_TEXT = 240
"""About 60 tokens."""

_PYTHON = re.compile(r"/python(3\.\d+)/")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*", re.MULTILINE)
_DEBIAN = re.compile(r"apt-get install .*--no-install-recommends \\\n((?:.*\\\n)*.*)")
_BELOW = {"datascience": "python"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is installed in an image."""

    base: str
    python: str
    """The version of Python, such as ``3.11``."""
    packages: dict[str, str]
    """The version of each Python package, by its name in the form of :func:`normalized`."""
    notable: tuple[str, ...]
    """The Python packages that the recipe asks for, without what they need."""
    tools: tuple[str, ...]
    """The Debian packages that it asks for, and are more than a part of another."""
    added: tuple[str, ...] = ()
    """What a policy asks for besides."""

    def has(self, package: str) -> bool:
        """Whether a Python package is installed."""
        return normalized(package) in self.packages

    def __str__(self) -> str:
        """In a line: the base, Python, how many packages, and as many names as there is room."""
        told = f"{self.base}: Python {self.python}, {len(self.packages)} packages"
        added = [f"{name} {self.packages.get(normalized(name), '')}" for name in self.added]
        names = [each.strip() for each in (*added, *self.notable, *self.tools)]
        for count, name in enumerate(dict.fromkeys(names)):
            piece = f"{', ' if count else ': '}{name}"
            if len(told) + len(piece) > MAX_TEXT - len(", …"):
                return f"{told}, …"
            told += piece
        return told


def manifest_of(image: ImagePolicy, lock: bytes = b"") -> Manifest:
    """What is installed in the image of a policy.

    Args:
        lock: What the packages that the policy adds came to; no image is built of one that is
            wrong, so nothing is known of it.
    """
    shipped = _shipped(image.base)
    try:
        added = packages_of(lock)
    except InvalidRequest:
        added = ()
    asked = [re.split(r"[\[~=!<>]", entry, maxsplit=1)[0] for entry in image.pip]
    wheels = {normalized(each.name): each.version for each in added if each.kind == "pip"}
    return Manifest(
        base=shipped.base,
        python=shipped.python,
        packages={**shipped.packages, **wheels},
        notable=shipped.notable,
        tools=shipped.tools,
        added=(*asked, *image.apt),
    )


@cache
def _shipped(base: str) -> Manifest:
    folders = [resources.images() / name for name in (base, _BELOW.get(base, "")) if name]
    packages: dict[str, str] = {}
    for folder in reversed(folders):
        pins = _PIN.findall((folder / "requirements.txt").read_text())
        packages |= {normalized(name): version for name, version in pins}
    return Manifest(
        base=base,
        python=_first(_PYTHON, folders),
        packages=packages,
        notable=tuple(name for folder in folders for name in _asked(folder)),
        tools=tuple(name for folder in folders for name in _debian(folder)),
    )


def _first(pattern: re.Pattern[str], folders: list[Path]) -> str:
    found = (pattern.search((folder / "Dockerfile").read_text()) for folder in folders)
    return next((match[1] for match in found if match), "")


def _asked(folder: Path) -> list[str]:
    """The names of a requirements.in that bound nothing."""
    names = (folder / "requirements.in").read_text().splitlines()
    return [line for line in names if _NAME.fullmatch(line)]


def _debian(folder: Path) -> Iterator[str]:
    # What other stages install is gone when they have made what they are for.
    stage = (folder / "Dockerfile").read_text().partition(" AS build\n")[2]
    found = _DEBIAN.search(stage)
    words = found[1].partition("&&")[0].replace("\\", " ").split() if found else []
    yield from (word for word in words if not word.startswith(("lib", "ca-", "python3")))
