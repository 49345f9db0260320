from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from sandbox.container.labels import (
    ANNOTATION_POLICY_DIGEST,
    ANNOTATION_POLICY_JSON,
    LABEL_BROKER,
    LABEL_SANDBOX,
    LABEL_UID,
)
from sandbox.container.roots import Root
from sandbox.container.spec import ContainerSpec, DiskRate, Mount, Tmpfs
from sandbox.container.variables import CA_FILE, CA_VARIABLES
from sandbox.errors import NotPermitted
from sandbox.policy import load

from .brokers import ENGINE, rules, spec


def with_labels(made: ContainerSpec, **labels: str) -> ContainerSpec:
    return made.model_copy(update={"labels": made.labels | labels})


def with_annotations(made: ContainerSpec, **annotations: str) -> ContainerSpec:
    return made.model_copy(update={"annotations": made.annotations | annotations})


@pytest.mark.parametrize(
    ("policy", "runtime"),
    [(name, runtime) for name in load().names() for runtime in load().get(name).runtimes],
)
def test_what_an_honest_controller_compiles_is_what_the_broker_compiles(
    policy: str, runtime: str
) -> None:
    asked = spec(policy=policy, runtime=runtime)
    assert rules(runtime=runtime).compiled(asked, ENGINE) == asked


def test_a_policy_with_a_way_out_may_say_where_it_is() -> None:
    for variables in (
        {"PIP_INDEX_URL": "https://index.test/simple", "PIP_TRUSTED_HOST": "index.test"},
        dict.fromkeys(CA_VARIABLES, CA_FILE),
    ):
        asked = spec(policy="package-index", variables=variables)
        assert rules().compiled(asked, ENGINE) == asked
        with pytest.raises(NotPermitted, match="environment"):
            rules().compiled(spec(policy="offline", variables=variables), ENGINE)


@pytest.mark.parametrize(
    "variables",
    [
        {"LD_PRELOAD": "/workspace/evil.so"},
        {"HTTPS_PROXY": "http://192.0.2.1"},
        {"SSL_CERT_FILE": "/workspace/ca.pem"},
        {"PIP_INDEX_URL": "x" * 5000},
        {"PIP_INDEX_URL": "a\nb"},
        {"OMP_NUM_THREADS": "999"},
    ],
)
def test_no_other_variable_can_be_given(variables: dict[str, str]) -> None:
    with pytest.raises(NotPermitted, match="environment"):
        rules().compiled(spec(policy="package-index", variables=variables), ENGINE)


CHANGES: dict[str, Any] = {
    "name": "sandbox-other",
    "image": "debian:latest",
    "command": ("/bin/sh", "-c", "true"),
    "environment": {"LD_PRELOAD": "/workspace/x.so"},
    "hostname": "other",
    "working_dir": "/",
    "uid": 0,
    "gid": 0,
    "network_mode": "host",
    "dns": ("192.0.2.1",),
    "read_only_root": False,
    "init": False,
    "privileged": True,
    "cap_add": ("SYS_ADMIN",),
    "cap_drop": (),
    "no_new_privileges": False,
    "apparmor": "unconfined",
    "seccomp": '{"defaultAction":"SCMP_ACT_ALLOW"}',
    "memory_bytes": 1 << 40,
    "memory_swap_bytes": -1,
    "nano_cpus": 64_000_000_000,
    "pids_limit": -1,
    "oom_score_adj": -1000,
    "disk_reads": (DiskRate(device="/dev/null", bytes_per_s=1),),
    "disk_writes": (DiskRate(device="/dev/null", bytes_per_s=1),),
    "sysctls": {},
    "shm_bytes": 1 << 40,
    "ipc_mode": "host",
    "cgroupns_mode": "host",
    "ulimits": (),
    "tmpfs": (Tmpfs(target="/etc", size_bytes=1, inodes=1, mode=0o777, uid=0, gid=0),),
    "mounts": (Mount(source="/", target="/data/host"),),
    "masked_paths": (),
    "readonly_paths": (),
    "log_driver": "json-file",
    "labels": {},
    "annotations": {},
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_spec_that_differs_in_anything_is_refused(field: str) -> None:
    made = spec()
    asked = made.model_copy(update={field: CHANGES[field]})
    assert getattr(made, field) != CHANGES[field]
    with pytest.raises(NotPermitted):
        rules().compiled(asked, ENGINE)


@pytest.mark.parametrize("roots", [(), (Root("datasets", "/srv/others"),)])
def test_the_brokers_own_roots_are_those_that_count(roots: tuple[Root, ...]) -> None:
    with pytest.raises(NotPermitted, match=r"root|mounts"):
        rules(roots=roots).compiled(spec(policy="readonly-data"), ENGINE)


def test_every_field_of_a_spec_is_tried_above() -> None:
    # The runtime has tests of its own.
    assert ContainerSpec.model_fields.keys() - {"runtime"} <= CHANGES.keys()


def test_a_runtime_that_the_policy_does_not_permit_is_refused() -> None:
    asked = spec().model_copy(update={"runtime": "sysbox"})
    with pytest.raises(NotPermitted):
        rules().compiled(asked, ENGINE)


def test_a_runtime_that_the_broker_forces_is_the_only_one() -> None:
    assert rules(runtime="runsc").compiled(spec(runtime="runsc"), ENGINE)
    with pytest.raises(NotPermitted):
        rules(runtime="runsc").compiled(spec(runtime="runc"), ENGINE)


def test_the_runtime_is_the_first_that_the_policy_names_and_the_engine_has() -> None:
    first, second = load().get("offline").runtimes
    assert rules().compiled(spec(runtime=first), ENGINE).runtime == first
    with pytest.raises(NotPermitted, match="runtime") as caught:
        rules().compiled(spec(runtime=second), ENGINE)
    assert "runtime" in caught.value.remedy
    lacking = replace(ENGINE, runtimes=(second,))
    assert rules().compiled(spec(runtime=second), lacking).runtime == second


def test_a_runtime_that_the_engine_lacks_is_said_to_be_lacking() -> None:
    with pytest.raises(NotPermitted, match="none of the runtimes"):
        rules(runtime="runsc").compiled(spec(runtime="runsc"), replace(ENGINE, runtimes=("runc",)))


def test_a_policy_that_the_broker_does_not_have_is_refused_with_a_remedy() -> None:
    policy = load().get("offline").model_copy(update={"name": "loose"})
    asked = with_annotations(
        spec(),
        **{ANNOTATION_POLICY_JSON: policy.to_json(), ANNOTATION_POLICY_DIGEST: policy.digest},
    )
    with pytest.raises(NotPermitted, match="does not know the policy 'loose'") as caught:
        rules().compiled(asked, ENGINE)
    assert "same version, policy files" in caught.value.remedy


def test_another_policy_of_a_known_name_is_refused() -> None:
    offline = load().get("offline")
    loose = offline.model_copy(update={"limits": offline.limits.model_copy(update={"pids": 9999})})
    asked = with_annotations(
        spec(), **{ANNOTATION_POLICY_JSON: loose.to_json(), ANNOTATION_POLICY_DIGEST: loose.digest}
    )
    with pytest.raises(NotPermitted, match="another policy"):
        rules().compiled(asked, ENGINE)


def test_a_digest_that_is_not_the_policys_is_refused() -> None:
    datascience = load().get("datascience")
    asked = with_annotations(spec(), **{ANNOTATION_POLICY_DIGEST: datascience.digest})
    with pytest.raises(NotPermitted):
        rules().compiled(asked, ENGINE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sandbox_id": "sb-short"},
        {"sandbox_id": ""},
        {"owner": "me"},
        {"uid": 0},
        {"uid": 1000},
        {"uid": 2**31},
        {"created_at": time.time() - 121},
        {"created_at": time.time() + 3600},
    ],
)
def test_an_identity_that_no_new_sandbox_has_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(NotPermitted):
        rules().compiled(spec(**wrong), ENGINE)


@pytest.mark.parametrize("text", ["", "-1", "nan", "0x10", "1e9", " ", "٣"])
def test_labels_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(NotPermitted):
        rules().compiled(with_labels(spec(), **{LABEL_UID: text}), ENGINE)


def test_an_id_that_is_a_path_is_refused() -> None:
    with pytest.raises(NotPermitted, match="sandbox id"):
        rules().compiled(with_labels(spec(), **{LABEL_SANDBOX: f"sb-{'../' * 10}x/"}), ENGINE)


@pytest.mark.parametrize("label", [LABEL_BROKER, "com.docker.compose.project"])
def test_no_label_can_be_added(label: str) -> None:
    with pytest.raises(NotPermitted):
        rules().compiled(with_labels(spec(), **{label: "x"}), ENGINE)


@pytest.mark.parametrize("label", ["principal", "session", "expires-at", "workspace"])
def test_a_label_that_says_whose_a_container_is_is_refused(label: str) -> None:
    with pytest.raises(NotPermitted, match="labels"):
        rules().compiled(with_labels(spec(), **{f"io.sandbox.{label}": "x"}), ENGINE)


def test_only_the_images_of_policies_are_known() -> None:
    assert rules().images == {f"sandbox/{name}:test" for name in ("python", "datascience")}
