from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from sandbox.container import labels as labelling
from sandbox.container.compiler import compile_spec
from sandbox.container.engine import EngineInfo
from sandbox.container.features import ALL
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.spec import MAX_ANNOTATION_BYTES, ContainerSpec, DiskRate
from sandbox.container.variables import PROCESSOR_VARIABLES, PROXY_VARIABLES
from sandbox.errors import NotPermitted, PolicyNotEnforced
from sandbox.policy import (
    Limits,
    Policy,
    RuntimePolicy,
    TmpfsPolicy,
    WorkspacePolicy,
    load,
    seccomp_profile,
)
from sandbox.policy.units import MIB

IDENTITY = SandboxIdentity(
    sandbox_id="sb-0123456789abcdef0123456789abcdef",
    owner="owner-1",
    uid=234567,
    created_at=1700000000.125,
)


ENGINE = EngineInfo(
    *("e", "1", "1", 2, ("runc", "runsc"), True, "x86_64", 8 * 1024**3, 64),
    enforces=ALL,
    reports=ALL,
)


def compiled(policy: Policy | None = None, **arguments: Any) -> ContainerSpec:
    """The spec of a policy; arguments that are the engine's say what it is like."""
    fields = {"runtimes", "cpus", "disk", "apparmor", "enforces"}
    engine = {name: arguments.pop(name) for name in fields & arguments.keys()}
    arguments = {"image": "i", "seccomp": "{}", **arguments}
    made = dataclasses.replace(ENGINE, **engine)
    return compile_spec(policy or load().get(), IDENTITY, engine=made, **arguments)


def test_the_isolation_of_the_default_policy_is_exactly_this() -> None:
    beside = {"name", "labels", "annotations", "environment"}
    facts = compiled(seccomp=seccomp_profile()).model_dump(exclude=beside)
    assert json.loads(facts.pop("seccomp"))["defaultAction"] == "SCMP_ACT_ERRNO"
    masked = facts.pop("masked_paths")
    assert {"/sys/kernel", "/sys/devices", "/proc/kcore", "/proc/keys", "/proc/cmdline"} < {*masked}
    assert facts == {
        "image": "i",
        "command": ("/usr/bin/python3", "-I", "/opt/sandbox"),
        "hostname": "sandbox",
        "working_dir": "/workspace",
        "runtime": "runc",
        "uid": 234567,
        "gid": 234567,
        "network_mode": "none",
        "dns": ("127.0.0.1",),
        "read_only_root": True,
        "init": True,
        "privileged": False,
        "cap_add": (),
        "cap_drop": ("ALL",),
        "no_new_privileges": True,
        "apparmor": "",
        "memory_bytes": 1024 * MIB,
        "memory_swap_bytes": 1024 * MIB,
        "nano_cpus": 1_000_000_000,
        "pids_limit": 256,
        "oom_score_adj": 500,
        "disk_reads": (),  # no disk is known
        "disk_writes": (),
        "sysctls": {
            "net.ipv4.tcp_rmem": "4096 65536 65536",
            "net.ipv4.tcp_wmem": "4096 16384 65536",
        },
        "shm_bytes": 64 * MIB,
        "ipc_mode": "private",
        "cgroupns_mode": "private",
        "ulimits": (
            {"name": "core", "soft": 0, "hard": 0},
            {"name": "fsize", "soft": 512 * MIB, "hard": 512 * MIB},
            {"name": "memlock", "soft": 65536, "hard": 65536},
            {"name": "msgqueue", "soft": 0, "hard": 0},
            {"name": "nofile", "soft": 1024, "hard": 1024},
        ),
        "tmpfs": (
            {
                **{"target": "/tmp", "size_bytes": 128 * MIB, "inodes": 16384, "mode": 0o700},
                **{"uid": 234567, "gid": 234567, "noexec": False},
            },
            {
                **{"target": "/workspace", "size_bytes": 512 * MIB, "inodes": 65536},
                **{"mode": 0o700, "uid": 234567, "gid": 234567, "noexec": False},
            },
        ),
        "mounts": (),
        "readonly_paths": ("/proc/sys", "/proc/sysrq-trigger"),
        "log_driver": "none",
    }


def test_every_limit_of_a_policy_reaches_the_spec() -> None:
    policy = Policy(
        name="p",
        limits=Limits(
            memory_bytes=640 * MIB, cpus=0.5, pids=33, open_files=257, file_size_bytes=2 * MIB
        ),
        workspace=WorkspacePolicy(size_bytes=5 * MIB, inodes=301),
        tmp=TmpfsPolicy(size_bytes=6 * MIB, inodes=302),
        shm_bytes=7 * MIB,
    )
    spec = compiled(policy)
    assert (spec.memory_bytes, spec.memory_swap_bytes) == (640 * MIB, 640 * MIB)
    assert (spec.nano_cpus, spec.pids_limit, spec.shm_bytes) == (500_000_000, 33, 7 * MIB)
    assert {u.name: u.hard for u in spec.ulimits if u.name in ("nofile", "fsize")} == {
        "nofile": 257,
        "fsize": 2 * MIB,
    }
    assert {t.target: (t.size_bytes, t.inodes) for t in spec.tmpfs} == {
        "/workspace": (5 * MIB, 301),
        "/tmp": (6 * MIB, 302),
    }


def test_gvisor_has_room_of_its_own_beyond_what_the_code_may_start() -> None:
    policy = Policy(name="p", limits=Limits(pids=100))
    of_gvisor = compiled(policy, runtime_override="runsc")
    of_code = {limit.name: (limit.soft, limit.hard) for limit in of_gvisor.ulimits}
    assert of_code["nproc"] == (100, 100)
    assert of_gvisor.pids_limit > 16 * 100  # up to 15.5 for each process, measured
    assert of_gvisor.memory_bytes == policy.limits.memory_bytes + 864 * MIB
    assert of_gvisor.memory_swap_bytes == of_gvisor.memory_bytes
    under_runc = compiled(policy, runtime_override="runc")
    assert (under_runc.pids_limit, under_runc.memory_bytes) == (100, policy.limits.memory_bytes)
    assert "nproc" not in {limit.name for limit in under_runc.ulimits}


def test_the_rates_of_a_policy_are_those_of_the_disk_that_is_known() -> None:
    policy = Policy(name="p", limits=Limits(disk_read_bytes=3 * MIB, disk_write_bytes=2 * MIB))
    spec = compiled(policy, disk="/dev/sda")
    assert spec.disk_reads == (DiskRate(device="/dev/sda", bytes_per_s=3 * MIB),)
    assert spec.disk_writes == (DiskRate(device="/dev/sda", bytes_per_s=2 * MIB),)


def test_no_variable_of_the_controller_reaches_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    processors = dict.fromkeys(PROCESSOR_VARIABLES, "1")
    assert compiled().environment == {**processors, **PROXY_VARIABLES}
    assert "hunter2" not in compiled().model_dump_json()


def test_labels_and_annotations_say_what_the_container_is_and_nothing_of_whose() -> None:
    policy = load().get()
    spec = compiled(policy)
    labels, annotations = spec.labels, spec.annotations
    assert all(name.startswith("io.sandbox.") for name in {**labels, **annotations})
    assert labels[labelling.LABEL_MANAGED] == "1"
    assert labels[labelling.LABEL_OWNER] == "owner-1"
    assert labels[labelling.LABEL_SANDBOX] == IDENTITY.sandbox_id
    assert float(labels[labelling.LABEL_CREATED_AT]) == IDENTITY.created_at
    assert int(labels[labelling.LABEL_UID]) == IDENTITY.uid
    assert len(labels) == 5
    assert annotations[labelling.ANNOTATION_POLICY] == "offline"
    assert annotations[labelling.ANNOTATION_POLICY_DIGEST] == policy.digest
    # Of the pool's numbers a container knows nothing: they may change while it lives.
    told = Policy.from_json(annotations[labelling.ANNOTATION_POLICY_JSON])
    assert told == policy.model_copy(update={"pool": told.pool})
    assert told.digest == policy.digest
    assert len(annotations) == 3


def test_the_container_has_a_part_of_the_sandboxs_id_as_its_name() -> None:
    assert compiled().name == "sandbox-0123456789ab"


def test_the_engines_processors_bound_the_policys() -> None:
    policy = load().get("datascience")
    assert compiled(policy, cpus=1).nano_cpus == 1_000_000_000
    assert compiled(policy, cpus=1).environment["OMP_NUM_THREADS"] == "1"
    assert compiled(policy, cpus=64).environment["PYTHON_CPU_COUNT"] == "2"
    assert compiled(policy, cpus=64).nano_cpus == 2_000_000_000


@pytest.mark.parametrize(
    ("permitted", "engine", "override", "taken"),
    [
        (("runc", "runsc"), ("runc", "runsc"), None, "runc"),
        (("runsc", "runc"), ("runc", "runsc"), None, "runsc"),
        (("runsc", "runc"), ("runc",), "", "runc"),
        (("runc", "runsc"), ("io.containerd.runc.v2", "runc", "runsc"), "runsc", "runsc"),
    ],
)
def test_the_first_permitted_runtime_that_the_engine_has_is_taken(
    permitted: Any, engine: tuple[str, ...], override: str | None, taken: str
) -> None:
    policy = Policy(name="p", runtime=RuntimePolicy(prefer=permitted))
    assert compiled(policy, runtimes=engine, runtime_override=override).runtime == taken


def test_a_runtime_that_the_policy_does_not_permit_is_never_taken() -> None:
    with pytest.raises(NotPermitted):
        compiled(
            Policy(name="p", runtime=RuntimePolicy(prefer=("runsc",))), runtime_override="runc"
        )


@pytest.mark.parametrize("override", [None, "runsc"])
def test_a_missing_runtime_ends_in_no_sandbox_not_a_weaker_one(override: str | None) -> None:
    policy = Policy(name="p", runtime=RuntimePolicy(prefer=("runsc",)))
    with pytest.raises(PolicyNotEnforced):
        compiled(policy, runtimes=("runc",), runtime_override=override)


def test_an_override_that_the_engine_lacks_is_not_replaced_by_another() -> None:
    with pytest.raises(PolicyNotEnforced):
        compiled(runtimes=("runc",), runtime_override="runsc")


# --- ids


def test_sandbox_ids_are_long_plain_and_never_twice() -> None:
    made = {new_sandbox_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"sb-[0-9a-f]{32}", each) for each in made)


def test_uids_are_far_above_a_systems_own_and_differ() -> None:
    made = {new_uid() for _ in range(1000)}
    assert len(made) > 990
    assert min(made) >= 200_000
    assert max(made) < 2_000_000_000


def test_a_profile_of_the_hosts_apparmor_is_part_of_the_spec() -> None:
    assert compiled(apparmor="sandbox").apparmor == "sandbox"
    assert compiled().apparmor == ""


# --- labels and annotations


@pytest.mark.parametrize("value", ["", "1", "s-abc", "a.b_c-d", "x" * 63, "1700000000.125"])
def test_what_every_engine_takes_is_a_label(value: str) -> None:
    fields = compiled().model_dump()
    assert ContainerSpec.model_validate({**fields, "labels": {"a": value}}).labels == {"a": value}


@pytest.mark.parametrize("value", ["x" * 64, "{}", "a b", "a/b", "-a", "a-", "ä", "a\n"])
def test_what_some_engine_refuses_is_no_label_and_an_annotation(value: str) -> None:
    fields = compiled().model_dump()
    with pytest.raises(ValidationError):
        ContainerSpec.model_validate({**fields, "labels": {"a": value}})
    with pytest.raises(ValidationError):
        ContainerSpec.model_validate({**fields, "labels": {value: "a"}})
    told = ContainerSpec.model_validate({**fields, "annotations": {"a": value}})
    assert told.annotations == {"a": value}


def test_annotations_have_a_bound_together() -> None:
    fields = compiled().model_dump()
    for many in ({"a": "ä" * MAX_ANNOTATION_BYTES}, {f"a{n}": "" for n in range(99)}):
        with pytest.raises(ValidationError):
            ContainerSpec.model_validate({**fields, "annotations": many})
