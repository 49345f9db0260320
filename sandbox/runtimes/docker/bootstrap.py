"""The Debian base image without a container registry: bootstrapped from Debian packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from sandbox import resources
from sandbox.container.images import BASE, BASE_IMAGE
from sandbox.errors import InfrastructureError
from sandbox.runtimes.docker import buildhost

_TIMEOUT_S = 900


def bootstrap(archive: Path, progress: Callable[[str], None]) -> None:
    """Write a root file system of the base's Debian suite to a tar archive of about 80 MB.

    Raises:
        InfrastructureError: This machine cannot do it; the message says what is missing.
    """
    _have_mmdebstrap(progress)
    progress(f"base: bootstrapping {BASE_IMAGE} from Debian packages (about half a minute)")
    script = resources.images() / BASE / "bootstrap"
    # Through sh: a wheel's files are not executable.
    _run(["sh", str(script), str(archive), *buildhost.apt_sources()])


def _have_mmdebstrap(progress: Callable[[str], None]) -> None:
    if shutil.which("mmdebstrap"):
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise InfrastructureError(
            f"No container registry gives {BASE_IMAGE} to the engine, and this machine has no "
            "mmdebstrap to make it from Debian packages.",
            remedy="Give the engine access to a registry, or run `apt-get install mmdebstrap` "
            "as root.",
        )
    progress("base: installing mmdebstrap")
    _run(["apt-get", "update", "--quiet=2"])
    _run(["apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", "mmdebstrap"])


def _run(command: list[str]) -> None:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )
    try:
        told, _ = process.communicate(timeout=_TIMEOUT_S)
    except BaseException as exc:
        # Never killed: these programs clean up after themselves when they are asked to end.
        process.terminate()
        process.communicate()
        if isinstance(exc, subprocess.TimeoutExpired):
            raise InfrastructureError(f"{command[0]} did not end within {_TIMEOUT_S} s.") from exc
        raise
    if process.returncode:
        tail = "\n".join(told.splitlines()[-15:])
        raise InfrastructureError(
            f"`{' '.join(command[:3])}` failed ({process.returncode}):\n{tail}"
        )
