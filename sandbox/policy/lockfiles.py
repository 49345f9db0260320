"""The lock of a policy's packages as a file beside the policies."""

from __future__ import annotations

from pathlib import Path

from sandbox.errors import ConfigError, PolicyError

MAX_BYTES = 1024 * 1024


def read_lock(file: Path) -> bytes:
    """What a lock says; empty when there is none.

    Raises:
        PolicyError: It cannot be read.
    """
    try:
        with file.open("rb") as opened:
            lock = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return b""
    except OSError as exc:
        raise PolicyError(f"cannot be read: {exc.strerror}", file=str(file)) from exc
    if len(lock) > MAX_BYTES:
        raise PolicyError("is too large to be a lock", file=str(file))
    return lock


def write_lock(file: Path, lock: bytes) -> None:
    """Write a lock, whole or not at all.

    Raises:
        ConfigError: The folder cannot be written.
    """
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(exist_ok=True)
        part.write_bytes(lock)
        part.replace(file)
    except OSError as exc:
        raise ConfigError(
            f"What the packages come to cannot be kept in {file}: {exc.strerror}.",
            remedy="Build it where the folder of the policy files can be written.",
        ) from exc
