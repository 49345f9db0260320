"""The kernelspecs of ours that Jupyter finds: written, listed and removed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jupyter_core.paths import jupyter_data_dir, jupyter_path

from sandbox.errors import Conflict, InvalidRequest, NotFound
from sandbox.jupyter.kernelconfig import KernelConfig

PROVISIONER = "sandbox"
FILE = "kernel.json"
MAX_FILE_BYTES = 256 * 1024
LANGUAGES = {"python3": "python", "bash": "bash"}
_NAME = re.compile(r"[a-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True)
class InstalledKernelspec:
    """A kernelspec of ours."""

    name: str
    folder: Path
    display_name: str
    config: KernelConfig | None
    """None when what stands there makes no sense."""


def folder_for(user: bool = False, sys_prefix: bool = False, prefix: str = "") -> Path:
    """Where kernelspecs go: this user's folder, unless another is named.

    Raises:
        InvalidRequest: Several are named.
    """
    if user + sys_prefix + bool(prefix) > 1:
        raise InvalidRequest("Give one of --user, --sys-prefix and --prefix.")
    if sys_prefix or prefix:
        return Path(prefix or sys.prefix).absolute() / "share/jupyter/kernels"
    return Path(jupyter_data_dir()) / "kernels"


def default_name(config: KernelConfig) -> str:
    """The name of a kernelspec that was given none."""
    policy = re.sub(r"[^a-z0-9._-]", "-", config.policy.lower()) or "default"
    return f"sandbox-{policy}" + ("" if config.kernel == "python3" else f"-{config.kernel.lower()}")


def install(
    config: KernelConfig,
    parent: Path,
    name: str = "",
    display_name: str = "",
    env: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> Path:
    """Write a kernelspec, in the place of one of ours that is there.

    Args:
        env: Variables that its bridge gets; where the settings are, say.
        force: Whether it may take the place of one that is not ours.

    Raises:
        InvalidRequest: The name can be none.
        Conflict: There is one of that name that is not ours, there or where Jupyter looks first.
            Nothing was written: whoever relies on it would run notebooks outside of a sandbox.
    """
    name = (name or default_name(config)).lower()
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise InvalidRequest(
            f"{name!r:.120} can be no kernelspec's name.",
            remedy="Use letters, digits, dots, dashes and underscores.",
        )
    folder = parent / name
    if folder.exists() and not force and _read(name, folder) is None:
        raise Conflict(
            f"{folder} is there and is no kernelspec of ours.",
            remedy="Choose another --name, or put ours in its place with --force.",
        )
    hiding = _hiding(name, parent)
    if hiding is not None:
        raise Conflict(
            f"Jupyter would not find it: {hiding} comes first.",
            remedy="Choose another --name, or install with --sys-prefix --force in its place.",
        )
    language = LANGUAGES.get(config.kernel, config.kernel)
    title = "Python 3" if language == "python" else language.capitalize()
    spec: dict[str, Any] = {
        # Only run by what knows no provisioners: it says so, and runs nothing of the notebook.
        "argv": [sys.executable, "-P", "-m", "sandbox.jupyter.bridge"],
        "display_name": display_name or f"{title} (sandbox: {config.policy or 'default policy'})",
        "language": language,
        "interrupt_mode": "signal",
        "env": dict(env or {}),
        "metadata": {
            "debugger": False,
            "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": config.data()},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f".{FILE}.{os.getpid()}"
    fresh.write_text(json.dumps(spec, indent=1) + "\n")
    fresh.replace(folder / FILE)
    return folder


def installed() -> list[InstalledKernelspec]:
    """Those of ours that Jupyter finds from here, by name."""
    found: dict[str, InstalledKernelspec | None] = {}
    for parent in map(Path, jupyter_path("kernels")):
        if parent.is_dir():
            for folder in sorted(parent.iterdir()):
                name = folder.name.lower()
                if name not in found and (folder / FILE).is_file():
                    found[name] = _read(name, folder)  # also if it is not: it hides later ones
    return [each for _, each in sorted(found.items()) if each is not None]


def remove(name: str) -> Path:
    """Remove one of ours by its name; returns where it was.

    Raises:
        NotFound: There is none of ours with that name.
    """
    for each in installed():
        if each.name == name.lower():
            shutil.rmtree(each.folder)
            return each.folder
    raise NotFound(
        f"There is no kernelspec {name!r:.80} of ours.",
        remedy="`sandbox kernelspec list` shows them.",
    )


def _hiding(name: str, parent: Path) -> Path | None:
    """The kernelspec that Jupyter finds instead of one in this folder; None where there is none."""
    searched = [Path(each).absolute() for each in jupyter_path("kernels")]
    if parent.absolute() not in searched:
        return None  # for another environment, which decides for itself
    for other in searched[: searched.index(parent.absolute())]:
        names = [each.name for each in other.iterdir()] if other.is_dir() else []
        for each in names:
            if each.lower() == name and (other / each / FILE).is_file():
                return other / each
    return None


def _read(name: str, folder: Path) -> InstalledKernelspec | None:
    """The kernelspec of a folder; None when it is not ours."""
    try:
        with (folder / FILE).open("rb") as file:
            spec = json.loads(file.read(MAX_FILE_BYTES))
        wanted = spec["metadata"]["kernel_provisioner"]
        is_ours = wanted["provisioner_name"] == PROVISIONER
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not is_ours:
        return None
    try:
        config = KernelConfig.of(cast("Mapping[str, Any]", wanted.get("config") or {}))
    except (ValueError, TypeError, AttributeError):
        config = None
    return InstalledKernelspec(name, folder, str(spec.get("display_name", "")), config)
