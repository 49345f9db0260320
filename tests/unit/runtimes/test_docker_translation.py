from __future__ import annotations

from typing import Any

import pytest

from sandbox.container.features import ALL, REPORTABLE, Feature, values_of
from sandbox.container.inspection import mismatches
from sandbox.container.spec import ContainerSpec, DiskRate, Mount, Tmpfs, Ulimit
from sandbox.runtimes.docker.translation import (
    create_request,
    enforced,
    facts_of,
    info_of,
    listed,
    state_of,
    stats_of,
)

SPEC = ContainerSpec(
    name="sandbox-x",
    image="sandbox/python:1",
    command=("/usr/bin/python3", "-I", "/opt/sandbox"),
    labels={"a": "b"},
    annotations={"a": "free text, {}", "policy": "x" * 100},
    environment={"A": "b=c"},
    hostname="sandbox",
    working_dir="/workspace",
    runtime="runc",
    uid=200_001,
    gid=200_002,
    network_mode="none",
    dns=("127.0.0.1",),
    read_only_root=True,
    init=True,
    privileged=False,
    cap_add=(),
    cap_drop=("ALL",),
    no_new_privileges=True,
    apparmor="",
    seccomp='{"defaultAction":"SCMP_ACT_ERRNO"}',
    memory_bytes=1 << 30,
    memory_swap_bytes=1 << 30,
    nano_cpus=2_000_000_000,
    pids_limit=100,
    oom_score_adj=500,
    disk_reads=(DiskRate(device="/dev/sda", bytes_per_s=1000),),
    disk_writes=(DiskRate(device="/dev/sda", bytes_per_s=500),),
    sysctls={"net.ipv4.tcp_rmem": "1 2 3"},
    shm_bytes=1 << 26,
    ipc_mode="private",
    cgroupns_mode="private",
    ulimits=(Ulimit(name="nofile", soft=10, hard=20),),
    tmpfs=(
        Tmpfs(target="/tmp", size_bytes=5, inodes=6, mode=0o1700, uid=1, gid=2, noexec=True),
        Tmpfs(target="/workspace", size_bytes=7, inodes=8, mode=0o700, uid=3, gid=4),
    ),
    mounts=(
        Mount(source="/srv/data, all", target="/data/x"),
        Mount(source="/srv/scratch", target="/mnt/y", read_only=False),
    ),
    masked_paths=("/proc/kcore",),
    readonly_paths=("/proc/sys",),
    log_driver="none",
)


def inspected(**host: Any) -> dict[str, Any]:
    """What an engine that did as it was asked would say."""
    request = create_request(SPEC)
    return {
        "Id": "f" * 64,
        "Name": "/sandbox-x",
        "State": {"Status": "running", "ExitCode": 0, "OOMKilled": False},
        "Config": {key: value for key, value in request.items() if key != "HostConfig"},
        "HostConfig": {**request["HostConfig"], **host},
        "Mounts": [
            {"Type": "volume", "Driver": "local", "Destination": mount.target, "RW": True}
            for mount in SPEC.mounts
        ],
    }


def volume(**changes: Any) -> list[dict[str, Any]]:
    """The mounts as they are asked for, one option of the first one changed."""
    first, *others = create_request(SPEC)["HostConfig"]["Mounts"]
    options = {**first["VolumeOptions"]["DriverConfig"]["Options"], **changes}
    driver = {"Name": "local", "Options": options}
    return [{**first, "VolumeOptions": {"NoCopy": True, "DriverConfig": driver}}, *others]


NOFILE = {"Name": "nofile", "Soft": 10, "Hard": 20}
OPTIONS: list[str] = create_request(SPEC)["HostConfig"]["SecurityOpt"]


def test_a_spec_comes_back_from_the_engines_words_as_it_went() -> None:
    facts = facts_of(inspected())
    expected = values_of(SPEC)
    del expected[Feature.ENVIRONMENT]
    assert facts == expected
    assert mismatches(SPEC, facts, REPORTABLE) == []


@pytest.mark.parametrize(
    "host",
    [
        {"Binds": ["/:/host"]},
        {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
        {"Mounts": None},
        {"Mounts": volume(o="bind,private,nosuid,nodev,rw")},
        {"Mounts": volume(o="bind,ro")},
        {"Mounts": volume(o="rbind,private,nosuid,nodev,ro")},
        {"Mounts": volume(device="/")},
        {"Mounts": [*volume(), {"Type": "bind", "Source": "/", "Target": "/host"}]},
        {"Mounts": [*volume(), *volume()]},
        {"Devices": [{"PathOnHost": "/dev/kvm"}]},
        {"DeviceRequests": [{"Count": -1}]},
        {"VolumesFrom": ["other"]},
        {"GroupAdd": ["0"]},
        {"PidMode": "host"},
        {"UTSMode": "host"},
        {"UsernsMode": "host"},
        {"Sysctls": {"net.ipv4.ip_forward": "1"}},
        {"ExtraHosts": ["a:1.2.3.4"]},
        {"CgroupParent": "/"},
        {"Runtime": "runsc"},
        {"NetworkMode": "bridge"},
        {"ReadonlyRootfs": False},
        {"Privileged": True},
        {"CapAdd": ["SYS_ADMIN"]},
        {"CapDrop": None},
        {"SecurityOpt": None},
        {"SecurityOpt": ["no-new-privileges:true", "seccomp=unconfined"]},
        {"SecurityOpt": ["no-new-privileges:true"]},
        {"SecurityOpt": [*OPTIONS, "systempaths=unconfined"]},
        {"SecurityOpt": [*OPTIONS, "label=disable"]},
        {"Memory": 0},
        {"PidsLimit": None},
        {"Tmpfs": {}},
        {"Tmpfs": {"/tmp": "", "/workspace": ""}},
        {"MaskedPaths": None},
        {"IpcMode": "host"},
        {"CgroupnsMode": "host"},
        {"LogConfig": {"Type": "json-file"}},
        {"LogConfig": None},
        {"Ulimits": None},
        {"Ulimits": [NOFILE, NOFILE]},
        {"Ulimits": [NOFILE, {"Name": "rtprio", "Soft": 1, "Hard": 1}]},
        {"Ulimits": [NOFILE, {"Name": "core", "Soft": 0, "Hard": 0}]},
    ],
)
def test_whatever_an_engine_adds_or_leaves_out_is_a_difference(host: dict[str, Any]) -> None:
    assert len(mismatches(SPEC, facts_of(inspected(**host)), REPORTABLE)) >= 1


def test_a_volume_that_an_image_declares_is_a_difference() -> None:
    there = inspected()["Mounts"]
    told = {**inspected(), "Mounts": [*there, {"Type": "volume", "Destination": "/data"}]}
    assert len(mismatches(SPEC, facts_of(told), REPORTABLE)) == 1


@pytest.mark.parametrize("user", ["", "root", "200001", "200001:0", "0:200002"])
def test_another_user_is_a_difference(user: str) -> None:
    told = inspected()
    told["Config"]["User"] = user
    assert mismatches(SPEC, facts_of(told), REPORTABLE)


def test_a_temporary_filesystem_is_mounted_as_the_spec_says() -> None:
    options = create_request(SPEC)["HostConfig"]["Tmpfs"]
    assert options == {
        "/tmp": "rw,nosuid,nodev,noexec,size=5,nr_inodes=6,mode=1700,uid=1,gid=2",
        "/workspace": "rw,nosuid,nodev,exec,size=7,nr_inodes=8,mode=0700,uid=3,gid=4",
    }


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("created", "created"),
        ("running", "running"),
        ("paused", "paused"),
        ("exited", "exited"),
        ("dead", "exited"),
        ("removing", "exited"),
    ],
)
def test_an_engines_states_are_told_in_our_words(status: str, state: str) -> None:
    assert state_of(status) == state


@pytest.mark.parametrize("key", ["CgroupnsMode", "Memory", "MaskedPaths", "Privileged"])
def test_what_an_engine_has_no_word_for_is_not_told_rather_than_told_to_be_off(key: str) -> None:
    told = inspected()
    del told["HostConfig"][key]
    facts = facts_of(told)
    (missing,) = values_of(SPEC).keys() - facts.keys() - {Feature.ENVIRONMENT}
    (said,) = mismatches(SPEC, facts, REPORTABLE)
    assert said.startswith(f"{missing}: is not told")


INFO: dict[str, Any] = {
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"],
    **dict.fromkeys(("MemoryLimit", "SwapLimit", "CpuCfsQuota", "PidsLimit"), True),
}


@pytest.mark.parametrize(
    ("change", "lacking"),
    [
        ({}, set[Feature]()),
        ({"MemoryLimit": False}, {Feature.MEMORY}),
        ({"SwapLimit": None}, {Feature.SWAP}),
        ({"CpuCfsQuota": False}, {Feature.CPU}),
        ({"PidsLimit": False}, {Feature.PIDS}),
        ({"SecurityOptions": ["name=apparmor"]}, {Feature.SECCOMP}),
        ({"SecurityOptions": ["name=seccomp,profile=default"]}, {Feature.APPARMOR}),
        ({"SecurityOptions": None}, {Feature.SECCOMP, Feature.APPARMOR}),
        (
            {"Warnings": ["WARNING: No blkio throttle.read_bps_device support"]},
            {Feature.DISK_RATES},
        ),
    ],
)
def test_what_an_engine_lacks_it_cannot_enforce(
    change: dict[str, Any], lacking: set[Feature]
) -> None:
    assert ALL - enforced({**INFO, **change}, "1.41") == lacking


@pytest.mark.parametrize("version", ["1.40", "1.9", ""])
def test_an_engine_from_before_they_had_them_has_no_namespace_for_control_groups(
    version: str,
) -> None:
    assert ALL - enforced(INFO, version) == {Feature.PRIVATE_CGROUPS}


def test_labels_and_annotations_come_back_apart() -> None:
    told = inspected()
    entry = {"Id": "f", "State": "running", "Labels": told["Config"]["Labels"]}
    for info in (info_of(told), listed(entry)):
        assert (info.labels, info.annotations) == (SPEC.labels, SPEC.annotations)


def test_how_a_main_process_ended_is_told_only_when_it_has() -> None:
    told = inspected()
    assert info_of(told).exit_code is None
    told["State"] = {"Status": "exited", "ExitCode": 137, "OOMKilled": True}
    info = info_of(told)
    assert (info.state, info.exit_code, info.oom_killed) == ("exited", 137, True)


@pytest.mark.parametrize("name", ["total_inactive_file", "inactive_file"])
def test_use_is_measured_without_what_the_kernel_can_drop(name: str) -> None:
    told = {
        "memory_stats": {"usage": 1000, "limit": 5000, "stats": {name: 300}},
        "pids_stats": {"current": 7},
        "cpu_stats": {"cpu_usage": {"total_usage": 2_500_000_000}},
    }
    used = stats_of(told)
    assert used is not None
    assert (used.memory_bytes, used.memory_limit_bytes, used.pids) == (700, 5000, 7)
    assert used.cpu_s == 2.5


def test_a_container_that_does_not_run_has_no_use() -> None:
    assert stats_of({"memory_stats": {}, "pids_stats": {}, "cpu_stats": {}}) is None


def test_the_apparmor_profile_in_force_is_the_one_that_was_asked_for() -> None:
    asked = [*create_request(SPEC)["HostConfig"]["SecurityOpt"], "apparmor=sandbox"]
    wanted = SPEC.model_copy(update={"apparmor": "sandbox"})
    for profile, is_right in (("sandbox", True), ("docker-default", False), ("", False)):
        facts = facts_of({**inspected(SecurityOpt=asked), "AppArmorProfile": profile})
        assert (mismatches(wanted, facts, REPORTABLE) == []) is is_right
    for profile, is_right in (("docker-default", True), ("", True), ("unconfined", False)):
        facts = facts_of({**inspected(), "AppArmorProfile": profile})
        assert (mismatches(SPEC, facts, REPORTABLE) == []) is is_right
