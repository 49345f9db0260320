"""Settings come from a file, the environment and flags, and errors say which of them is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import config
from sandbox.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_any_source_the_defaults_bind_loopback_only(home: dict[str, str]) -> None:
    loaded = config.load(env=home)
    assert loaded.settings.host == "127.0.0.1"
    assert loaded.settings.port == 8000
    assert loaded.settings.state_dir == Path(home["HOME"]) / ".local/state/sandbox"
    assert {row.origin for row in loaded.explain()} == {"default"}


def test_a_flag_is_stronger_than_the_environment_and_that_than_the_file(
    home: dict[str, str], tmp_path: Path
) -> None:
    file = write(tmp_path / ".config/sandbox/config.yaml", "port: 1\nhost: localhost\n")
    from_file = config.load(env=home)
    from_env = config.load(env={**home, "SANDBOX_PORT": "2"})
    from_flag = config.load(env={**home, "SANDBOX_PORT": "2"}, flags={"port": 3, "host": None})
    assert [found.settings.port for found in (from_file, from_env, from_flag)] == [1, 2, 3]
    assert from_flag.settings.host == "localhost"
    rows = {row.key: row for row in from_flag.explain()}
    assert rows["port"].origin == "--port"
    assert rows["host"].origin == str(file)
    assert {row.key: row for row in from_env.explain()}["port"].origin == "SANDBOX_PORT"


def test_the_file_may_be_named_by_a_variable_and_must_then_exist(
    home: dict[str, str], tmp_path: Path
) -> None:
    named = write(tmp_path / "other.yaml", "max_sessions: 7")
    assert config.load(env={**home, "SANDBOX_CONFIG": str(named)}).settings.max_sessions == 7
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(env={**home, "SANDBOX_CONFIG": str(tmp_path / "absent.yaml")})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("porrt: 1", "Did you mean port"),
        ("port: 1\nport: 2", "given twice"),
        ("port: many", "port"),
        ("port: 70000", "port"),
        ("[1, 2]", "key: value"),
        ("a: [", "not readable"),
        ("? [1]\n: 2", "no such setting|not readable"),
        ("x: !!python/object/apply:os.getcwd []", "not readable"),
        ("\x00", "not readable"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_and_reason(
    home: dict[str, str], tmp_path: Path, text: str, reason: str
) -> None:
    file = write(tmp_path / "bad.yaml", text)
    with pytest.raises(ConfigError, match=reason) as caught:
        config.load(file, env=home)
    assert str(file) in caught.value.message


def test_a_misspelt_variable_is_refused_and_a_foreign_one_is_left_alone(
    home: dict[str, str],
) -> None:
    with pytest.raises(ConfigError, match="SANDBOX_MAX_SESSIONS"):
        config.load(env={**home, "SANDBOX_MAX_SESSION": "1"})
    config.load(env={**home, "SANDBOX_VENDOR_INSTANCE": "i-1"})


def test_an_empty_variable_counts_as_absent(home: dict[str, str]) -> None:
    assert config.load(env={**home, "SANDBOX_PORT": ""}).settings.port == 8000


def test_lists_are_comma_separated_in_the_environment(home: dict[str, str]) -> None:
    loaded = config.load(env={**home, "SANDBOX_ALLOWED_HOSTS": "a.example:1, b.example:*"})
    assert loaded.settings.allowed_hosts == ("a.example:1", "b.example:*")


@pytest.mark.parametrize("host", ["::", "192.0.2.1", "sandbox.example.org"])
def test_binding_a_public_address_demands_the_names_of_the_host(
    home: dict[str, str], host: str
) -> None:
    with pytest.raises(ConfigError, match="allowed_hosts"):
        config.load(env=home, flags={"host": host})
    config.load(env=home, flags={"host": host, "allowed_hosts": "sandbox.example.org:8000"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"])
def test_loopback_addresses_need_no_names(home: dict[str, str], host: str) -> None:
    assert config.load(env=home, flags={"host": host}).settings.host == host


@pytest.mark.parametrize("token", ["short", "sixteen characters", "ümläutümläutümläut", "x" * 15])
def test_a_weak_or_unsendable_token_is_refused(home: dict[str, str], token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        config.load(env={**home, "SANDBOX_TOKEN": token})


def test_a_token_is_never_shown(home: dict[str, str]) -> None:
    secret = "0123456789abcdef-secret"
    loaded = config.load(env={**home, "SANDBOX_TOKEN": secret})
    assert loaded.settings.token.get_secret_value() == secret
    assert secret not in repr(loaded)
    assert all(secret not in row.value for row in loaded.explain())


def test_every_setting_says_what_it_means(home: dict[str, str]) -> None:
    assert all(row.meaning for row in config.load(env=home).explain())


@pytest.mark.parametrize(
    ("size", "size_bytes", "age", "age_s"),
    [
        ("1GiB", 2**30, "7d", 604_800),
        ("1048576", 2**20, "3600", 3600),
        ("1.5GiB", 3 * 2**29, "1h30m", 5400),
    ],
)
def test_how_much_is_on_record_is_said_with_or_without_units(
    home: dict[str, str], size: str, size_bytes: int, age: str, age_s: int
) -> None:
    env = {**home, "SANDBOX_AUDIT_MAX_BYTES": size, "SANDBOX_AUDIT_MAX_AGE_S": age}
    settings = config.load(env=env).settings
    assert (settings.audit_max_bytes, settings.audit_max_age_s) == (size_bytes, age_s)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUDIT_MAX_BYTES", "10KiB"),
        ("AUDIT_MAX_BYTES", "lots"),
        ("AUDIT_MAX_AGE_S", "1m"),
        ("AUDIT_MAX_AGE_S", "-1"),
    ],
)
def test_a_record_that_would_hold_next_to_nothing_is_refused(
    home: dict[str, str], name: str, value: str
) -> None:
    with pytest.raises(ConfigError, match=f"SANDBOX_{name}"):
        config.load(env={**home, f"SANDBOX_{name}": value})
