from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from sandbox.errors import PolicyError
from sandbox.policy import Limits, Policy, RuntimePolicy, WorkspacePolicy, describe
from sandbox.policy.models import WORKING_MEMORY_BYTES
from sandbox.policy.units import GIB, MIB


def policy(**changes: Any) -> Policy:
    return Policy(name="example", **changes)


def test_a_policy_cannot_be_changed() -> None:
    made = policy()
    with pytest.raises(ValidationError):
        made.network = "bridge"  # type: ignore[assignment]
    with pytest.raises(ValidationError):
        made.limits.memory_bytes = 2  # type: ignore[misc]


def test_a_policy_survives_its_json() -> None:
    made = policy(tools=("execute_code", "read_file"), limits=Limits(cpus=0.5, kernels=2))
    assert Policy.from_json(made.to_json()) == made
    assert Policy.from_json(made.to_json()).digest == made.digest


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", '{"name":"a","mount":[]}', '{"name":"../a"}'),
        *('{"name":"a","limits":{"memory":"1GiB"}}', '{"name":"a","limits":{"memory_bytes":1}}'),
        *('{"name":"a","network":"bridge"}', '{"name":"a","limits":{"memory_bytes":1e99}}'),
    ],
)
def test_a_stored_policy_is_checked_when_it_is_read(text: str) -> None:
    with pytest.raises(PolicyError):
        Policy.from_json(text)


@pytest.mark.parametrize(
    "changed",
    [
        policy(limits=Limits(pids=255)),
        policy(limits=Limits(cpus=1.1)),
        policy(workspace=WorkspacePolicy(size_bytes=512 * MIB - 4096)),
        policy(tools=("execute_code",)),
        policy(image="datascience"),
        policy(runtime=RuntimePolicy(prefer=("runsc", "runc"))),
        policy(shm_bytes=MIB),
        policy(description="other"),
        Policy(name="other"),
    ],
)
def test_the_digest_changes_with_whatever_a_policy_says(changed: Policy) -> None:
    assert changed.digest != policy().digest


def test_a_changed_copy_has_a_digest_of_its_own() -> None:
    made = policy()
    assert made.digest == policy().digest
    changed = made.model_copy(update={"shm_bytes": MIB})
    assert changed.digest == policy(shm_bytes=MIB).digest != made.digest


def test_equal_policies_have_equal_digests() -> None:
    assert policy(limits=Limits(cpus=2)).digest == policy(limits=Limits(cpus=2.0)).digest


def test_json_is_canonical() -> None:
    text = policy().to_json()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "../x", "a" * 65, "a\n", "ä"])
def test_a_name_that_is_no_plain_word_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        Policy(name=name)


def test_a_list_of_tools_allows_those_alone() -> None:
    some = policy(tools=("execute_code",))
    assert some.allows("execute_code")
    assert not some.allows("run_command")
    assert policy().allows("run_command")


def test_processes_have_memory_left_when_every_filesystem_is_full() -> None:
    made = policy()
    filled = made.workspace.size_bytes + made.tmp.size_bytes + made.shm_bytes
    least = filled + WORKING_MEMORY_BYTES
    assert policy(limits=Limits(memory_bytes=least)).limits.memory_bytes == least
    with pytest.raises(ValidationError, match="does not hold"):
        policy(limits=Limits(memory_bytes=least - 1))


def test_a_description_has_the_words_and_units_of_the_file() -> None:
    said = describe(policy(limits=Limits(memory_bytes=2 * GIB, lifetime_s=5400)))
    assert said["name"] == "example"
    assert said["digest"] == policy(limits=Limits(memory_bytes=2 * GIB, lifetime_s=5400)).digest
    assert said["limits"]["memory"] == "2GiB"
    assert said["limits"]["lifetime"] == "1h30m"
    assert said["limits"]["sessions"] == 4
    assert said["workspace"] == {"size": "512MiB", "inodes": 65536, "persistent": False}
    assert said["shm"] == "64MiB"
    assert said["runtime"]["prefer"] == ["runc", "runsc"]
    json.dumps(said)


def test_when_sessions_are_frozen_is_told_and_kept_and_the_default_is_as_before_there_was_it() -> (
    None
):
    assert "freeze" not in policy().to_json()
    assert Policy.from_json(policy().to_json()).limits.freeze_s == 300
    other = policy(limits=Limits(freeze_s=0))
    assert Policy.from_json(other.to_json()) == other
    assert other.digest != policy().digest
