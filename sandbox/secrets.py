"""The values of secrets, as the operator gives them to the controller: one file for each.

The folder looks as Docker and Kubernetes make it: the file's name is the secret's, its content the
value, without the line end after it. A value is read when a session opens, lives in memory only,
and shows itself nowhere: it has no ``repr``, and cannot be pickled.
"""

from __future__ import annotations

import os
import re
import stat as modes
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from sandbox.errors import ConfigError, SandboxError
from sandbox.outputs.redaction import MIN_FORM_BYTES, Redactor
from sandbox.policy import Policy

MAX_VALUE_BYTES = 64 * 1024
MAX_HEADER_VALUE = 4096
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Secret:
    """A value that is shown only to who asks for it by :meth:`reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    @property
    def size_bytes(self) -> int:
        """Its length."""
        return len(self._value.encode())

    def __repr__(self) -> str:
        return "<Secret>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


@dataclass(frozen=True, slots=True)
class SessionSecrets:
    """What the controller holds for one session."""

    files: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    gateway: Mapping[str, Secret] = field(default_factory=dict[str, Secret])
    redactor: Redactor = field(default_factory=Redactor)

    async def get(self, session_id: str, name: str) -> str | None:
        """What the gateway adds to this session's requests; ``SecretSource`` of the gateway."""
        secret = self.gateway.get(name)
        return None if secret is None else secret.reveal()


class SecretStore:
    """The operator's folder of secrets."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def for_policy(self, policy: Policy) -> SessionSecrets:
        """Read what a policy names.

        Raises:
            ConfigError: A value is not there, or cannot be used.
        """
        found = {rule.name: self._needed(rule.name, policy) for rule in policy.secrets}
        return self._held(policy, found)

    def for_adoption(self, policy: Policy) -> tuple[SessionSecrets, tuple[str, ...]]:
        """Read what a policy of an earlier controller names, as far as it is still there.

        Returns:
            What is there, and the names of what is not.
        """
        found: dict[str, Secret] = {}
        for rule in policy.secrets:
            with suppress(SandboxError):
                found[rule.name] = self.read(rule.name)
        missing = tuple(rule.name for rule in policy.secrets if rule.name not in found)
        return self._held(policy, found), missing

    def names(self) -> list[str]:
        """The names of all secrets in the folder.

        Raises:
            ConfigError: The folder cannot be read.
        """
        if self._folder is None:
            return []
        try:
            with os.scandir(self._folder) as entries:
                return sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name))
        except OSError as exc:
            raise _unreadable(self._folder, exc) from exc

    def read(self, name: str) -> Secret:
        """Read one secret.

        Raises:
            ConfigError: It is not there, or cannot be used; the message says why, never what.
        """
        if self._folder is None:
            raise ConfigError(
                f"There is no secret {name!r}: the setting secrets_dir names no folder.",
                remedy="Set it to a folder with a file for each secret.",
            )
        _check_name(name)
        return Secret(_text(name, self._content(self._folder, name)))

    def write(self, name: str, value: str) -> Path:
        """Put a secret into the folder, which is made if need be; what was there is replaced.

        Raises:
            ConfigError: It cannot be one, or cannot be written; nothing was changed.
        """
        if self._folder is None:
            raise ConfigError("The setting secrets_dir names no folder.", remedy="Set it first.")
        _check_name(name)
        value = _text(name, value.encode("utf-8", "surrogatepass"))
        path, beside = self._folder / name, self._folder / f".{name}.new"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8", newline="") as file:
                file.write(value)
            beside.replace(path)
        except OSError as exc:
            raise ConfigError(f"{path} cannot be written: {exc.strerror}.") from exc
        return path

    # --- inside

    def _needed(self, name: str, policy: Policy) -> Secret:
        try:
            return self.read(name)
        except ConfigError as exc:
            raise ConfigError(
                f"The policy {policy.name!r} needs the secret {name!r}. {exc.message}",
                remedy=exc.remedy or f"The operator gives it with `sandbox secret set {name}`.",
            ) from exc

    def _held(self, policy: Policy, found: Mapping[str, Secret]) -> SessionSecrets:
        by_delivery: dict[str, dict[str, Secret]] = {"file": {}, "gateway": {}}
        for rule in policy.secrets:
            if (secret := found.get(rule.name)) is not None:
                by_delivery[rule.delivery][rule.name] = secret
        for name, secret in by_delivery["gateway"].items():
            _check_header_value(name, secret)
        return SessionSecrets(
            files=by_delivery["file"],
            gateway=by_delivery["gateway"],
            redactor=Redactor({name: secret.reveal() for name, secret in found.items()}),
        )

    def _content(self, folder: Path, name: str) -> bytes:
        try:
            folder = folder.resolve(strict=True)
            # Kubernetes makes each name a link to a file of the same folder.
            path = (folder / name).resolve(strict=True)
            if not path.is_relative_to(folder):
                raise ConfigError(f"The secret {name!r} is a link that leads out of its folder.")
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, "rb") as file:
                mode = os.fstat(fd).st_mode
                if not modes.S_ISREG(mode):
                    raise ConfigError(f"The secret {name!r} is not a regular file.")
                is_open = bool(folder.stat().st_mode & modes.S_IXOTH)
                if is_open and mode & (modes.S_IROTH | modes.S_IWOTH):
                    raise ConfigError(
                        f"Other users of this machine may read or write the secret {name!r}.",
                        remedy=f"Run `chmod o-rwx {path}`.",
                    )
                return file.read(MAX_VALUE_BYTES + 3)
        except FileNotFoundError as exc:
            raise ConfigError(
                f"There is no secret {name!r} in {folder}.",
                remedy=f"The operator gives it with `sandbox secret set {name}`.",
            ) from exc
        except (OSError, RuntimeError) as exc:
            raise _unreadable(folder, exc) from exc


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r:.80} cannot be the name of a secret.",
            remedy="Use up to 64 lower-case letters, digits, `.`, `_` and `-`.",
        )


def _text(name: str, content: bytes) -> str:
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) > MAX_VALUE_BYTES:
        raise ConfigError(f"The secret {name!r} is longer than {MAX_VALUE_BYTES:,} bytes.")
    try:
        value = content.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"The secret {name!r} is not text in UTF-8.") from None
    if "\0" in value:
        raise ConfigError(f"The secret {name!r} holds a NUL character.")
    size = len(value.strip().encode())
    if size < MIN_FORM_BYTES:
        raise ConfigError(
            f"The secret {name!r} has {size} bytes, fewer than {MIN_FORM_BYTES}: it could not be "
            "told from ordinary text in outputs.",
            remedy="Use a longer one.",
        )
    return value


def _check_header_value(name: str, secret: Secret) -> None:
    value = secret.reveal()
    if len(value) > MAX_HEADER_VALUE or not value.isascii() or not value.isprintable():
        raise ConfigError(
            f"The secret {name!r} cannot be sent in a header: that is one line of at most "
            f"{MAX_HEADER_VALUE:,} printable ASCII characters.",
            remedy="Let the policy give it as a file, or use another value.",
        )
    if value != value.strip():
        raise ConfigError(f"The secret {name!r} begins or ends with a space.")


def _unreadable(folder: Path, exc: Exception) -> ConfigError:
    reason = exc.strerror if isinstance(exc, OSError) else "it has a loop of links"
    return ConfigError(f"The folder of secrets {folder} cannot be read: {reason}.")
