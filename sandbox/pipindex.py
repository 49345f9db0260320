"""Where pip takes packages from, as it is configured on this machine.

No index is written down in this project: what a policy calls ``package-index``, and what an image
is built from, is what pip's configuration says where the controller, or the build, runs.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from dataclasses import dataclass

_KEYS = ("index-url", "extra-index-url", "trusted-host")
# The weakest first.
_SECTIONS = ("global", "install", ":env:")
_TIMEOUT_S = 30
# pip has no command that says what it takes when nothing is configured.
_DEFAULT = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


@dataclass(frozen=True, slots=True)
class PipIndex:
    """What pip is configured with; folders of this machine are left out."""

    index_url: str = ""
    """Empty for the one that pip has built in."""
    extra_index_urls: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    """Hosts whose certificates pip does not verify."""

    def variables(self) -> dict[str, str]:
        """The environment variables that tell pip the same, without those that are empty."""
        said = {
            "PIP_INDEX_URL": self.index_url,
            "PIP_EXTRA_INDEX_URL": " ".join(self.extra_index_urls),
            "PIP_TRUSTED_HOST": " ".join(self.trusted_hosts),
        }
        return {name: value for name, value in said.items() if value}


def configured() -> PipIndex:
    """What pip's configuration says here; blocks for as long as pip takes to start."""
    said: dict[tuple[str, str], str] = {}
    for line in _output("-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        said[section, key] = str(ast.literal_eval(value))
    found = {
        key: said[section, key].split()
        for section in _SECTIONS
        for key in _KEYS
        if (section, key) in said
    }
    return PipIndex(
        index_url=next(filter(_is_remote, found.get("index-url", ())), ""),
        extra_index_urls=tuple(filter(_is_remote, found.get("extra-index-url", ()))),
        trusted_hosts=tuple(found.get("trusted-host", ())),
    )


def built_in() -> str:
    """The index that pip takes when none is configured; empty when pip is not here."""
    return _output("-c", _DEFAULT).strip()


def _is_remote(word: str) -> bool:
    return word.startswith(("https://", "http://"))


def _output(*arguments: str) -> str:
    """What this Python prints; nothing when that fails."""
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
