"""Tokens: whom one stands for, and where the one of `sandbox serve` is kept."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from sandbox.config import Settings
from sandbox.errors import ConfigError

LOCAL = "local"
"""The principal of the one token, and of whoever started a stdio server."""
TOKEN_FILE = "token"  # noqa: S105  # the name of its file
TOKEN_BYTES = 32


class TokenVerifier(Protocol):
    """Knows whose token it is."""

    def principal(self, token: str) -> str | None:
        """The principal that a token stands for; None when it stands for nobody."""
        ...


class LocalToken:
    """One token, which stands for the person who started the server.

    Args:
        token: The token.
    """

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)

    def principal(self, token: str) -> str | None:
        """``local`` for the token, compared in constant time; None for any other."""
        return LOCAL if hmac.compare_digest(_digest(token), self._digest) else None


def server_token(settings: Settings, state_dir: Path) -> str:
    """The token of the settings, else the one in the state folder, which is made if need be.

    Raises:
        ConfigError: Its file cannot be used, or others may read it.
    """
    named = settings.token.get_secret_value()
    if named:
        return named
    path = state_dir / TOKEN_FILE
    return read_token(path) or _make_token(path)


def read_token(path: Path) -> str | None:
    """The token in a file; None when there is no such file.

    Raises:
        ConfigError: It cannot be read, others may read it, or it holds no token.
    """
    try:
        mode = path.stat().st_mode
        token = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigError(f"The token in {path} cannot be read: {exc}.") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"Others may read the token in {path}.",
            remedy="Remove the file, so that a new token is made at the next start.",
        )
    if len(token) < 16:
        raise ConfigError(
            f"{path} holds no token.",
            remedy="Remove the file, so that a new token is made at the next start.",
        )
    return token


def _make_token(path: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            stream.write(token + "\n")
        fresh.replace(path)
    except OSError as exc:
        raise ConfigError(f"The token cannot be kept in {path}: {exc.strerror}.") from exc
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
