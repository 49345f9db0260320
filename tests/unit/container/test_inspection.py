"""The engine's word, feature by feature."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.container.features import ALL, Feature, values_of, wishes
from sandbox.container.inspection import inspected, mismatches
from sandbox.container.spec import ContainerSpec, DiskRate, Mount, Tmpfs
from sandbox.policy import seccomp_profile

from .test_spec import compiled


@pytest.fixture(scope="module")
def spec() -> ContainerSpec:
    """A spec that wishes everything that there is to wish."""
    made = compiled(seccomp=seccomp_profile(), apparmor="sandbox", disk="/dev/sda")
    secrets = Tmpfs(
        target="/run/secrets", size_bytes=1, inodes=1, mode=0o700, uid=1, gid=1, noexec=True
    )
    gvisors = compiled(runtime_override="runsc").ulimits
    mounts = (Mount(source="/srv/a", target="/data/a"),)
    return made.model_copy(
        update={"tmpfs": (*made.tmpfs, secrets), "ulimits": gvisors, "mounts": mounts}
    )


WEAKER: dict[Feature, Any] = {
    Feature.IMAGE: "other",
    Feature.COMMAND: ["/bin/sh"],
    Feature.WORKING_DIR: "/",
    Feature.HOSTNAME: "host",
    Feature.ENVIRONMENT: ["TOKEN"],
    Feature.RUNTIME: "other",
    Feature.USER: {"uid": 0, "gid": 0},
    Feature.NETWORK: "bridge",
    Feature.RESOLVER: [],
    Feature.READ_ONLY_ROOT: False,
    Feature.INIT: False,
    Feature.CAPABILITIES: {"privileged": False, "add": ["SYS_ADMIN"], "drop": ["ALL"]},
    Feature.NO_NEW_PRIVILEGES: False,
    Feature.SECCOMP: "",
    Feature.APPARMOR: "unconfined",
    Feature.MEMORY: 0,
    Feature.SWAP: -1,
    Feature.CPU: 0,
    Feature.PIDS: 0,
    Feature.OOM_SCORE: 0,
    Feature.DISK_RATES: {},
    Feature.SYSCTLS: {},
    Feature.SHM_SIZE: 1 << 40,
    Feature.PRIVATE_IPC: "host",
    Feature.PRIVATE_CGROUPS: "host",
    **{name: {"soft": 1 << 40, "hard": 1 << 40} for name in Feature if name.startswith("ulimit.")},
    Feature.TMPFS_SIZE: {},
    Feature.TMPFS_INODES: {"/tmp": 1},
    Feature.TMPFS_OWNER: {},
    Feature.TMPFS_NOEXEC: [],
    Feature.MOUNTS: [["/data/a", "/"]],
    Feature.MOUNTS_READ_ONLY: [],
    Feature.MOUNTS_ALONE: [],
    Feature.MASKED_PATHS: [],
    Feature.READ_ONLY_PATHS: [],
    Feature.NO_LOG: "json-file",
    Feature.NOTHING_ELSE: {"Devices": ["/dev/kvm"]},
}


def test_what_a_spec_says_does_not_differ_from_itself(spec: ContainerSpec) -> None:
    facts = values_of(spec)
    assert wishes(spec).keys() == ALL
    assert mismatches(spec, {**facts}, ALL) == []
    assert mismatches(spec, json.loads(json.dumps(facts)), ALL) == []


@pytest.mark.parametrize("name", Feature)
def test_a_lie_is_told_whether_or_not_the_engine_says_that_it_reports_it(
    spec: ContainerSpec, name: Feature
) -> None:
    for reports in (ALL, ALL - {name}):
        (told,) = mismatches(spec, {**values_of(spec), name: WEAKER[name]}, reports)
        assert told.startswith(f"{name}: is ")


@pytest.mark.parametrize("name", Feature)
def test_what_is_not_told_never_counts_as_the_same(spec: ContainerSpec, name: Feature) -> None:
    """An engine that can report something must; of one that cannot, there is no check."""
    absent = {key: value for key, value in values_of(spec).items() if key != name}
    for facts in (absent, {**absent, name: None}):
        (told,) = mismatches(spec, facts, ALL)
        assert told.startswith(f"{name}: is not told")
        assert name not in {each.name for each in inspected(spec, facts, ALL - {name})}


@pytest.mark.parametrize("name", Feature)
def test_what_nobody_asked_for_is_told(name: Feature) -> None:
    plain = compiled()
    if name in wishes(plain):
        return
    (told,) = mismatches(plain, {**values_of(plain), name: WEAKER[name] or ["x"]}, ALL)
    assert told.startswith(f"{name}: ")


def test_every_property_of_a_spec_belongs_to_a_feature(spec: ContainerSpec) -> None:
    other: dict[str, Any] = {
        "seccomp": "{}",
        "environment": {},
        "ulimits": (),
        "tmpfs": (),
        "mounts": (),
        "disk_reads": (DiskRate(device="/dev/sdb", bytes_per_s=1),),
        "disk_writes": (),
        "sysctls": {},
    }
    for field, value in spec:
        if field in ("name", "labels", "annotations"):
            continue
        match value:
            case bool():
                changed: Any = not value
            case int():
                changed = value + 1
            case str() if field not in other:
                changed = f"{value} "
            case _:
                changed = other.get(field, ("other",))
        changed_spec = spec.model_copy(update={field: changed})
        assert mismatches(spec, {**values_of(changed_spec)}, ALL), field


def test_the_order_of_a_set_and_the_spacing_of_json_make_no_difference() -> None:
    spec = compiled(seccomp='{"a": [1, 2], "b": 3}')
    facts = {**values_of(spec), "seccomp": '{"b":3,"a":[1,2]}'}
    facts["masked-paths"] = facts["masked-paths"][::-1]
    assert mismatches(spec, facts, ALL) == []


def test_one_path_that_is_not_masked_is_named() -> None:
    spec = compiled()
    bare = [path for path in spec.masked_paths if path != "/proc/kcore"]
    (told,) = mismatches(spec, {**values_of(spec), "masked-paths": bare}, ALL)
    assert "/proc/kcore" in told


def test_one_rule_less_in_the_seccomp_profile_is_told_in_few_words() -> None:
    spec = compiled(seccomp=seccomp_profile())
    profile = json.loads(spec.seccomp)
    profile["syscalls"].append({"names": ["bpf"], "action": "SCMP_ACT_ALLOW"})
    (told,) = mismatches(spec, {**values_of(spec), "seccomp": json.dumps(profile)}, ALL)
    assert len(told) < 700


def test_a_fact_of_no_feature_is_told_unless_it_is_empty() -> None:
    spec = compiled()
    assert mismatches(spec, {**values_of(spec), "devices": {}}, ALL) == []
    (told,) = mismatches(spec, {**values_of(spec), "devices": ["/dev/kvm"]}, ALL)
    assert "/dev/kvm" in told


def test_no_facts_at_all_match_nothing() -> None:
    assert len(mismatches(compiled(), None, ALL)) == len(wishes(compiled()))


@pytest.mark.parametrize(
    ("memory", "pids", "wrong"),
    [(0, 0, set()), (1, 0, {"host.memory"}), (None, None, {"host.memory", "host.pids"})],
    ids=["the spec's", "more", "none"],
)
def test_the_host_must_hold_a_container_to_its_limits(
    spec: ContainerSpec, memory: int | None, pids: int | None, wrong: set[str]
) -> None:
    """Whatever the engine says: under gVisor nothing inside could tell."""
    held = {
        "memory": None if memory is None else spec.memory_bytes + memory,
        "pids": None if pids is None else spec.pids_limit + pids,
    }
    told = mismatches(spec, values_of(spec), ALL, held)
    assert {sentence.partition(":")[0] for sentence in told} == wrong
