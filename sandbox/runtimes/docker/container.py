"""A container's spec in the Engine API's words, and the Engine API's answer as a spec. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from sandbox.runtimes.base import ContainerInfo, ContainerState, ContainerStats
from sandbox.spec import ContainerSpec, Mount, Tmpfs, Ulimit

_SECCOMP = "seccomp="
# Bound alone, without what is mounted within it, now or later.
_MOUNT_OPTIONS = "bind,private,nosuid,nodev"
_RUNNING = frozenset({"running", "paused", "restarting"})
# What a container of ours never has; reported when the engine says otherwise.
_NEVER = (
    *("Binds", "VolumesFrom", "Devices", "DeviceRequests", "DeviceCgroupRules"),
    *("GroupAdd", "ExtraHosts", "Links", "PortBindings", "PidMode", "UTSMode", "UsernsMode"),
    *("Sysctls", "CgroupParent", "DnsSearch", "DnsOptions"),
)


def create_request(spec: ContainerSpec) -> dict[str, Any]:
    """The body of ``POST /containers/create`` for a spec; docker-py has no word for half of it."""
    return {
        "Image": spec.image,
        "Entrypoint": list(spec.command),
        "Hostname": spec.hostname,
        "User": f"{spec.uid}:{spec.gid}",
        "WorkingDir": spec.working_dir,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": spec.labels,
        "HostConfig": {
            "Runtime": spec.runtime,
            "NetworkMode": spec.network_mode,
            "Dns": list(spec.dns),
            "ReadonlyRootfs": spec.read_only_root,
            "Init": spec.init,
            "Privileged": spec.privileged,
            "CapAdd": list(spec.cap_add),
            "CapDrop": list(spec.cap_drop),
            "SecurityOpt": [*spec.security_opt, _SECCOMP + spec.seccomp],
            "Memory": spec.memory_bytes,
            "MemorySwap": spec.memory_swap_bytes,
            "NanoCpus": spec.nano_cpus,
            "PidsLimit": spec.pids_limit,
            "OomScoreAdj": spec.oom_score_adj,
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
    return ContainerInfo(
        id=inspection["Id"],
        name=inspection["Name"].removeprefix("/"),
        state=state_of(state["Status"]),
        labels=inspection["Config"].get("Labels") or {},
        exit_code=state.get("ExitCode") if state["Status"] in ("exited", "dead") else None,
        oom_killed=bool(state.get("OOMKilled")),
        facts=facts_of(inspection),
    )


def listed(entry: Mapping[str, Any]) -> ContainerInfo:
    """What one entry of ``GET /containers/json`` says."""
    return ContainerInfo(
        id=entry["Id"],
        name=entry["Names"][0].removeprefix("/") if entry.get("Names") else "",
        state=state_of(entry["State"]),
        labels=entry.get("Labels") or {},
    )


def state_of(status: str) -> ContainerState:
    """The engine's word for a container's state in ours."""
    if status in _RUNNING:
        return "running"
    return "created" if status == "created" else "exited"


def facts_of(inspection: Mapping[str, Any]) -> dict[str, Any]:
    """The isolation that the engine says it applied, in the words of ``ContainerSpec.facts``.

    What no container of ours may have (a bind mount, a device, …) is added under ``unexpected``,
    which no spec has, and so differs from every spec.
    """
    config, host = inspection["Config"], inspection["HostConfig"]
    options: list[str] = host.get("SecurityOpt") or []
    seccomp = [option for option in options if option.startswith(_SECCOMP)]
    volumes = cast("list[Mapping[str, Any]]", host.get("Mounts") or [])
    uid, _, gid = str(config.get("User", "")).partition(":")
    found = ContainerSpec(
        name="",
        labels={},
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
        security_opt=tuple(option for option in options if option not in seccomp),
        seccomp="".join(seccomp).removeprefix(_SECCOMP),
        memory_bytes=_number(host, "Memory"),
        memory_swap_bytes=_number(host, "MemorySwap"),
        nano_cpus=_number(host, "NanoCpus"),
        pids_limit=_number(host, "PidsLimit"),
        oom_score_adj=_number(host, "OomScoreAdj"),
        shm_bytes=_number(host, "ShmSize"),
        ipc_mode=host.get("IpcMode", ""),
        cgroupns_mode=host.get("CgroupnsMode", ""),
        ulimits=tuple(
            Ulimit(name=limit["Name"], soft=limit["Soft"], hard=limit["Hard"])
            for limit in host.get("Ulimits") or ()
        ),
        tmpfs=tuple(_tmpfs(target, text) for target, text in _object(host, "Tmpfs").items()),
        mounts=tuple(mount for entry in volumes if (mount := _mount(entry)) is not None),
        masked_paths=_texts(host, "MaskedPaths"),
        readonly_paths=_texts(host, "ReadonlyPaths"),
        log_driver=str(_object(host, "LogConfig").get("Type", "")),
    )
    facts = found.facts()
    unexpected = {name: host[name] for name in _NEVER if host.get(name)}
    ours = {mount.target for mount in found.mounts}
    strange = [entry for entry in volumes if _mount(entry) is None] + [
        entry
        for entry in cast("list[Mapping[str, Any]]", inspection.get("Mounts") or [])
        if (entry.get("Type"), entry.get("Driver")) != ("volume", "local")
        or entry.get("Destination") not in ours
    ]
    if strange:
        unexpected["Mounts"] = strange
    if unexpected:
        facts["unexpected"] = unexpected
    return facts


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
