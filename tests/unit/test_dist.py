"""What `make dist` makes beside the wheel, held against the public schemas of both formats."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from sandbox import __version__
from sandbox.toolsets import TOOLS
from scripts import dist

SCHEMAS = Path(__file__).parents[1] / "support/schemas"
BUNDLE = "mcpb-manifest-v0.4.schema.json"
SERVER = "server-2025-12-11.schema.json"


def complaints(schema: str, value: Any) -> list[str]:
    """What a schema has against a value."""
    rules = json.loads((SCHEMAS / schema).read_text())
    Draft7Validator.check_schema(rules)
    checker = Draft7Validator(rules, format_checker=Draft7Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(value)]


def test_the_manifest_is_one_of_its_schema_and_names_every_tool() -> None:
    manifest = dist.manifest()
    assert complaints(BUNDLE, manifest) == []
    assert complaints(BUNDLE, {**manifest, "manifest_version": "0.9"})
    assert complaints(BUNDLE, {**manifest, "needs": "docker"})
    assert {tool["name"] for tool in manifest["tools"]} == TOOLS
    assert all(tool["description"].endswith((".", ":")) for tool in manifest["tools"])
    assert manifest["version"] == __version__
    used = json.dumps(manifest["server"])
    assert all(f"${{user_config.{name}}}" in used for name in manifest["user_config"])


def test_the_bundle_has_what_it_starts_and_is_the_same_bytes_again(tmp_path: Path) -> None:
    path = dist.pack(tmp_path)
    first = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        assert manifest["server"]["entry_point"] in archive.namelist()
        assert "LICENSE" in archive.namelist()
    assert dist.pack(tmp_path).read_bytes() == first


@pytest.mark.parametrize(
    ("release", "where"),
    [("", ""), ("https://example.org/releases/v1/", "https://example.org/releases/v1/")],
)
def test_the_server_json_is_one_of_its_schema_and_names_the_bundle_by_its_hash(
    tmp_path: Path, release: str, where: str
) -> None:
    bundle = dist.pack(tmp_path)
    told = dist.server_json(bundle, release)
    assert complaints(SERVER, told) == []
    assert complaints(SERVER, {**told, "name": "without-a-namespace"})
    assert complaints(SERVER, {**told, "description": "x" * 101})
    (package,) = told["packages"]
    assert package["identifier"] == where + bundle.name
    assert package["fileSha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert complaints(SERVER, {**told, "packages": [{**package, "fileSha256": "none"}]})
    assert told["version"] == package["version"] == __version__


def start(command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The bundle's launcher, as a desktop client starts it."""
    return subprocess.run(
        [sys.executable, dist.LAUNCHER],
        env={"PATH": os.defpath, "SANDBOX_BUNDLE_COMMAND": command, **env},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_launcher_becomes_the_named_program_with_the_settings_that_were_chosen(
    tmp_path: Path,
) -> None:
    program = tmp_path / "mine"
    program.write_text('#!/bin/sh\necho "$@"\nenv | grep ^SANDBOX_ | sort\n')
    program.chmod(0o755)
    done = start(
        str(program),
        SANDBOX_TOOLS="code,files",
        SANDBOX_DEFAULT_POLICY="",
        SANDBOX_POLICIES="${user_config.policies}",
    )
    assert done.stdout == "mcp\nSANDBOX_TOOLS=code,files\n"


@pytest.mark.parametrize("command", ["absent-program", "/absent/sandbox", "${user_config.command}"])
def test_the_launcher_says_what_is_missing(tmp_path: Path, command: str) -> None:
    done = start(command, HOME=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "was not found" in done.stderr
    assert "make setup" in done.stderr
