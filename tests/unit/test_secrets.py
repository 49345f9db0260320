"""Secrets come from the operator's folder only, and show themselves nowhere."""

from __future__ import annotations

import copy
import logging
import os
import pickle
from pathlib import Path

import pytest

from sandbox.errors import ConfigError
from sandbox.policy import Policy, load
from sandbox.policy.access import SecretRule
from sandbox.secrets import MAX_VALUE_BYTES, Secret, SecretStore

VALUE = "correct horse battery"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "api-key").write_text(VALUE + "\n")
    return folder


def policy_with(*rules: SecretRule) -> Policy:
    return load().get().model_copy(update={"name": "keyed", "secrets": rules})


def test_a_value_is_the_content_of_its_file_without_the_line_end(folder: Path) -> None:
    assert SecretStore(folder).read("api-key").reveal() == VALUE


def test_a_policy_gets_what_it_names_and_no_more(folder: Path) -> None:
    (folder / "other").write_text("something else entirely")
    held = SecretStore(folder).for_policy(policy_with(SecretRule(name="api-key", delivery="file")))
    assert list(held.files) == ["api-key"]
    assert not held.gateway
    assert held.redactor.text(f"<{VALUE}>") == "<[secret api-key]>"
    assert "entirely" in held.redactor.text("something else entirely")


def test_the_error_for_an_absent_secret_names_it_and_the_policy(folder: Path) -> None:
    for store in (SecretStore(folder), SecretStore(None)):
        with pytest.raises(ConfigError, match=r"'keyed'.*'absent'") as caught:
            store.for_policy(policy_with(SecretRule(name="absent")))
        assert caught.value.remedy


def test_an_adoption_goes_on_without_what_is_no_longer_there(folder: Path) -> None:
    rules = SecretRule(name="api-key"), SecretRule(name="absent")
    held, missing = SecretStore(folder).for_adoption(policy_with(*rules))
    assert list(held.gateway) == ["api-key"]
    assert missing == ("absent",)


def test_a_file_that_others_may_read_is_refused_unless_they_cannot_get_there(folder: Path) -> None:
    (folder / "api-key").chmod(0o644)
    assert SecretStore(folder).read("api-key").reveal() == VALUE
    folder.chmod(0o711)
    with pytest.raises(ConfigError, match="Other users"):
        SecretStore(folder).read("api-key")
    (folder / "api-key").chmod(0o640)
    assert SecretStore(folder).read("api-key").reveal() == VALUE


def test_a_link_may_lead_within_the_folder_but_not_out_of_it(folder: Path, tmp_path: Path) -> None:
    (folder / "..data").mkdir()
    (folder / "..data" / "linked").write_text(VALUE)
    (folder / "linked").symlink_to("..data/linked")
    assert SecretStore(folder).read("linked").reveal() == VALUE
    outside = tmp_path / "outside"
    outside.write_text(VALUE)
    (folder / "leaving").symlink_to(outside)
    with pytest.raises(ConfigError, match="leads out"):
        SecretStore(folder).read("leaving")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"short", "fewer than"),
        (b"       x\n", "fewer than"),
        (b"x" * (MAX_VALUE_BYTES + 1), "longer than"),
        (b"\xff\xfe" * 8, "not text"),
        (b"with a NUL\0 inside", "NUL"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(folder: Path, content: bytes, said: str) -> None:
    (folder / "odd").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        SecretStore(folder).read("odd")


def test_only_regular_files_are_read(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ConfigError, match=r"regular|cannot be read"):
            SecretStore(folder).read(name)


@pytest.mark.parametrize("name", ["", "../api-key", "/etc/passwd", "..", "A", "a" * 65, "a/b"])
def test_names_that_are_no_names_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name of a secret"):
        SecretStore(folder).read(name)


def test_a_value_that_cannot_stand_in_a_header_is_refused_for_the_gateway(folder: Path) -> None:
    (folder / "lines").write_text("first line\nX-Injected: yes")
    with pytest.raises(ConfigError, match="header"):
        SecretStore(folder).for_policy(policy_with(SecretRule(name="lines")))
    as_file = SecretRule(name="lines", delivery="file")
    assert SecretStore(folder).for_policy(policy_with(as_file)).files


def test_what_is_written_is_for_its_owner_only(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "made")
    path = store.write("new-key", VALUE + "\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert store.read("new-key").reveal() == VALUE
    assert store.names() == ["new-key"]
    with pytest.raises(ConfigError):
        store.write("new-key", "short")
    assert store.read("new-key").reveal() == VALUE


def test_a_secret_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(VALUE)
    logging.getLogger("test").warning("%s %r %s", secret, secret, {"held": [secret]})
    shown = f"{secret} {secret!r} {[secret]} {caplog.text}"
    assert VALUE not in shown
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copying(secret)
