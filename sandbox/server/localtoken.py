"""The local token, which `sandbox serve` makes at its first start: where it is kept."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from sandbox.config import Settings
from sandbox.errors import ConfigError
from sandbox.server.grants import LOCAL_GRANT, Grant, TokenVerifier

TOKEN_FILE = "token"  # noqa: S105  # the name of its file
TOKEN_BYTES = 32


class LocalToken:
    """One token, which stands for the person who started the server."""

    def __init__(self, token: str) -> None:
        self._digest = _digest(token)

    async def grant(self, token: str) -> Grant | None:
        """Everything for the token, compared in constant time; None for any other."""
        return LOCAL_GRANT if hmac.compare_digest(_digest(token), self._digest) else None


class LocalTokenFile:
    """The same with the token in a file, so that a new one counts at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: object = None
        self._known: LocalToken | None = None

    async def grant(self, token: str) -> Grant | None:
        """Everything for the token in the file now; None for any other, or when there is none.

        Raises:
            ConfigError: The file cannot be used, or others may read it.
        """
        seen = _version(self._path)
        if seen is None or seen != self._seen:
            kept = read_token(self._path)
            self._known, self._seen = LocalToken(kept) if kept else None, seen
        return await self._known.grant(token) if self._known else None


def local_verifier(settings: Settings, state_dir: Path) -> TokenVerifier:
    """Knows the local token: that of the settings, else the one in the state folder."""
    named = settings.token.get_secret_value()
    return LocalToken(named) if named else LocalTokenFile(state_dir / TOKEN_FILE)


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


def rotate_token(settings: Settings, state_dir: Path) -> str:
    """Put a new token into the state folder; the old one is refused from now on.

    Raises:
        ConfigError: The settings say what the token is, or its file cannot be written.
    """
    if settings.token.get_secret_value():
        raise ConfigError(
            "The setting `token` says what the token is.", remedy="Change it there, and restart."
        )
    return _make_token(state_dir / TOKEN_FILE)


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
    remedy = "Remove the file, so that a new token is made at the next start."
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"Others may read the token in {path}.", remedy=remedy)
    if len(token) < 16:
        raise ConfigError(f"{path} holds no token.", remedy=remedy)
    return token


def _make_token(path: Path) -> str:
    token = secrets.token_urlsafe(TOKEN_BYTES)
    # Its own name: in a container, the number of the process is the same at each start.
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(token + "\n")
            fresh.replace(path)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise ConfigError(f"The token cannot be kept in {path}: {exc.strerror}.") from exc
    return token


def _version(path: Path) -> object:
    """Changes whenever the file is another one or was written; None when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
