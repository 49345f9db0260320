"""Which images there are, what each is made of, and the exact name that follows from it.

An image's name carries a digest of all that goes into it: its recipe, its locks, the sources copied
into it and, through its parent's digest, everything below. So an image on an engine is current when
its name is there, and only what changed is built again. Nothing here talks to an engine.

An image is built in two steps, what it needs and then our own sources, so that a change of ours
costs one small layer. The folders of `images/` that each step is made from:

    base ─┬─ python-deps ─┬─ python                 base, python, supervisor
          │               └─ datascience-deps ── datascience       datascience, supervisor
          └─ controller-deps ── controller          base, controller, package

What a policy adds to an image stands between those two steps: on the -deps image of its base, made
from `additions`, its lists and its lock, and below the supervisor.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sandbox import __version__, resources
from sandbox.errors import ConfigError, NotFound
from sandbox.policy import ImagePolicy

BASE = "base"
BASE_IMAGE = "debian:bookworm-slim"
CONTROLLER = "controller"
SUPERVISOR = "supervisor"
PACKAGE = "package"
ADDITIONS = "additions"

VERSION_ONLY = f'''"""A sandboxed, container-per-session executor for agents\' code."""

__version__ = "{__version__}"
'''

_DIGEST_LENGTH = 12
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_PARENT = re.compile(r"^ARG BASE=(?:sandbox/)?(\S+)$", re.MULTILINE)
_IMPORT = re.compile(
    rb"^[ \t]*((?:from|import)[ \t]+sandbox\b(?:[^(\n]*\([^)]*\)|[^\n]*))", re.MULTILINE
)
"""A statement that imports something of the package, from its first word to its end."""
_IGNORED = {"__pycache__", "requirements.in"}


@dataclass(frozen=True)
class Recipe:
    """One build of one image.

    Attributes:
        parent: The name of the recipe it stands on; empty for the base itself.
        digest: A hex digest of the files and of everything below.
    """

    name: str
    parent: str
    files: Mapping[str, bytes]
    digest: str

    @property
    def repository(self) -> str:
        """The image's name without its tag."""
        return f"sandbox/{self.name}"

    @property
    def reference(self) -> str:
        """The image's full name: its tag says what it was made of."""
        return f"{self.repository}:{self.digest[:_DIGEST_LENGTH]}"

    def context(self, extra: Mapping[str, bytes]) -> bytes:
        """The build context as a tar archive.

        Args:
            extra: What the building machine lends, put into `build/`; no part of the digest.

        Returns:
            The same bytes for the same files, whenever and wherever it is made.
        """
        files = {**self.files, **{f"build/{name}": data for name, data in extra.items()}}
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            # Copied by the Dockerfiles, so it is there even when nothing is lent.
            folder = tarfile.TarInfo("build")
            folder.type = tarfile.DIRTYPE
            folder.mode = 0o755
            tar.addfile(folder)
            for path, data in sorted(files.items()):
                member = tarfile.TarInfo(path)
                member.size = len(data)
                member.mode = 0o755 if data.startswith(b"#!") else 0o644
                tar.addfile(member, io.BytesIO(data))
        return archive.getvalue()


def names() -> tuple[str, ...]:
    """The images a policy or a person can name, sorted."""
    return tuple(sorted(_folders()))


def reference(image: str | ImagePolicy) -> str:
    """The exact reference that an image means for this version of the package.

    No engine ever has the one of packages that are not locked.

    Args:
        image: Its short name, or what a policy says.

    Raises:
        NotFound: There is no recipe of that name.
    """
    return chain(image)[-1].reference


def chain(image: str | ImagePolicy, lock: bytes = b"") -> tuple[Recipe, ...]:
    """The recipes to build for an image, the base first and the image itself last.

    Args:
        lock: What the packages that a policy adds came to; needed for building alone.

    Raises:
        NotFound: There is no recipe of that name.
    """
    known = recipes()
    if isinstance(image, ImagePolicy):
        below = chain(image.base)
        return (*below[:-1], *_added(image, below, lock)) if image.has_additions else below
    name = image
    if name not in known:
        raise NotFound(
            f"There is no image recipe named {name!r}.", remedy=f"Known: {', '.join(names())}."
        )
    steps = [known[name]]
    while steps[-1].parent:
        steps.append(known[steps[-1].parent])
    return tuple(reversed(steps))


def is_added(recipe: Recipe) -> bool:
    """Whether a recipe has what a policy adds to an image."""
    return recipe.name.endswith(f"-{ADDITIONS}-deps")


@cache
def recipes() -> Mapping[str, Recipe]:
    """All recipes by name, the intermediate ones too; read once per process.

    Raises:
        ConfigError: A recipe names no parent, an unknown one, or itself in a circle.
    """
    base = _read(resources.images() / BASE)
    made = {BASE: Recipe(BASE, "", base, _digest("", base))}
    supervisor, package = _supervisor_layer(), _package_layer()
    waiting = _folders()
    while waiting:
        ready = {name: _parent(folder) for name, folder in waiting.items()}
        ready = {name: parent for name, parent in ready.items() if parent in made}
        if not ready:
            raise ConfigError(
                f"No known image is the parent of: {', '.join(sorted(waiting))}.",
                remedy="`ARG BASE=` in its Dockerfile must name debian:bookworm-slim or the "
                "-deps image of another recipe.",
            )
        for name, parent in ready.items():
            needs, last = _read(waiting.pop(name)), supervisor
            if name == CONTROLLER:
                needs["requirements.txt"], last = resources.requirements().read_bytes(), package
            below = made[f"{name}-deps"] = _recipe(f"{name}-deps", made[parent], needs)
            made[name] = _recipe(name, below, last)
    return made


def _added(image: ImagePolicy, below: tuple[Recipe, ...], lock: bytes) -> tuple[Recipe, Recipe]:
    """What stands in the place of an image's last step when a policy adds packages to it."""
    own = _read(resources.images() / ADDITIONS)
    own["lists.json"] = json.dumps(image.lists(), sort_keys=True).encode()
    parent, last = below[-2:]
    digest = _digest(parent.digest, {**own, "lock.txt": image.locked.encode()})
    files = {**own, "lock.txt": lock}
    name = f"{image.base}-{ADDITIONS}"
    needs = Recipe(f"{name}-deps", parent.name, files, digest)
    return needs, _recipe(name, needs, last.files)


def _folders() -> dict[str, Path]:
    return {
        path.parent.name: path.parent
        for path in resources.images().glob("*/Dockerfile")
        if path.parent.name not in (SUPERVISOR, PACKAGE, ADDITIONS)
        and _NAME.fullmatch(path.parent.name)
    }


def _parent(folder: Path) -> str:
    found = _PARENT.search((folder / "Dockerfile").read_text())
    if found is None:
        raise ConfigError(f"{folder / 'Dockerfile'} has no line `ARG BASE=…` naming its parent.")
    return BASE if found[1] == BASE_IMAGE else found[1]


def _recipe(name: str, parent: Recipe, files: Mapping[str, bytes]) -> Recipe:
    return Recipe(name, parent.name, files, _digest(parent.digest, files))


def _digest(parent: str, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(parent.encode())
    for path, data in sorted(files.items()):
        digest.update(f"\n{path}\n{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def _read(folder: Path, prefix: str = "") -> dict[str, bytes]:
    return {
        prefix + path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not _IGNORED.intersection(path.parts)
        and not path.name.startswith(".")
    }


def _supervisor_layer() -> dict[str, bytes]:
    """Its Dockerfile, and `opt/`: the modules the supervisor imports, its start and its bridge."""
    package = resources.package()
    files = {
        f"opt/sandbox/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in _imported(package, (package / SUPERVISOR).rglob("*.py"))
    }
    # Of the package itself a container knows the version, and nothing that others load it for.
    files["opt/sandbox/__init__.py"] = VERSION_ONLY.encode()
    files["opt/__main__.py"] = files.pop("opt/sandbox/supervisor/__main__.py")
    files["opt/bridge.py"] = files.pop("opt/sandbox/supervisor/bridge.py")
    files["Dockerfile"] = (resources.images() / SUPERVISOR / "Dockerfile").read_bytes()
    return files


def _imported(package: Path, start: Iterable[Path]) -> set[Path]:
    """These modules of the package and all of its modules that they import, in turn."""
    found: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for module in _imports(path):
            parts = module.split(".")[1:]
            for depth in range(1, len(parts) + 1):
                stem = package.joinpath(*parts[:depth])
                candidates = (stem.with_suffix(".py"), stem / "__init__.py")
                waiting += [candidate for candidate in candidates if candidate.is_file()]
    return found


def _imports(path: Path) -> set[str]:
    """The names of the package that a module imports; only such statements are parsed."""
    source = path.read_bytes()
    try:
        nodes = [node for found in _IMPORT.findall(source) for node in ast.parse(found).body]
    except SyntaxError:  # one is written in another way
        nodes = [*ast.walk(ast.parse(source))]
    modules: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in modules if module.split(".")[0] == "sandbox"}


def _package_layer() -> dict[str, bytes]:
    """Its Dockerfile, and the package as a wheel carries it."""
    files = _read(resources.package(), "sandbox/")
    files |= _read(resources.images(), "sandbox/_data/images/")
    for names in resources.images().glob("*/requirements.in"):
        files[f"sandbox/_data/images/{names.parent.name}/{names.name}"] = names.read_bytes()
    files |= _read(resources.policies(), "sandbox/_data/policies/")
    files["sandbox/_data/requirements.txt"] = resources.requirements().read_bytes()
    files["Dockerfile"] = (resources.images() / PACKAGE / "Dockerfile").read_bytes()
    return files
