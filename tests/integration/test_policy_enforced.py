"""Each policy on a real engine: what is asked for, what the engine says, what is true inside."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import sandbox.runtimes.docker.runtime as adapter
from sandbox.container import images
from sandbox.container.compiler import compile_spec
from sandbox.container.examination import Proof
from sandbox.container.features import REPORTABLE
from sandbox.container.identity import SandboxIdentity, new_sandbox_id, new_uid
from sandbox.container.inspection import mismatches
from sandbox.container.mounts import sources
from sandbox.container.proof import prove
from sandbox.container.roots import Root
from sandbox.container.spec import ContainerSpec
from sandbox.errors import PolicyNotEnforced
from sandbox.link.link import Link
from sandbox.policy import load, seccomp_profile
from sandbox.runtimes.docker.runtime import DockerRuntime
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

from ..support.controllers import Controllers
from ..support.machines import serving
from ..support.served import RUNTIME

OWNER = f"test-policy-enforced-{os.getpid()}"

Body = dict[str, Any]

pytestmark = pytest.mark.anyio


async def spec_of(
    engine: DockerRuntime, policy_name: str, roots: tuple[Root, ...] = ()
) -> ContainerSpec:
    found = await engine.engine()
    policy = load().get(policy_name)
    identity = SandboxIdentity(
        sandbox_id=new_sandbox_id(),
        owner=OWNER,
        uid=new_uid(),
        created_at=time.time(),
    )
    return compile_spec(
        policy,
        identity,
        image=images.reference(policy.image),
        engine=found,
        seccomp=seccomp_profile(),
        mounts=sources(policy, roots),
        runtime_override=RUNTIME,
    )


@asynccontextmanager
async def running(
    engine: DockerRuntime, spec: ContainerSpec
) -> AsyncIterator[tuple[list[str], Link]]:
    """A container of a spec: where the engine's word differs, and a link to its supervisor."""
    container_id = await engine.create(spec)
    try:
        await engine.start(container_id)
        facts = (await engine.inspect(container_id)).facts
        reports = (await engine.engine()).reports
        link = Link(
            await engine.connect(container_id), initiator=True, hello={"build": "policy test"}
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(link.run)
            await link.greeting(60)
            yield mismatches(spec, facts, reports), link
            await link.aclose()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await engine.remove(container_id)


async def verdict_of(link: Link, spec: ContainerSpec) -> Proof | PolicyNotEnforced:
    try:
        return await prove(link, spec, reports=REPORTABLE)
    except PolicyNotEnforced as exc:
        return exc


@pytest.mark.parametrize("policy", load().names())
async def test_what_a_policy_says_is_what_the_engine_applies_and_what_is_true_inside(
    engine: DockerRuntime, policy: str, tmp_path: Path
) -> None:
    spec = await spec_of(engine, policy, (Root("datasets", str(tmp_path)),))
    with anyio.fail_after(120):
        async with running(engine, spec) as (different, link):
            assert different == []
            proof = await prove(link, spec, reports=REPORTABLE)
    assert proof.runtime == RUNTIME
    assert len(proof.checks) > 25
    assert proof.failed == ()


async def test_nothing_of_the_host_can_be_read_in_proc_and_sys(engine: DockerRuntime) -> None:
    """Invariant 2. The masked paths are a list, so this looks for what the list does not have."""
    spec = await spec_of(engine, "offline")
    program = (
        "find /sys -path /sys/fs/cgroup -prune -o -type f -size +0 -readable -print 2>/dev/null;"
        "cd /proc; for each in *; do [ -f $each ] || continue;"
        ' [ "$(head -c 1 $each 2>/dev/null | wc -c)" = 0 ] || echo /proc/$each; done'
    )
    with anyio.fail_after(120):
        async with running(engine, spec) as (_, link), serving(link) as commands:
            result = await commands.run(program, timeout_s=60)
    needed = {"cpuinfo", "filesystems", "meminfo", "mounts", "stat", "uptime"}  # by ps and psutil
    if RUNTIME == "runsc":  # gVisor's own, about gVisor
        needed |= {"cgroups", "cmdline", "loadavg", "sentry-meminfo", "version"}
    assert result.exit_code == 0, result.stderr
    assert set(result.stdout.split()) <= {f"/proc/{name}" for name in needed}
    assert "/proc/stat" in result.stdout  # the search does find what is there


# --- engines that apply less than they were asked for


def put(name: str, value: Any) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        assert body["HostConfig"][name] != value
        body["HostConfig"][name] = value

    return change


def put_root(body: Body) -> None:
    """Root, in filesystems that are root's: otherwise its supervisor could not even start."""
    uid = body["User"].partition(":")[0]
    for target, options in body["HostConfig"]["Tmpfs"].items():
        body["HostConfig"]["Tmpfs"][target] = options.replace(uid, "0")
    body["User"] = "0:0"


def put_seccomp(body: Body) -> None:
    body["HostConfig"]["SecurityOpt"] = ["no-new-privileges:true", "seccomp=unconfined"]


def put_privileges(body: Body) -> None:
    options: list[str] = body["HostConfig"]["SecurityOpt"]
    options.remove("no-new-privileges:true")


def put_memory(body: Body) -> None:
    body["HostConfig"].update(Memory=2 << 30, MemorySwap=2 << 30)


def put_bind(body: Body) -> None:
    body["HostConfig"]["Binds"] = ["/etc:/host-etc:ro"]


def put_hidden_bind(body: Body) -> None:
    """A host's folder below a place where something is expected."""
    body["HostConfig"]["Binds"] = ["/etc:/workspace/etc:ro"]


def put_variable(body: Body) -> None:
    body["Env"] = [*body["Env"], "ENGINE_TOKEN=hunter2"]


def put_hostname(body: Body) -> None:
    body["Hostname"] = "build-host-7"


def put_workspace(option: str, other: str) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        options: str = body["HostConfig"]["Tmpfs"]["/workspace"]
        assert option in options
        body["HostConfig"]["Tmpfs"]["/workspace"] = options.replace(option, other)

    return change


def drop_workspace(body: Body) -> None:
    """The workspace on the engine's disk, in an anonymous volume."""
    del body["HostConfig"]["Tmpfs"]["/workspace"]
    body["Volumes"] = {"/workspace": {}}


def put_ulimit(name: str) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        kept = [limit for limit in body["HostConfig"]["Ulimits"] if limit["Name"] != name]
        assert len(kept) == len(body["HostConfig"]["Ulimits"]) - 1
        body["HostConfig"]["Ulimits"] = kept

    return change


def put_between(patch: pytest.MonkeyPatch, weaken: Callable[[Body], None]) -> None:
    """Change each request between the adapter and the engine."""
    honest = adapter.create_request

    def weakened(spec: ContainerSpec) -> Body:
        body = honest(spec)
        weaken(body)
        return body

    patch.setattr(adapter, "create_request", weakened)


# The weakening, the check inside that finds it, the fact of the inspection that shows it ("" for
# what no inspection is compared for), and whether it can be told inside under gVisor, too: there
# runsc's own options keep the network away and new privileges are never given.
WEAKENINGS = {
    "a bridge network": (put("NetworkMode", "bridge"), "interfaces", "network", False),
    "no seccomp profile": (put_seccomp, "seccomp_mode", "seccomp", False),
    "new privileges": (put_privileges, "no_new_privs", "no-new-privileges", False),
    "the usual capabilities": (put("CapDrop", []), "capabilities.bounding", "capabilities", True),
    "one capability": (
        put("CapAdd", ["SYS_PTRACE"]),
        "capabilities.bounding",
        "capabilities",
        True,
    ),
    "root": (put_root, "uid", "user", True),
    "a writable root": (put("ReadonlyRootfs", False), "root_read_only", "read-only-root", True),
    "a privileged container": (put("Privileged", True), "capabilities", "capabilities", True),
    "twice the memory": (put_memory, "memory_limit", "memory", False),
    "no limit of processes": (put("PidsLimit", 0), "pids_limit", "pids", False),
    "more shared memory": (put("ShmSize", 1 << 30), "mounts./dev/shm", "shm-size", True),
    "nothing masked": (put("MaskedPaths", []), "mounts.unmasked", "masked-paths", False),
    "nothing read-only": (put("ReadonlyPaths", []), "mounts./proc/sys", "read-only-paths", False),
    "no limit of descriptors": (put_ulimit("nofile"), "nofile", "ulimit.nofile", True),
    "no limit of file sizes": (put_ulimit("fsize"), "fsize", "ulimit.fsize", True),
    "core dumps": (put_ulimit("core"), "core", "ulimit.core", True),
    "a larger workspace": (
        *(
            put_workspace("size=536870912", "size=1073741824"),
            "mounts./workspace",
            "tmpfs.size",
            True,
        ),
    ),
    "a workspace without a limit of inodes": (
        *(put_workspace("nr_inodes=65536,", ""), "mounts./workspace", "tmpfs.inodes", False),
    ),
    "a workspace on the engine's disk": (drop_workspace, "mounts./workspace", "tmpfs.size", True),
    "a folder of the host": (put_bind, "mounts.unexpected", "nothing-else", True),
    "a hidden folder of the host": (put_hidden_bind, "mounts.unexpected", "nothing-else", True),
    "a variable of the engine": (put_variable, "environment", "", True),
    "the engine's hostname": (put_hostname, "hostname", "hostname", True),
}


@pytest.mark.parametrize("name", WEAKENINGS)
async def test_an_engine_that_applies_less_is_caught_inside_and_by_its_own_word(
    engine: DockerRuntime, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Invariant 4, on a container that really is weaker."""
    weaken, check, fact, under_gvisor = WEAKENINGS[name]
    put_between(monkeypatch, weaken)
    spec = await spec_of(engine, "offline")
    with anyio.fail_after(120):
        async with running(engine, spec) as (different, link):
            verdict = await verdict_of(link, spec)
    if fact:
        assert any(each.startswith(f"{fact}: ") for each in different), different
    if RUNTIME == "runsc" and not under_gvisor:
        # The inspection alone answers for it there, and it does.
        assert fact
        return
    assert isinstance(verdict, PolicyNotEnforced), verdict
    assert check in verdict.message


@pytest.mark.parametrize("name", ["one capability", "a variable of the engine"])
async def test_a_caller_gets_an_error_and_nothing_is_left_when_the_engine_applies_less(
    manager: SessionManager,
    controllers: Controllers,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """Invariant 4: found by the inspection, or, what no inspection tells, by the probe alone."""
    with monkeypatch.context() as patch, anyio.fail_after(120):
        put_between(patch, WEAKENINGS[name][0])
        with pytest.raises(PolicyNotEnforced):
            await manager.open(Caller("ada"))
        assert await controllers.containers() == []
        assert manager.list(Caller("ada")) == []
    with anyio.fail_after(120):
        assert (await manager.open(Caller("ada"))).info().checks_passed > 25
