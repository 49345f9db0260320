"""Commands that need no engine: help, settings, policies, the token, and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.cli import app, exits
from sandbox.errors import (
    ConfigError,
    EngineUnavailable,
    FileError,
    InvalidRequest,
    NotFound,
    NotPermitted,
    PolicyError,
    QuotaExceeded,
    SandboxError,
)

from ...support import commandline

COMMANDS = [
    "",
    "serve",
    "mcp",
    "run",
    "shell",
    "exec",
    "cp",
    "python",
    "doctor",
    "verify",
    "version",
    "sessions list",
    "sessions show",
    "sessions export",
    "sessions close",
    "notebook run",
    "policy list",
    "policy show",
    "policy check",
    "image build",
    "image list",
    "audit tail",
    "audit verify",
    "audit export",
    "config show",
    "token show",
    "token rotate",
    "token create",
    "token list",
    "token revoke",
    "token allow",
]


def sandbox(state: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, away from this machine's settings."""
    known = {key: value for key, value in os.environ.items() if not key.startswith("SANDBOX_")}
    own = {"HOME": str(state), "SANDBOX_STATE_DIR": str(state / "state")}
    return commandline.run(*words, env={**known, **own, **env})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    done = sandbox(tmp_path, *command.split(), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout
    assert not (tmp_path / "state").exists()


def test_help_says_what_the_exit_codes_mean(tmp_path: Path) -> None:
    assert "124 timed out" in " ".join(sandbox(tmp_path, "--help").stdout.split())


def test_the_help_loads_neither_the_engine_nor_mcp(tmp_path: Path) -> None:
    code = (
        "import sys, sandbox.cli.app;"
        "print([m for m in ('docker', 'mcp', 'pydantic', 'jupyter_client') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["run"],
        ["run", "-c", "1", "--kernel", "other", "argument"],
        ["run", "absent.py"],
        ["run", "-c", "1", "--with", "absent"],
        ["run", "-c", "1", "-r", "absent.txt"],
        ["shell"],
        ["shell", "--url", "nonsense"],
        ["exec"],
        ["exec", "s-1"],
        ["exec", "--url", "http://127.0.0.1:9", "s-1", "--"],
        ["exec", "--url", "ftp://127.0.0.1:9", "--token", "x" * 20, "s-1", "ls"],
        ["cp", "a"],
        ["cp", "a", "b"],
        ["cp", "s-1:a", "s-2:b"],
        ["cp", "s-1:a", "s-2:b", "."],
        ["run", "-c", "1", "--timeout", "-1"],
        ["serve", "--port", "99999999"],
        ["serve", "--host", "192.0.2.1"],
        ["sessions", "close"],
        ["policy", "show", "../../x"],
        ["config", "show", "--config", "absent.yaml"],
    ],
)
def test_wrong_usage_exits_with_2_and_a_reason_but_no_traceback(
    tmp_path: Path, words: list[str]
) -> None:
    done = sandbox(tmp_path, *words)
    assert done.returncode == exits.USAGE
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_printed_alone(tmp_path: Path) -> None:
    from sandbox import __version__

    assert sandbox(tmp_path, "version").stdout == f"{__version__}\n"


def test_config_show_names_the_origin_of_each_value_and_hides_the_token(tmp_path: Path) -> None:
    secret = "0123456789abcdef-secret"
    done = sandbox(tmp_path, "config", "show", "--json", SANDBOX_PORT="9", SANDBOX_TOKEN=secret)
    rows = {row["key"]: row for row in json.loads(done.stdout)}
    assert (rows["port"]["value"], rows["port"]["origin"]) == ("9", "SANDBOX_PORT")
    assert rows["host"]["origin"] == "default"
    assert secret not in done.stdout


def test_token_show_prints_the_same_token_each_time_and_nothing_else(tmp_path: Path) -> None:
    first, second = sandbox(tmp_path, "token", "show"), sandbox(tmp_path, "token", "show")
    assert first.stdout == second.stdout
    assert len(first.stdout.split()) == 1
    assert (tmp_path / "state/token").stat().st_mode & 0o777 == 0o600


def test_policies_are_listed_and_shown(tmp_path: Path) -> None:
    listed = sandbox(tmp_path, "policy", "list").stdout
    assert "offline" in listed
    assert "datascience" in listed
    shown = json.loads(sandbox(tmp_path, "policy", "show", "offline", "--json").stdout)
    assert shown["network"] == "none"


def test_policy_check_tells_good_from_bad_and_exits_with_1(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("version: 1\ndescription: x\nextends: offline\n")
    bad.write_text("version: 1\ndescription: x\nextends: offline\nmemroy: 1GiB\n")
    assert sandbox(tmp_path, "policy", "check", str(good)).returncode == 0
    done = sandbox(tmp_path, "policy", "check", str(good), str(bad))
    assert done.returncode == exits.FAILED
    assert "bad.yaml" in done.stderr
    assert "memroy" in done.stderr


def test_an_operators_policies_stand_beside_the_built_in_ones(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "short.yaml").write_text("version: 1\ndescription: x\nextends: offline\n")
    listed = sandbox(tmp_path, "policy", "list", "--policies", str(own)).stdout
    assert "short" in listed
    assert "offline" in listed


def test_a_default_policy_that_does_not_exist_is_said_at_once(tmp_path: Path) -> None:
    done = sandbox(tmp_path, "policy", "list", SANDBOX_DEFAULT_POLICY="absent")
    assert done.returncode != 0
    assert "default_policy" in done.stderr


def test_sessions_without_a_server_say_how_to_start_one(tmp_path: Path) -> None:
    done = sandbox(tmp_path, "sessions", "list")
    assert done.returncode == exits.FAILED
    assert "sandbox serve" in done.stderr


def test_a_server_that_was_killed_is_named(tmp_path: Path) -> None:
    sandbox(tmp_path, "token", "show")
    (tmp_path / "state/server.json").write_text('{"url": "http://127.0.0.1:9", "pid": 1}')
    done = sandbox(tmp_path, "sessions", "list")
    assert done.returncode == exits.INFRASTRUCTURE
    assert "127.0.0.1:9" in done.stderr


def test_an_engine_that_is_not_there_is_infrastructure_trouble(tmp_path: Path) -> None:
    absent = f"unix://{tmp_path}/absent.sock"
    assert sandbox(tmp_path, "run", "-c", "1", "--engine", absent).returncode == 3
    done = sandbox(tmp_path, "doctor", "--json", "--engine", absent)
    assert done.returncode == exits.FAILED
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert found["engine"]["verdict"] == "fail"
    assert found["engine"]["remedy"]


def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = sandbox(tmp_path, "serve", "--port", str(port))
    assert done.returncode == exits.USAGE
    assert str(port) in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidRequest("x"), exits.USAGE),
        (PolicyError("x"), exits.USAGE),
        (ConfigError("x"), exits.USAGE),
        (NotPermitted("x"), exits.REFUSED),
        (QuotaExceeded("x"), exits.REFUSED),
        (EngineUnavailable("x"), exits.INFRASTRUCTURE),
        (NotFound("x"), exits.FAILED),
        (FileError("io_error", "x"), exits.FAILED),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: SandboxError, code: int) -> None:
    assert exits.exit_code(error) == code


def make_token(state: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return sandbox(state, "token", "create", "--principal", "alice", *words)


def test_a_token_is_shown_once_listed_without_its_secret_and_revoked(tmp_path: Path) -> None:
    offered = ("--tools", "code,files")
    made = make_token(
        tmp_path, "--scopes", "execute,files:read", "--application", "an agent", *offered
    )
    token = made.stdout.strip()
    token_id, secret = token.split("_", 2)[1:]
    assert made.returncode == exits.OK
    assert token in made.stderr, "the configuration to paste"
    listed = sandbox(tmp_path, "token", "list", COLUMNS="200")
    assert secret not in listed.stdout
    for shown in (token_id, "alice", "an agent", "execute, files:read", "offline", "code, files"):
        assert shown in listed.stdout
    (told,) = json.loads(sandbox(tmp_path, "token", "list", "--json").stdout)
    assert told["expires_at"] - told["created_at"] == 90 * 24 * 3600
    revoked = sandbox(tmp_path, "token", "revoke", token_id)
    assert (revoked.returncode, token_id in revoked.stdout) == (exits.OK, True)
    assert json.loads(sandbox(tmp_path, "token", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--scopes", "file:read"], "Did you mean files:read?"),
        (["--scopes", ""], "may do nothing"),
        (["--scopes", "execute", "--expires", "30"], "Write 30d"),
        (["--scopes", "execute", "--expires", "0s"], "Write 30d"),
        (["--scopes", "execute", "--policies", "../x"], "cannot be the name"),
        (["--scopes", "execute", "--principal", "a b"], "cannot be a principal"),
        (["--scopes", "execute", "--tools", "coed"], "did you mean code"),
        (["--scopes", "execute", "--tools", "files"], "They need files:read or files:write"),
    ],
)
def test_a_wrong_token_is_refused_with_a_remedy_and_nothing_is_made(
    tmp_path: Path, words: list[str], told: str
) -> None:
    done = make_token(tmp_path, *words)
    assert done.returncode == exits.USAGE
    assert told in done.stderr
    assert json.loads(sandbox(tmp_path, "token", "list", "--json").stdout) == []


def test_a_rotated_local_token_is_another(tmp_path: Path) -> None:
    first = sandbox(tmp_path, "token", "show").stdout
    second = sandbox(tmp_path, "token", "rotate").stdout
    assert first != second == sandbox(tmp_path, "token", "show").stdout
    assert sandbox(tmp_path, "token", "revoke", "local").returncode == exits.USAGE


def test_words_of_others_in_an_error_reach_the_terminal_as_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise EngineUnavailable("It said:\n\x1b]0;title\x07\x1b[6nno\u202e", remedy="\x9b6nLook.")

    monkeypatch.setattr(app, "app", fail)
    with pytest.raises(SystemExit) as caught:
        app.run()
    assert caught.value.code == exits.INFRASTRUCTURE
    assert capsys.readouterr().err == "sandbox: It said:\nno\\u202e\n         Look.\n"
