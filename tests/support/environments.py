"""Python environments beside the project's own, for packages that cannot share it.

Each is made from a locked requirements file of ``tests/requirements``, once for each of its
contents, in ``build/environments``: a second run finds it there. Where the index cannot be
reached, the test fails. The package of this tree itself can be had there, too, as it is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "tests/requirements"
ENVIRONMENTS = ROOT / "build/environments"
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "requirements.txt", "images", "policies")
"""What a wheel is made of, beside the package itself."""
INSTALL_TIMEOUT_S = 600


def python_with(name: str) -> Path:
    """The Python of the environment that ``tests/requirements/<name>.txt`` locks, made if need be.

    May be called by several processes at once: one makes it, the others wait.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    made_from = requirements.read_bytes() + sys.version.encode()
    folder = ENVIRONMENTS / f"{name}-{hashlib.sha256(made_from).hexdigest()[:12]}"
    python = folder / "bin/python"
    with _unmade(folder) as is_unmade:
        if is_unmade:
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
            _run(*pip, "--require-hashes", "--requirement", str(requirements))
    return python


def package() -> Path:
    """A folder with this tree's package as it is installed elsewhere, its entry points too.

    It goes into the ``PYTHONPATH`` of an environment that has what the package needs. A new one is
    built when anything of the tree has changed; may be called by several processes at once.
    """
    files = [ROOT / name for name in BUILT_FROM] + [ROOT / "sandbox"]
    found = sorted(
        file
        for each in files
        for file in ([each] if each.is_file() else each.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    )
    digest = hashlib.sha256(sys.version.encode())
    for file in found:
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    folder = ENVIRONMENTS / f"package-{digest.hexdigest()[:12]}"
    site = folder / "site"
    with _unmade(folder) as is_unmade:
        if is_unmade:
            shutil.rmtree(folder, ignore_errors=True)
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
            alone = ("--no-deps", "--no-build-isolation", "--quiet")
            _run(*pip, "wheel", *alone, "--wheel-dir", str(folder), str(ROOT))
            (wheel,) = folder.glob("*.whl")
            _run(*pip, "install", "--no-deps", "--quiet", "--target", str(site), str(wheel))
    return site


@contextmanager
def _unmade(folder: Path) -> Generator[bool]:
    """Whether a folder is still to be made, by this process alone; it is when the block ends."""
    stamp = folder / ".complete"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not stamp.exists()
        stamp.touch()


def _run(*words: str) -> None:
    """Run a program to its end.

    Raises:
        AssertionError: It failed.
    """
    known = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        words,
        env=known,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"
