"""A virtual environment for each peer, made once for what its requirements say."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.protocol import ROOT

REQUIREMENTS = Path(__file__).parent / "requirements"
FOLDER = ROOT / "build/peers"
INSTALL_TIMEOUT_S = 900


class EnvironmentFailed(Exception):
    """An environment could not be made; with what the installer said."""


def python_of(name: str) -> Path:
    """The Python of an environment, which is made if need be; the project's own for no name.

    Raises:
        EnvironmentFailed: A package cannot be installed.
    """
    if not name:
        return Path(sys.executable)
    folder = FOLDER / name
    wanted = _digest(name)
    stamp = folder / ".made-from"
    if not stamp.is_file() or stamp.read_text() != wanted:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        pip = (str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "--quiet")
        _run(*pip, "install", "--requirement", str(REQUIREMENTS / f"{name}.txt"))
        stamp.write_text(wanted)
    return folder / "bin/python"


def version_of(python: Path, package: str) -> str:
    """The version of a package in an environment."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _run(str(python), "-c", code).strip()


def _digest(name: str) -> str:
    content = (REQUIREMENTS / f"{name}.txt").read_bytes() + sys.version.encode()
    return hashlib.sha256(content).hexdigest()


def _run(*words: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
    )
    if done.returncode != 0:
        raise EnvironmentFailed(f"{' '.join(words[:4])} …:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
