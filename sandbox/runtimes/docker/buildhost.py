"""What the machine that builds lends to a build: mirror, package index, proxies, certificates.

None of it is part of a recipe or of its digest, none of it is kept in an image, and none of it is
written down in the project: it is what apt and pip are configured with where the build runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi

from sandbox import pipindex
from sandbox.errors import ConfigError

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Loan:
    """What one build is lent."""

    arguments: Mapping[str, str]
    """Build arguments by name; a Dockerfile uses those it declares."""
    files: Mapping[str, bytes]
    """Contents by name, to be put into the context's `build/`."""


def loan(ca_bundle: Path | None = None) -> Loan:
    """Gather what a build on this machine needs to reach its mirror and its index.

    Args:
        ca_bundle: Certificates, in PEM, to trust during the build besides the public ones. None
            takes the file that SANDBOX_BUILD_CA, SSL_CERT_FILE or PIP_CERT names, if any does.

    Raises:
        ConfigError: The file cannot be read.
    """
    arguments = pipindex.configured().variables() | _proxies()
    files: dict[str, bytes] = {}
    apt: list[str] = []
    if certificates := _certificates(ca_bundle):
        files["ca.pem"] = certificates
        arguments["PIP_CERT"] = "/build/ca.pem"
        apt.append('Acquire::https::CaInfo "/build/ca.pem";')
    if sources := apt_sources():
        files["sources.list"] = "".join(f"{line}\n" for line in sources).encode()
        apt += ['Dir::Etc::SourceList "/build/sources.list";', 'Dir::Etc::SourceParts "-";']
    if apt:
        files["apt.conf"] = "".join(f"{line}\n" for line in apt).encode()
        arguments["APT_CONFIG"] = "/build/apt.conf"
    return Loan(arguments, files)


def apt_sources(suite: str = "bookworm") -> tuple[str, ...]:
    """The lines of a sources.list for a Debian suite, from this machine's own apt.

    Returns:
        Lines `deb URI RELEASE COMPONENT`; none when this machine's apt has no such suite.
    """
    if shutil.which("apt-get") is None:
        return ()
    form = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    query = ["apt-get", "indextargets", "--format", form, "Created-By: Packages", "Origin: Debian"]
    lines = _output(query).splitlines()
    mine = [line for line in lines if line.split()[2].partition("-")[0] == suite]
    # Updates without the suite itself would make a base of nothing.
    complete = any(line.split()[2] == suite for line in mine)
    return tuple(dict.fromkeys(mine)) if complete else ()


def _proxies() -> dict[str, str]:
    # The engine knows these arguments by itself and keeps them out of an image's history.
    return {
        name: value
        for proxy in _PROXIES
        for name in (proxy, proxy.upper())
        if (value := os.environ.get(name))
    }


def _certificates(ca_bundle: Path | None) -> bytes:
    if ca_bundle is None:
        named = (os.environ.get(key) for key in ("SANDBOX_BUILD_CA", "SSL_CERT_FILE", "PIP_CERT"))
        if (chosen := next(filter(None, named), None)) is None:
            return b""
        ca_bundle = Path(chosen)
    try:
        return Path(certifi.where()).read_bytes() + b"\n" + ca_bundle.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"The certificates for the build cannot be read: {ca_bundle}: {exc.strerror}.",
            remedy="Name a file in PEM with SANDBOX_BUILD_CA.",
        ) from exc


def _output(command: list[str]) -> str:
    """What a program prints; nothing when it is missing or fails, for all here is optional."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
