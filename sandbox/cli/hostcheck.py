"""What `sandbox doctor` finds of the host: what it has for all sessions, how its kernel is set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sandbox.cli.findings import Finding, ok, warn
from sandbox.config import Settings
from sandbox.policy import PolicySet
from sandbox.resources import policies as policies_folder
from sandbox.runtimes.base import EngineInfo
from sandbox.sessions import overcommit

PROC_SYS = Path("/proc/sys")


def host_findings(
    engine: EngineInfo, settings: Settings, policies: PolicySet | None
) -> Iterator[Finding]:
    """Each of them; without policies where those cannot be read."""
    yield _apparmor(engine)
    if policies is not None:
        yield promised(engine, settings, policies)
    if overcommit.of_host(engine).files:  # its kernel is this machine's
        yield from _kernel_log()


def promised(engine: EngineInfo, settings: Settings, policies: PolicySet) -> Finding:
    """Whether the host has what its sessions may use together."""
    host = overcommit.of_host(engine)
    one = overcommit.largest(policies.get(name) for name in policies.names())
    short = overcommit.missing(host, one * settings.max_sessions)
    together = f"{settings.max_sessions} sessions (max_sessions) of the largest policies"
    if not short:
        return ok("promised", f"the host has what {together} may use")
    detail = f"{together} may use {'; '.join(short)}"
    if settings.overcommit == "refuse":
        return ok("promised", f"{detail}; what would pass that is refused (overcommit)")
    return warn(
        "promised", detail, "Lower max_sessions or the policies' limits, or set overcommit: refuse."
    )


def _apparmor(engine: EngineInfo) -> Finding:
    if not engine.has_apparmor:
        return ok("apparmor", "the engine has none; seccomp and the rest do without")
    if engine.apparmor:
        return ok("apparmor", f"on, with the profile {engine.apparmor}")
    return warn(
        "apparmor",
        "on, with the engine's own profile",
        f"`apparmor_parser -r -W {policies_folder() / 'apparmor' / 'sandbox'}` on the engine's "
        "host, then set apparmor: sandbox.",
    )


def _kernel_log() -> Iterator[Finding]:
    """Whether a program that crashes writes into the host's log under a name of its own choice."""
    for name, path in (
        ("debug.exception-trace", PROC_SYS / "debug/exception-trace"),
        ("kernel.print-fatal-signals", PROC_SYS / "kernel/print-fatal-signals"),
    ):
        try:
            is_on = path.read_text().strip() != "0"
        except OSError:
            continue
        if is_on:
            yield warn(
                "kernel log",
                f"{name} is on: programs that crash write their names into the host's kernel log",
                f"`sysctl -w {name}=0`, where the log is read by machines.",
            )
