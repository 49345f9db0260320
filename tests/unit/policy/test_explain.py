from __future__ import annotations

import pytest

from sandbox.policy import (
    AllowRule,
    DenyRule,
    Limits,
    MountRule,
    NetworkPolicy,
    Policy,
    SecretRule,
    difference,
    explain,
    explain_path,
    load,
)

RICH = Policy(
    name="rich",
    mounts=(MountRule(root="data", path="iris", target="/data/iris"),),
    network=NetworkPolicy(
        allow=(
            AllowRule(domain="api.example.com", secret="key"),
            AllowRule(service="package-index", ask=True),
        ),
        deny=(DenyRule(cidr="192.0.2.0/24"),),
    ),
    secrets=(SecretRule(name="key"), SecretRule(name="file-key", delivery="file")),
)


def test_a_policy_without_a_network_reaches_nothing() -> None:
    reached = [s for s in explain(load().get()) if s.topic == "reaches"]
    assert [(s.text, s.rule) for s in reached] == [("nothing", "network")]


def test_every_rule_is_a_sentence_that_names_its_key() -> None:
    said = {sentence.rule: sentence.text for sentence in explain(RICH)}
    assert "api.example.com" in said["network.allow[0]"]
    assert "added by the gateway" in said["network.allow[0]"]
    assert "after asking" in said["network.allow[1]"]
    assert "192.0.2.0/24" in said["network.deny[0]"]
    assert "/data/iris" in said["mounts[0]"]
    secrets = [s.text for s in explain(RICH) if s.topic == "secret"]
    assert secrets == ["key: never inside", "file-key: inside, as /run/secrets/file-key"]


@pytest.mark.parametrize(
    ("path", "begins", "rule"),
    [
        ("/data/iris/a.csv", "read only: the folder iris", "mounts[0]"),
        ("/data/irises", "read only, as far as", "built-in: the root is read-only"),
        ("/data/iris/../../etc/passwd", "read only, as far as", "built-in: the root is read-only"),
        ("notes.txt", "read and write, up to 512MiB", "workspace"),
        ("../tmp/x", "read and write, up to 128MiB", "tmp"),
        ("//tmp/x", "read and write, up to 128MiB", "tmp"),
        ("/run/secrets/file-key", "read only: the secrets", "secrets"),
        ("/", "read only, as far as", "built-in: the root is read-only"),
    ],
)
def test_a_path_is_decided_by_one_rule(path: str, begins: str, rule: str) -> None:
    answer = explain_path(RICH, path)
    assert answer.text.startswith(begins)
    assert answer.rule == rule


def test_a_policy_does_not_differ_from_itself() -> None:
    assert difference(RICH, RICH) == []


def test_a_difference_says_which_policy_is_tighter() -> None:
    tighter = RICH.model_copy(update={"limits": Limits(pids=64), "network": NetworkPolicy()})
    changes = {change.key: change for change in difference(RICH, tighter)}
    assert changes["limits.pids"].direction == "tighter"
    assert (changes["limits.pids"].before, changes["limits.pids"].after) == ("256", "64")
    assert changes["network.allow"].direction == "tighter"
    back = {change.key: change.direction for change in difference(tighter, RICH)}
    assert back["limits.pids"] == back["network.allow"] == "wider"
