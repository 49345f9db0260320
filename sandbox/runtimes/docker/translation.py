"""A container's spec in the Engine API's words, and the Engine API's answer as a spec. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args

from sandbox.container.features import ALL, NOTHING, REPORTABLE, Feature, values_of
from sandbox.container.spec import ContainerSpec, DiskRate, Mount, RlimitName, Tmpfs, Ulimit
from sandbox.runtimes.base import ContainerInfo, ContainerState, ContainerStats
from sandbox.runtimes.docker.disk import has_rates

_NO_NEW_PRIVILEGES = "no-new-privileges:true"
_SECCOMP = "seccomp="
_APPARMOR = "apparmor="
_ANNOTATION = "annotation:"
"""Before an annotation's name, as Docker keeps it among its labels; no spec's label has a colon."""
# Bound alone, without what is mounted within it, now or later.
_MOUNT_OPTIONS = "bind,private,nosuid,nodev"
_RUNNING = frozenset({"running", "restarting"})
# What a container of ours never has; reported when the engine says otherwise.
_NEVER = (
    *("Binds", "VolumesFrom", "Devices", "DeviceRequests", "DeviceCgroupRules"),
    *("GroupAdd", "ExtraHosts", "Links", "PortBindings", "PidMode", "UTSMode", "UsernsMode"),
    *("CgroupParent", "DnsSearch", "DnsOptions"),
)


# The facts that an engine tells with each container; the others are left out where they are empty.
_TOLD_BY = {
    Feature.READ_ONLY_ROOT: "ReadonlyRootfs",
    Feature.NETWORK: "NetworkMode",
    Feature.CAPABILITIES: "Privileged",
    Feature.MEMORY: "Memory",
    Feature.SWAP: "MemorySwap",
    Feature.CPU: "NanoCpus",
    Feature.PIDS: "PidsLimit",
    Feature.OOM_SCORE: "OomScoreAdj",
    Feature.SHM_SIZE: "ShmSize",
    Feature.PRIVATE_IPC: "IpcMode",
    Feature.PRIVATE_CGROUPS: "CgroupnsMode",
    Feature.MASKED_PATHS: "MaskedPaths",
    Feature.READ_ONLY_PATHS: "ReadonlyPaths",
    Feature.NO_LOG: "LogConfig",
}
# What an engine may lack, and the key of ``GET /info`` that says so.
_CONTROLLERS = {
    Feature.MEMORY: "MemoryLimit",
    Feature.SWAP: "SwapLimit",
    Feature.CPU: "CpuCfsQuota",
    Feature.PIDS: "PidsLimit",
}
_CGROUP_NAMESPACES_SINCE = (1, 41)


def enforced(told: Mapping[str, Any], api_version: str) -> frozenset[Feature]:
    """What an engine can make true of a container, by what ``GET /info`` says of it."""
    options = cast("list[str]", told.get("SecurityOptions") or [])
    lacking = {feature for feature, key in _CONTROLLERS.items() if not told.get(key)}
    for feature, word in ((Feature.SECCOMP, "seccomp"), (Feature.APPARMOR, "apparmor")):
        if not any(word in option for option in options):
            lacking.add(feature)
    if not has_rates(told.get("Warnings") or ()):
        lacking.add(Feature.DISK_RATES)
    version = tuple(int(part) for part in api_version.split(".") if part.isdecimal())
    if version < _CGROUP_NAMESPACES_SINCE:
        lacking.add(Feature.PRIVATE_CGROUPS)
    return ALL - lacking


def create_request(spec: ContainerSpec) -> dict[str, Any]:
    """The body of ``POST /containers/create`` for a spec; docker-py has no word for half of it."""
    return {
        "Image": spec.image,
        "Entrypoint": list(spec.command),
        "Hostname": spec.hostname,
        "User": f"{spec.uid}:{spec.gid}",
        "WorkingDir": spec.working_dir,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": {
            **spec.labels,
            **{_ANNOTATION + name: text for name, text in spec.annotations.items()},
        },
        "HostConfig": {
            "Runtime": spec.runtime,
            "NetworkMode": spec.network_mode,
            "Dns": list(spec.dns),
            "ReadonlyRootfs": spec.read_only_root,
            "Init": spec.init,
            "Privileged": spec.privileged,
            "CapAdd": list(spec.cap_add),
            "CapDrop": list(spec.cap_drop),
            "SecurityOpt": [
                *([_NO_NEW_PRIVILEGES] if spec.no_new_privileges else []),
                *([_APPARMOR + spec.apparmor] if spec.apparmor else []),
                _SECCOMP + spec.seccomp,
            ],
            "Memory": spec.memory_bytes,
            "MemorySwap": spec.memory_swap_bytes,
            "NanoCpus": spec.nano_cpus,
            "PidsLimit": spec.pids_limit,
            "OomScoreAdj": spec.oom_score_adj,
            "BlkioDeviceReadBps": _rates(spec.disk_reads),
            "BlkioDeviceWriteBps": _rates(spec.disk_writes),
            "Sysctls": spec.sysctls,
            "ShmSize": spec.shm_bytes,
            "IpcMode": spec.ipc_mode,
            "CgroupnsMode": spec.cgroupns_mode,
            "Ulimits": [
                {"Name": limit.name, "Soft": limit.soft, "Hard": limit.hard}
                for limit in spec.ulimits
            ],
            "Tmpfs": {mount.target: _tmpfs_options(mount) for mount in spec.tmpfs},
            "Mounts": [_volume(mount) for mount in spec.mounts],
            "MaskedPaths": list(spec.masked_paths),
            "ReadonlyPaths": list(spec.readonly_paths),
            "LogConfig": {"Type": spec.log_driver},
        },
    }


def info_of(inspection: Mapping[str, Any]) -> ContainerInfo:
    """What ``GET /containers/ID/json`` says, with the facts."""
    state = inspection["State"]
    labels, annotations = _told_apart(inspection["Config"].get("Labels") or {})
    return ContainerInfo(
        id=inspection["Id"],
        name=inspection["Name"].removeprefix("/"),
        state=state_of(state["Status"]),
        labels=labels,
        annotations=annotations,
        exit_code=state.get("ExitCode") if state["Status"] in ("exited", "dead") else None,
        oom_killed=bool(state.get("OOMKilled")),
        facts=facts_of(inspection),
    )


def listed(entry: Mapping[str, Any]) -> ContainerInfo:
    """What one entry of ``GET /containers/json`` says."""
    labels, annotations = _told_apart(entry.get("Labels") or {})
    return ContainerInfo(
        id=entry["Id"],
        name=entry["Names"][0].removeprefix("/") if entry.get("Names") else "",
        state=state_of(entry["State"]),
        labels=labels,
        annotations=annotations,
    )


def state_of(status: str) -> ContainerState:
    """The engine's word for a container's state in ours."""
    if status in _RUNNING:
        return "running"
    if status == "created" or status == "paused":
        return status
    return "exited"


def facts_of(inspection: Mapping[str, Any]) -> dict[str, Any]:
    """The isolation that the engine says it applied, by the names of features.

    What it does not tell is not there: the environment, of which it tells the image's part too, and
    what an engine of an older version has no word for.
    """
    config, host = inspection["Config"], inspection["HostConfig"]
    options: list[str] = host.get("SecurityOpt") or []
    limits = {limit["Name"]: limit for limit in host.get("Ulimits") or ()}
    volumes = cast("list[Mapping[str, Any]]", host.get("Mounts") or [])
    uid, _, gid = str(config.get("User", "")).partition(":")
    found = ContainerSpec(
        name="",
        labels={},
        annotations={},
        environment={},
        image=config["Image"],
        command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        hostname=config.get("Hostname", ""),
        working_dir=config.get("WorkingDir", ""),
        runtime=host.get("Runtime", ""),
        uid=int(uid) if uid.isdecimal() else 0,
        gid=int(gid) if gid.isdecimal() else 0,
        network_mode=host.get("NetworkMode", ""),
        dns=_texts(host, "Dns"),
        read_only_root=bool(host.get("ReadonlyRootfs")),
        init=bool(host.get("Init")),
        privileged=bool(host.get("Privileged")),
        cap_add=_texts(host, "CapAdd"),
        cap_drop=_texts(host, "CapDrop"),
        no_new_privileges=_NO_NEW_PRIVILEGES in options,
        apparmor=_profile(options, str(inspection.get("AppArmorProfile") or "")),
        seccomp="".join(_values(options, _SECCOMP)),
        memory_bytes=_number(host, "Memory"),
        memory_swap_bytes=_number(host, "MemorySwap"),
        nano_cpus=_number(host, "NanoCpus"),
        pids_limit=_number(host, "PidsLimit"),
        oom_score_adj=_number(host, "OomScoreAdj"),
        disk_reads=_disk_rates(host, "BlkioDeviceReadBps"),
        disk_writes=_disk_rates(host, "BlkioDeviceWriteBps"),
        sysctls=dict(_object(host, "Sysctls")),
        shm_bytes=_number(host, "ShmSize"),
        ipc_mode=host.get("IpcMode", ""),
        cgroupns_mode=host.get("CgroupnsMode", ""),
        ulimits=tuple(
            Ulimit(name=name, soft=limits[name]["Soft"], hard=limits[name]["Hard"])
            for name in get_args(RlimitName)
            if name in limits
        ),
        tmpfs=tuple(_tmpfs(target, text) for target, text in _object(host, "Tmpfs").items()),
        mounts=tuple(mount for entry in volumes if (mount := _mount(entry)) is not None),
        masked_paths=_texts(host, "MaskedPaths"),
        readonly_paths=_texts(host, "ReadonlyPaths"),
        log_driver=str(_object(host, "LogConfig").get("Type", "")),
    )
    strange = _strange(inspection, {mount.target for mount in found.mounts})
    values = values_of(found) | {Feature.NOTHING_ELSE: strange or NOTHING}
    return {
        feature: value
        for feature, value in values.items()
        if feature in REPORTABLE and _TOLD_BY.get(feature, "Runtime") in host
    }


def _strange(inspection: Mapping[str, Any], targets: set[str]) -> dict[str, Any]:
    """What an inspection shows that no container of ours may have."""
    host = inspection["HostConfig"]
    options: list[str] = host.get("SecurityOpt") or []
    limits: list[str] = [limit["Name"] for limit in host.get("Ulimits") or ()]
    entries = {
        key: cast("list[Any]", place.get("Mounts") or [])
        for key, place in (("asked", host), ("made", inspection))
    }
    told = {
        **{name: host.get(name) for name in _NEVER},
        "Mounts": [
            *(entry for entry in entries["asked"] if _mount(entry) is None),
            *(
                entry
                for entry in entries["made"]
                if (entry.get("Type"), entry.get("Driver")) != ("volume", "local")
                or entry.get("Destination") not in targets
            ),
        ],
        "Ulimits": [
            name for name in limits if name not in get_args(RlimitName) or limits.count(name) > 1
        ],
        "SecurityOpt": [
            option
            for option in options
            if option != _NO_NEW_PRIVILEGES and not option.startswith((_SECCOMP, _APPARMOR))
        ],
    }
    return {name: value for name, value in told.items() if value}


def _values(options: list[str], kind: str) -> list[str]:
    return [option.removeprefix(kind) for option in options if option.startswith(kind)]


def _profile(options: list[str], profile: str) -> str:
    """The AppArmor profile in force; empty for the engine's own where none was asked for."""
    asked = _values(options, _APPARMOR)
    if asked or profile == "unconfined":
        return profile if asked in ([], [profile]) else f"{profile or 'none'}, not {asked}"
    return ""


def stats_of(stats: Mapping[str, Any]) -> ContainerStats | None:
    """What ``GET /containers/ID/stats`` says; None when the container does not run."""
    memory = _object(stats, "memory_stats")
    if "usage" not in memory:
        return None
    details = _object(memory, "stats")
    # Cache that the kernel can drop at once is not use. The first name is of cgroup v1.
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return ContainerStats(
        memory_bytes=max(0, int(memory["usage"]) - int(cache)),
        memory_limit_bytes=int(memory.get("limit", 0)),
        pids=int(_object(stats, "pids_stats").get("current", 0)),
        cpu_s=int(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9,
    )


def _told_apart(kept: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """A container's labels, and its annotations."""
    labels = {name: text for name, text in kept.items() if not name.startswith(_ANNOTATION)}
    annotations = {name: text for name, text in kept.items() if name not in labels}
    return labels, {name.removeprefix(_ANNOTATION): text for name, text in annotations.items()}


def _tmpfs_options(mount: Tmpfs) -> str:
    # Without a word about it the engine mounts noexec.
    execute = "noexec" if mount.noexec else "exec"
    return (
        f"rw,nosuid,nodev,{execute},size={mount.size_bytes},nr_inodes={mount.inodes},"
        f"mode={mount.mode:04o},uid={mount.uid},gid={mount.gid}"
    )


def _tmpfs(target: str, text: str) -> Tmpfs:
    options: dict[str, str] = {}
    for option in text.split(","):
        name, _, value = option.partition("=")
        options[name] = value
    return Tmpfs(
        target=target,
        size_bytes=int(options.get("size", 0)),
        inodes=int(options.get("nr_inodes", 0)),
        mode=int(options.get("mode", "0"), 8),
        uid=int(options.get("uid", 0)),
        gid=int(options.get("gid", 0)),
        noexec="exec" not in options,
    )


def _rates(rates: tuple[DiskRate, ...]) -> list[dict[str, Any]]:
    return [{"Path": rate.device, "Rate": rate.bytes_per_s} for rate in rates]


def _disk_rates(host: Mapping[str, Any], key: str) -> tuple[DiskRate, ...]:
    entries = cast("list[Mapping[str, Any]]", host.get(key) or [])
    return tuple(DiskRate(device=each["Path"], bytes_per_s=each["Rate"]) for each in entries)


def _volume(mount: Mount) -> dict[str, Any]:
    """A mount as an anonymous volume, which is removed with its container: docs/adr/0009."""
    access = "ro" if mount.read_only else "rw"
    options = {"type": "none", "o": f"{_MOUNT_OPTIONS},{access}", "device": mount.source}
    return {
        "Type": "volume",
        "Target": mount.target,
        "VolumeOptions": {"NoCopy": True, "DriverConfig": {"Name": "local", "Options": options}},
    }


def _mount(entry: Mapping[str, Any]) -> Mount | None:
    """The mount that an entry of ``HostConfig.Mounts`` is; None when it is not one of ours."""
    driver = _object(_object(entry, "VolumeOptions"), "DriverConfig")
    options = _object(driver, "Options")
    mount = Mount(
        source=str(options.get("device", "")),
        target=str(entry.get("Target", "")),
        read_only=str(options.get("o", "")).endswith(",ro"),
    )
    return mount if _volume(mount) == entry else None


def _object(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", answer.get(key) or {})


def _texts(host: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(cast("list[str]", host.get(key) or []))


def _number(host: Mapping[str, Any], key: str) -> int:
    return int(host.get(key) or 0)
