"""The certificates that sessions trust."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.egress.certificates import bundle
from sandbox.errors import ConfigError

OWN = "-----BEGIN CERTIFICATE-----\nb3duCg==\n-----END CERTIFICATE-----\n"


def test_without_a_file_there_is_nothing_to_add() -> None:
    assert bundle(None, {}) == b""


def test_the_operators_certificates_stand_beside_the_public_ones_once(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text(f"a comment\n{OWN}{OWN}")
    for made in (bundle(file, {}), bundle(None, {"PIP_CERT": str(file)})):
        assert made.count(b"b3duCg==") == 1
        assert made.count(b"BEGIN CERTIFICATE") > 50
        assert b"comment" not in made


@pytest.mark.parametrize("content", [None, "", "-----BEGIN PRIVATE KEY-----"])
def test_a_file_that_holds_none_stops_the_controller(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError):
        bundle(file, {})
