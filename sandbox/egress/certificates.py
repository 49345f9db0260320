"""The certificates that a session trusts: the public ones, and those that the operator adds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import certifi

from sandbox.errors import ConfigError

MAX_BYTES = 8 * 1024 * 1024
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s.+?-----END CERTIFICATE-----", re.DOTALL)
_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT")


def bundle(file: Path | None, env: Mapping[str, str]) -> bytes:
    """The certificates of an operator together with the public ones, in PEM.

    Args:
        file: The operator's, in PEM; None takes the file that SSL_CERT_FILE or PIP_CERT names.

    Returns:
        Every certificate once; empty when the operator adds none.

    Raises:
        ConfigError: The file cannot be read, or holds no certificate.
    """
    if file is None:
        named = next(filter(None, (env.get(name) for name in _VARIABLES)), None)
        if named is None:
            return b""
        file = Path(named)
    try:
        raw = file.read_bytes()
        public = Path(certifi.where()).read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"The certificates for sessions cannot be read: {file}: {exc.strerror}.",
            remedy="Name a file in PEM in the setting ca_bundle.",
        ) from exc
    own = _CERTIFICATE.findall(raw)
    if not own or len(raw) > MAX_BYTES:
        raise ConfigError(
            f"{file} holds no certificates in PEM, or more than {MAX_BYTES} bytes.",
            remedy="Name another file in the setting ca_bundle.",
        )
    every = dict.fromkeys((*_CERTIFICATE.findall(public), *own))
    return b"\n".join(every) + b"\n"
