from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.cli.reach import explain_reach
from sandbox.config import Settings
from sandbox.errors import InvalidRequest
from sandbox.policy import load

pytestmark = pytest.mark.anyio

POLICIES = load()


@pytest.mark.parametrize(
    ("name", "destination", "begins", "rule"),
    [
        ("offline", "api.example.com:443", "denied", "network: none"),
        ("allowlist", "api.example.com:22", "denied", "default"),
        ("allowlist", "other.example.com:443", "denied", "default"),
        ("allowlist", "private.data.example.org:443", "denied", "deny[0]"),
        ("allowlist", "data.example.org:443", "denied", "default"),
        ("allowlist", "169.254.169.254:80", "denied", "built-in"),
        ("allowlist", "http://files.example.com/elsewhere", "denied", "default"),
        ("allowlist", "192.0.2.7:5432", "denied", "built-in"),
    ],
)
async def test_a_destination_is_decided_as_the_gateway_would(
    tmp_path: Path, name: str, destination: str, begins: str, rule: str
) -> None:
    answer = await explain_reach(Settings(state_dir=tmp_path), POLICIES.get(name), destination)
    assert answer.text.startswith(begins)
    assert answer.rule.startswith(rule)


@pytest.mark.parametrize("destination", ["", "a b:1", "a@b:1", "example.com:0", "http://", "[::1"])
async def test_what_is_no_destination_is_refused(tmp_path: Path, destination: str) -> None:
    with pytest.raises(InvalidRequest):
        await explain_reach(Settings(state_dir=tmp_path), POLICIES.get(), destination)
