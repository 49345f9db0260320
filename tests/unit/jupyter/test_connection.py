"""Connection files: what is taken, and what would open the kernel to others."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.errors import InvalidRequest
from sandbox.jupyter.connection import Connection

GOOD = {
    "transport": "tcp",
    "ip": "127.0.0.1",
    "key": "k",
    "signature_scheme": "hmac-sha256",
    **{f"{name}_port": 9000 for name in ("shell", "iopub", "stdin", "control", "hb")},
}


@pytest.mark.parametrize(
    ("change", "address"),
    [
        ({}, "tcp://127.0.0.1:9000"),
        ({"ip": "localhost"}, "tcp://127.0.0.1:9000"),
        ({"transport": "ipc", "ip": "/run/kernel"}, "ipc:///run/kernel-9000"),
    ],
)
def test_a_channel_has_the_address_that_clients_look_for(
    change: dict[str, Any], address: str
) -> None:
    assert Connection.of({**GOOD, **change}).addresses["shell"] == address


@pytest.mark.parametrize(
    "change",
    [
        {"ip": "0.0.0.0"},  # noqa: S104  # what must be refused
        {"ip": "192.0.2.1"},
        {"ip": "example.org"},
        {"ip": ""},
        {"transport": "inproc"},
        {"key": ""},
        {"key": None},
        {"signature_scheme": "none"},
        {"signature_scheme": "hmac-absent"},
        {"signature_scheme": "hmac-shake_128"},
        {"shell_port": 0},
        {"hb_port": True},
        {"iopub_port": 65536},
        {"stdin_port": None},
    ],
)
def test_what_others_could_reach_or_forge_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        Connection.of({**GOOD, **change})
