from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sandbox import spec as specs
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
from sandbox.spec import (
    PROXY_VARIABLES,
    ContainerSpec,
    SessionIdentity,
    compile_spec,
    mismatches,
)

IDENTITY = SessionIdentity(
    session_id="s-abcdefghijklmnopqrstuvwxyz",
    principal="ada",
    owner="owner-1",
    uid=234567,
    created_at=1700000000.125,
    expires_at=1700028800.125,
)


def compiled(policy: Policy | None = None, **arguments: Any) -> ContainerSpec:
    arguments = {"image": "i", "runtimes": ("runc", "runsc"), "seccomp": "{}", **arguments}
    return compile_spec(policy or load().get(), IDENTITY, **arguments)


def test_the_isolation_of_the_default_policy_is_exactly_this() -> None:
    facts = compiled(seccomp=seccomp_profile()).facts()
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
        "security_opt": ("no-new-privileges:true",),
        "memory_bytes": 1024 * MIB,
        "memory_swap_bytes": 1024 * MIB,
        "nano_cpus": 1_000_000_000,
        "pids_limit": 256,
        "oom_score_adj": 500,
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


def test_no_variable_of_the_controller_reaches_the_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert compiled().environment == {"OMP_NUM_THREADS": "1", **PROXY_VARIABLES}
    assert "hunter2" not in compiled().model_dump_json()


def test_the_labels_hold_all_that_a_later_controller_needs() -> None:
    policy = load().get()
    labels = compiled(policy).labels
    assert all(name.startswith("io.sandbox.") for name in labels)
    assert labels[specs.LABEL_MANAGED] == "1"
    assert labels[specs.LABEL_OWNER] == "owner-1"
    assert labels[specs.LABEL_SESSION] == IDENTITY.session_id
    assert labels[specs.LABEL_PRINCIPAL] == "ada"
    assert labels[specs.LABEL_POLICY] == "offline"
    assert labels[specs.LABEL_POLICY_DIGEST] == policy.digest
    assert Policy.from_json(labels[specs.LABEL_POLICY_JSON]) == policy
    assert float(labels[specs.LABEL_CREATED_AT]) == IDENTITY.created_at
    assert float(labels[specs.LABEL_EXPIRES_AT]) == IDENTITY.expires_at
    assert int(labels[specs.LABEL_UID]) == IDENTITY.uid


def test_the_container_has_a_part_of_the_sessions_id_as_its_name() -> None:
    assert compiled().name == "sandbox-abcdefghijkl"


def test_the_engines_processors_bound_the_policys() -> None:
    policy = load().get("datascience")
    assert compiled(policy, cpus_available=1).nano_cpus == 1_000_000_000
    assert compiled(policy, cpus_available=1).environment["OMP_NUM_THREADS"] == "1"
    assert compiled(policy, cpus_available=64).nano_cpus == 2_000_000_000


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


# --- the comparison with what the engine applied


def test_the_facts_of_the_spec_itself_do_not_differ() -> None:
    spec = compiled(seccomp=seccomp_profile())
    assert mismatches(spec, spec.facts()) == []
    assert mismatches(spec, json.loads(json.dumps(spec.facts()))) == []


def test_the_order_of_a_set_and_the_spacing_of_json_make_no_difference() -> None:
    spec = compiled(seccomp='{"a": [1, 2], "b": 3}')
    facts = spec.facts()
    for name in ("ulimits", "tmpfs", "masked_paths", "readonly_paths"):
        facts[name] = facts[name][::-1]
    facts["seccomp"] = '{"b":3,"a":[1,2]}'
    assert mismatches(spec, facts) == []


WEAKER: dict[str, Any] = {
    "image": "other",
    "command": ("/bin/sh",),
    "hostname": "host",
    "working_dir": "/",
    "runtime": "other",
    "uid": 0,
    "gid": 0,
    "network_mode": "bridge",
    "dns": (),
    "read_only_root": False,
    "init": False,
    "privileged": True,
    "cap_add": ("SYS_ADMIN",),
    "cap_drop": (),
    "security_opt": (),
    "seccomp": "",
    "memory_bytes": 0,
    "memory_swap_bytes": -1,
    "nano_cpus": 0,
    "pids_limit": 0,
    "oom_score_adj": 0,
    "shm_bytes": 1 << 40,
    "ipc_mode": "host",
    "cgroupns_mode": "host",
    "ulimits": (),
    "tmpfs": (),
    "masked_paths": (),
    "mounts": ({"source": "/", "target": "/data/x", "read_only": False},),
    "readonly_paths": (),
    "log_driver": "json-file",
}


@pytest.mark.parametrize("name", sorted(ContainerSpec.model_fields))
def test_each_property_that_an_engine_did_not_apply_is_told(name: str) -> None:
    spec = compiled(seccomp=seccomp_profile())
    if name in ("name", "labels", "environment"):
        assert name not in spec.facts()
        return
    told = mismatches(spec, {**spec.facts(), name: WEAKER[name]})
    assert len(told) == 1
    assert told[0].startswith(f"{name}: ")
    absent = {key: value for key, value in spec.facts().items() if key != name}
    assert len(mismatches(spec, absent)) == 1
    assert len(mismatches(spec, {**spec.facts(), name: None})) == 1


def test_one_path_that_is_not_masked_is_named() -> None:
    spec = compiled()
    bare = tuple(path for path in spec.masked_paths if path != "/proc/kcore")
    (told,) = mismatches(spec, {**spec.facts(), "masked_paths": bare})
    assert "/proc/kcore" in told


def test_one_rule_less_in_the_seccomp_profile_is_told() -> None:
    spec = compiled(seccomp=seccomp_profile())
    profile = json.loads(spec.seccomp)
    profile["syscalls"].append({"names": ["bpf"], "action": "SCMP_ACT_ALLOW"})
    (told,) = mismatches(spec, {**spec.facts(), "seccomp": json.dumps(profile)})
    assert len(told) < 600


def test_a_fact_that_no_spec_has_is_told_unless_it_is_empty() -> None:
    spec = compiled()
    assert mismatches(spec, {**spec.facts(), "unexpected": {}}) == []
    (told,) = mismatches(spec, {**spec.facts(), "unexpected": {"Binds": ["/:/host"]}})
    assert "Binds" in told


def test_no_facts_at_all_match_nothing() -> None:
    assert len(mismatches(compiled(), None)) == len(compiled().facts())


# --- ids


def test_session_ids_are_long_plain_and_never_twice() -> None:
    made = {specs.new_session_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(r"s-[a-z2-7]{26}", each) for each in made)


def test_uids_are_far_above_a_systems_own_and_differ() -> None:
    made = {specs.new_uid() for _ in range(1000)}
    assert len(made) > 990
    assert min(made) >= 200_000
    assert max(made) < 2_000_000_000
