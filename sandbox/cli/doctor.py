"""`sandbox doctor`: can this machine run sandboxes, and if not, what is to be done."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import asdict

import anyio
from rich.console import Console
from rich.text import Text

from sandbox.cli import exits
from sandbox.cli.engines import container_runtime
from sandbox.cli.findings import Finding, fail, ok, warn
from sandbox.cli.folders import policy_set, state_dir
from sandbox.cli.hostcheck import host_findings
from sandbox.cli.tables import print_json
from sandbox.config import Settings
from sandbox.container import images
from sandbox.errors import SandboxError
from sandbox.policy import PolicySet, seccomp_profile
from sandbox.policy.units import GIB
from sandbox.runtimes.base import ContainerRuntime, EngineInfo

OLDEST_ENGINE = (20, 10)
LEAST_DISK_BYTES = 2 * GIB
START_ENGINE = "`systemctl start docker`, or say where it is with DOCKER_HOST or --engine."
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def examine(settings: Settings, *, as_json: bool) -> int:
    """Look at everything, print it line by line, and return the exit code."""
    findings: list[Finding] = []
    console = Console(highlight=False, soft_wrap=True)

    async def look() -> None:
        async for finding in _findings(settings):
            findings.append(finding)
            if not as_json:
                _print(console, finding)

    anyio.run(look)
    bad = [finding for finding in findings if finding.verdict == "fail"]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    elif bad:
        console.print(f"\n{len(bad)} of {len(findings)} checks failed.", style="bold red")
    else:
        console.print("\nThis machine can run sandboxes.", style="bold green")
        console.print("`sandbox verify` proves that its engine confines them.")
    return exits.FAILED if bad else exits.OK


def _print(console: Console, finding: Finding) -> None:
    line = Text.assemble(
        (f"{finding.verdict:>4}  ", STYLES[finding.verdict]),
        (f"{finding.name:<14} ", "bold"),
        finding.detail,
    )
    console.print(line)
    if finding.remedy:
        console.print(Text(f"{'':21}→ {finding.remedy}", "italic"))


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    try:
        yield ok("state", f"kept in {state_dir(settings)}")
    except SandboxError as exc:
        yield fail("state", exc.message, exc.remedy)
    policies: PolicySet | None = None
    try:
        policies = policy_set(settings)
        seccomp_profile()
        yield ok("policies", f"{', '.join(policies.names())}; all valid")
    except SandboxError as exc:
        yield fail("policies", exc.message, exc.remedy or "`sandbox policy check FILE`")
    found: list[Finding] = []
    try:
        async with aclosing(container_runtime(settings)) as runtime:
            engine = await runtime.engine()
            found = [*_engine(engine, settings, policies), *await _images(runtime, policies)]
    except SandboxError as exc:
        yield fail("engine", exc.message, exc.remedy or START_ENGINE)
    for finding in found:
        yield finding
    yield _disk(settings)


def _engine(
    engine: EngineInfo, settings: Settings, policies: PolicySet | None
) -> Iterator[Finding]:
    told = f"Docker Engine {engine.version} (API {engine.api_version}, {engine.architecture})"
    numbers = tuple(int(part) for part in engine.version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST_ENGINE:
        yield fail("engine", told, "Update it to 20.10 or newer.")
    else:
        yield ok("engine", told)
    if engine.cgroup_version in (1, 2):
        yield ok("cgroup", f"version {engine.cgroup_version}")
    else:
        yield fail("cgroup", "none", "Give the engine a kernel with control groups.")
    if engine.seccomp:
        yield ok("seccomp", "on, with the profile of this package")
    else:
        remedy = "Use an engine and a kernel with seccomp (CONFIG_SECCOMP_FILTER)."
        yield fail("seccomp", "the engine has no seccomp", remedy)
    yield from _runtimes(engine, settings.runtime, policies)
    yield _memory(engine, policies)
    yield from host_findings(engine, settings, policies)


def _runtimes(engine: EngineInfo, forced: str, policies: PolicySet | None) -> Iterator[Finding]:
    if forced and forced not in engine.runtimes:
        yield fail(
            "runtime",
            f"the setting forces {forced}, which the engine does not have",
            f"Register {forced} with the engine, or unset SANDBOX_RUNTIME.",
        )
    for name in ("runc", "runsc"):
        if name in engine.runtimes:
            yield ok(name, "known to the engine")
        elif name == "runc":
            yield warn(name, "unknown to the engine", "Install runc.")
        else:
            told = "not there; it is optional (gVisor, a stronger wall between code and kernel)"
            yield warn(name, told) if forced == name else ok(name, told)
    for policy in map(policies.get, policies.names()) if policies else ():
        if not set(policy.runtimes) & set(engine.runtimes):
            needed = f"the policy {policy.name} needs {' or '.join(policy.runtimes)}"
            yield fail("runtime", needed, "Register one of them with the engine.")


def _memory(engine: EngineInfo, policies: PolicySet | None) -> Finding:
    detail = f"{engine.memory_bytes / GIB:.1f} GiB, {engine.cpus} CPUs"
    wanted = policies.get().limits.memory_bytes if policies else GIB
    if engine.memory_bytes >= 2 * wanted:
        return ok("memory", detail)
    return warn(
        "memory",
        f"{detail}; one session of the default policy may take {wanted / GIB:.1f} GiB",
        "Lower `limits.memory` in a policy of your own.",
    )


async def _images(runtime: ContainerRuntime, policies: PolicySet | None) -> list[Finding]:
    found: list[Finding] = []
    wanted = {
        images.reference(policy.image): policy.build_command
        for policy in (map(policies.get, policies.names()) if policies else ())
    }
    for reference, command in sorted(wanted.items()):
        if await runtime.has_image(reference):
            found.append(ok("image", f"{reference} is current"))
        else:
            missing = f"{reference} is missing or out of date"
            found.append(fail("image", missing, f"`{command}`"))
    return found


def _disk(settings: Settings) -> Finding:
    folder = settings.state_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free < LEAST_DISK_BYTES:
        return warn("disk", detail, "Free 2 GiB: the journal and the images need room.")
    return ok("disk", detail)
