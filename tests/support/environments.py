"""Python environments beside the project's own, for packages that cannot share it.

Each is made from a locked requirements file of ``tests/requirements``, once for each of its
contents, in ``build/environments``: a second run finds it there. Where the index cannot be
reached, the test fails.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
ENVIRONMENTS = Path(__file__).parents[2] / "build/environments"
INSTALL_TIMEOUT_S = 600


def python_with(name: str) -> Path:
    """The Python of the environment that ``tests/requirements/<name>.txt`` locks, made if need be.

    May be called by several processes at once: one makes it, the others wait.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    made_from = requirements.read_bytes() + sys.version.encode()
    folder = ENVIRONMENTS / f"{name}-{hashlib.sha256(made_from).hexdigest()[:12]}"
    python, stamp = folder / "bin/python", folder / ".complete"
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            _run(sys.executable, "-m", "venv", "--clear", str(folder))
            pip = (str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
            _run(*pip, "--require-hashes", "--requirement", str(requirements))
            stamp.touch()
    return python


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
