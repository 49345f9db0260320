"""`sandbox doctor`: can this machine run sandboxes, and if not, what is to be done."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from typing import Literal

import anyio
from rich.console import Console
from rich.text import Text

from sandbox import images
from sandbox.cli import exits
from sandbox.cli.wiring import container_runtime, policy_set, state_dir
from sandbox.config import Settings
from sandbox.errors import SandboxError
from sandbox.policy import PolicySet, seccomp_profile
from sandbox.runtimes.base import ContainerRuntime, EngineInfo

OLDEST_ENGINE = (20, 10)
LEAST_DISK_BYTES = 2 * 1024**3
GIB = 1024**3
START_ENGINE = "`systemctl start docker`, or say where it is with DOCKER_HOST or --engine."
STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Args:
        name: What was looked at.
        verdict: ``fail`` stands in the way of sandboxes, ``warn`` does not.
        detail: What was found.
        remedy: What to do about it; empty when nothing needs to be done.
    """

    name: str
    verdict: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""


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
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
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
    yield _checked("state", lambda: f"kept in {state_dir(settings)}")
    policies: PolicySet | None = None
    try:
        policies = policy_set(settings)
        seccomp_profile()
        yield Finding("policies", "ok", f"{', '.join(policies.names())}; all valid")
    except SandboxError as exc:
        yield Finding("policies", "fail", exc.message, exc.remedy or "`sandbox policy check FILE`")
    found: list[Finding] = []
    try:
        runtime = container_runtime(settings)
        try:
            engine = await runtime.engine()
            found = [*_engine(engine, settings, policies), *await _images(runtime, policies)]
        finally:
            await runtime.aclose()
    except SandboxError as exc:
        yield Finding("engine", "fail", exc.message, exc.remedy or START_ENGINE)
    for finding in found:
        yield finding
    yield _disk(settings)


def _engine(engine: EngineInfo, settings: Settings, policies: PolicySet | None) -> list[Finding]:
    return [
        _version(engine),
        Finding("cgroup", "ok", f"version {engine.cgroup_version}")
        if engine.cgroup_version in (1, 2)
        else Finding("cgroup", "fail", "none", "Give the engine a kernel with control groups."),
        Finding("seccomp", "ok", "on, with the profile of this package")
        if engine.seccomp
        else Finding(
            "seccomp",
            "fail",
            "the engine has no seccomp",
            "Use an engine and a kernel with seccomp (CONFIG_SECCOMP_FILTER).",
        ),
        *_runtimes(engine, settings, policies),
        _memory(engine, policies),
    ]


def _version(engine: EngineInfo) -> Finding:
    detail = f"Docker Engine {engine.version} (API {engine.api_version}, {engine.architecture})"
    numbers = tuple(int(part) for part in engine.version.split(".")[:2] if part.isdecimal())
    if numbers and numbers < OLDEST_ENGINE:
        return Finding("engine", "fail", detail, "Update it to 20.10 or newer.")
    return Finding("engine", "ok", detail)


def _runtimes(engine: EngineInfo, settings: Settings, policies: PolicySet | None) -> list[Finding]:
    found: list[Finding] = []
    forced = settings.runtime
    if forced and forced not in engine.runtimes:
        found.append(
            Finding(
                "runtime",
                "fail",
                f"the setting forces {forced}, which the engine does not have",
                f"Register {forced} with the engine, or unset SANDBOX_RUNTIME.",
            )
        )
    for name in ("runc", "runsc"):
        if name in engine.runtimes:
            found.append(Finding(name, "ok", "known to the engine"))
        elif name == "runc":
            found.append(Finding(name, "warn", "unknown to the engine", "Install runc."))
        else:
            found.append(
                Finding(
                    name,
                    "ok" if forced != name else "warn",
                    "not there; it is optional (gVisor, a stronger wall between code and kernel)",
                )
            )
    for policy in [policies.get(name) for name in policies.names()] if policies else []:
        if not set(policy.runtimes) & set(engine.runtimes):
            found.append(
                Finding(
                    "runtime",
                    "fail",
                    f"the policy {policy.name} needs {' or '.join(policy.runtimes)}",
                    "Register one of them with the engine.",
                )
            )
    return found


def _memory(engine: EngineInfo, policies: PolicySet | None) -> Finding:
    detail = f"{engine.memory_bytes / GIB:.1f} GiB, {engine.cpus} CPUs"
    wanted = policies.get().limits.memory_bytes if policies else GIB
    if engine.memory_bytes < 2 * wanted:
        return Finding(
            "memory",
            "warn",
            f"{detail}; one session of the default policy may take {wanted / GIB:.1f} GiB",
            "Lower `limits.memory` in a policy of your own.",
        )
    return Finding("memory", "ok", detail)


async def _images(runtime: ContainerRuntime, policies: PolicySet | None) -> list[Finding]:
    wanted = {policies.get(name).image for name in policies.names()} if policies else set[str]()
    found: list[Finding] = []
    for name in sorted(wanted):
        reference = images.reference(name)
        if await runtime.has_image(reference):
            found.append(Finding("image", "ok", f"{reference} is current"))
        else:
            found.append(
                Finding(
                    "image",
                    "fail",
                    f"{reference} is missing or out of date",
                    f"`sandbox image build {name}`",
                )
            )
    return found


def _disk(settings: Settings) -> Finding:
    folder = settings.state_dir
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / GIB:.1f} GiB free at {folder}"
    if free < LEAST_DISK_BYTES:
        return Finding("disk", "warn", detail, "Free 2 GiB: the journal and the images need room.")
    return Finding("disk", "ok", detail)


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", check())
    except SandboxError as exc:
        return Finding(name, "fail", exc.message, exc.remedy)
