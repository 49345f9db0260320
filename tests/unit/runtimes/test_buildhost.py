"""What the building machine lends to a build."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

from sandbox.errors import ConfigError
from sandbox.runtimes.docker import buildhost

NAMED_CERTIFICATES = ("SANDBOX_BUILD_CA", "SSL_CERT_FILE", "PIP_CERT")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing is configured."""
    for name in (*NAMED_CERTIFICATES, "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    # /dev/null turns pip's configuration files off; what a test sets in the environment stays.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(buildhost.shutil, "which", lambda name: None)


def test_a_bare_machine_lends_nothing_about_packages_or_certificates() -> None:
    lent = buildhost.loan()
    assert not {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "APT_CONFIG"} & set(
        lent.arguments
    )
    assert lent.files == {}


def test_the_index_comes_from_pips_own_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text(
        "[global]\nindex-url = https://weak.test/simple\n"
        "[install]\nindex-url = https://index.test/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    assert buildhost.loan().arguments["PIP_INDEX_URL"] == "https://index.test/simple"


def test_an_index_in_the_environment_wins_over_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configuration = tmp_path / "pip.conf"
    configuration.write_text("[install]\nindex-url = https://index.test/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("PIP_INDEX_URL", "https://mine.test/simple")
    assert buildhost.loan().arguments["PIP_INDEX_URL"] == "https://mine.test/simple"


def test_folders_of_this_machine_are_not_lent_as_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///opt/simple https://extra.test/simple")
    assert buildhost.loan().arguments["PIP_EXTRA_INDEX_URL"] == "https://extra.test/simple"
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "file:///opt/simple")
    assert "PIP_EXTRA_INDEX_URL" not in buildhost.loan().arguments


def test_certificates_are_trusted_besides_the_public_ones_by_pip_and_apt(tmp_path: Path) -> None:
    extra = tmp_path / "extra.pem"
    extra.write_bytes(b"an extra certificate")
    lent = buildhost.loan(extra)
    assert lent.files["ca.pem"].startswith(Path(certifi.where()).read_bytes())
    assert lent.files["ca.pem"].endswith(b"an extra certificate")
    assert lent.arguments["PIP_CERT"] == "/build/ca.pem"
    assert b'Acquire::https::CaInfo "/build/ca.pem";' in lent.files["apt.conf"]


@pytest.mark.parametrize("strongest", range(len(NAMED_CERTIFICATES)))
def test_the_first_variable_that_names_certificates_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strongest: int
) -> None:
    for name in NAMED_CERTIFICATES[strongest:]:
        file = tmp_path / name
        file.write_text(name)
        monkeypatch.setenv(name, str(file))
    assert buildhost.loan().files["ca.pem"].endswith(NAMED_CERTIFICATES[strongest].encode())


def test_certificates_that_cannot_be_read_are_an_error_naming_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        buildhost.loan(tmp_path / "absent.pem")


def test_the_mirror_of_the_same_suite_is_taken_from_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildhost.shutil, "which", lambda name: f"/usr/bin/{name}")
    told = (
        "deb http://mirror.test/debian/ bookworm main\n"
        "deb http://mirror.test/debian/ bookworm main\n"
        "deb http://mirror.test/security/ bookworm-security main\n"
        "deb http://mirror.test/debian/ trixie main\n"
    )
    monkeypatch.setattr(buildhost, "_output", lambda command: told)
    assert buildhost.apt_sources("bookworm") == (
        "deb http://mirror.test/debian/ bookworm main",
        "deb http://mirror.test/security/ bookworm-security main",
    )
    assert buildhost.apt_sources("bullseye") == ()


def test_updates_without_the_suite_itself_are_no_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buildhost.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(
        buildhost,
        "_output",
        lambda command: "deb http://mirror.test/security/ bookworm-security main\n",
    )
    assert buildhost.apt_sources("bookworm") == ()
