"""The AppArmor profile that travels with the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sandbox.resources import policies

PROFILE = policies() / "apparmor" / "sandbox"


def rules() -> list[str]:
    """Each rule of the profile."""
    text = PROFILE.read_text()
    body = text[text.index("{") + 1 : text.rindex("}")]
    return [line.strip().rstrip(",") for line in body.splitlines() if line.strip().endswith(",")]


def test_its_name_is_the_one_that_the_setting_and_the_doctor_say() -> None:
    (head,) = (line for line in PROFILE.read_text().splitlines() if line.startswith("profile "))
    assert head.split()[1] == PROFILE.name == "sandbox"


@pytest.mark.parametrize("what", ["capability", "mount", "remount", "umount", "pivot_root"])
def test_what_no_sandbox_ever_does_is_denied(what: str) -> None:
    assert f"deny {what}" in rules()
    assert not [rule for rule in rules() if rule.split()[0] == what]


def test_the_kernels_files_are_not_written_to_and_nobody_is_traced() -> None:
    assert "deny /sys/** wklx" in rules()
    assert "deny @{PROC}/[^1-9]*/** wklx" in rules()
    assert [rule for rule in rules() if rule.startswith("ptrace")] == [
        "ptrace (read, readby) peer=@{profile_name}"
    ]


def test_only_the_sockets_of_the_seccomp_profile_are_allowed() -> None:
    families = {rule.split()[1] for rule in rules() if rule.startswith("network")}
    assert families == {"unix", "inet", "inet6"}


def test_the_parser_takes_it_where_there_is_one() -> None:
    parser = shutil.which("apparmor_parser")
    if parser and Path("/etc/apparmor.d/tunables/global").exists():
        words = [parser, "--skip-kernel-load", "--skip-cache", str(PROFILE)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert PROFILE.read_text().count("{") == PROFILE.read_text().count("}")
