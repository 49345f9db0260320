"""`sandbox verify`: prove on this machine that policies are enforced, and show the proof."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass

import anyio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox.audit import recorded
from sandbox.cli import exits, logs
from sandbox.cli.tables import print_json
from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.container.checks import Check, NotProved
from sandbox.errors import SandboxError
from sandbox.server.grants import LOCAL
from sandbox.sessions.manager import SessionManager
from sandbox.sessions.models import Caller

ENGINE = "the engine says"
INSIDE = "measured inside"
MAX_CELL = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a proof: from which of the two sides, what must be, and what is."""

    source: str
    name: str
    expected: str
    found: str
    ok: bool


@dataclass(frozen=True, slots=True)
class PolicyProof:
    """What a session of a policy came to; with a reason when it is not proved."""

    policy: str
    runtime: str
    rows: tuple[Row, ...]
    reason: str = ""
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether the policy is proved to be enforced."""
        return not self.reason and bool(self.rows) and all(row.ok for row in self.rows)


def verify(settings: Settings, names: Sequence[str], *, as_json: bool) -> int:
    """Prove these policies, or all, print the proofs, and return the exit code.

    Raises:
        SandboxError: No controller can start here.
    """
    logs.configure("error")
    verdicts: list[PolicyProof] = []
    console = Console(highlight=False)

    async def prove() -> None:
        async with controller(settings, "run") as manager:
            async for verdict in _verdicts(manager, names):
                verdicts.append(verdict)
                if not as_json:
                    _print(console, verdict)

    anyio.run(prove)
    if as_json:
        print_json([{**asdict(verdict), "ok": verdict.ok} for verdict in verdicts])
    return exits.OK if all(verdict.ok for verdict in verdicts) else exits.FAILED


async def _verdicts(manager: SessionManager, names: Sequence[str]) -> AsyncIterator[PolicyProof]:
    for name in dict.fromkeys(names or manager.policies.names()):
        with recorded(manager.audit, "cli", "sandbox verify", {"policy": name}, LOCAL) as call:
            manager.audit.require()
            verdict = await _prove(manager, name)
            call.ended("ok" if verdict.ok else "failed", "proved" if verdict.ok else "not proved")
        yield verdict


async def _prove(manager: SessionManager, name: str) -> PolicyProof:
    """Open a session as any caller would; a session is open only once it is proved."""
    caller = Caller(LOCAL)
    try:
        session = await manager.open(caller, policy=name, reuse=False)
    except SandboxError as exc:
        checks = exc.checks if isinstance(exc, NotProved) else ()
        source = INSIDE if isinstance(exc, NotProved) and exc.is_measured else ENGINE
        return PolicyProof(name, "", _rows(source, checks), exc.message, exc.remedy)
    info = session.info(with_proof=True)
    measured = info.proof.checks if info.proof else ()
    rows = (*_rows(ENGINE, session.sandbox.inspected), *_rows(INSIDE, measured))
    await manager.close(caller, info.session_id)
    return PolicyProof(name, info.runtime, rows)


def _rows(source: str, checks: Sequence[Check]) -> tuple[Row, ...]:
    return tuple(Row(source, check.name, check.expected, check.found, check.ok) for check in checks)


def _print(console: Console, verdict: PolicyProof) -> None:
    if verdict.rows:
        table = Table("what", "must be", "is", "ok", title=verdict.policy, title_justify="left")
        table.columns[0].no_wrap = True
        source = ""
        for row in verdict.rows:
            if row.source != source:
                source = row.source
                table.add_section()
                table.add_row(Text(source, "bold"))
            cells = (Text(_cell(text)) for text in (row.name, row.expected, row.found))
            table.add_row(*cells, Text("yes", "green") if row.ok else Text("NO", "bold red"))
        console.print(table)
    right = sum(row.ok for row in verdict.rows)
    if verdict.ok:
        said = f"{verdict.policy}: proved under {verdict.runtime}, {right} of {right} checks"
        console.print(Text(said, "bold green"))
        return
    console.print(Text(f"{verdict.policy}: NOT PROVED. {verdict.reason}", "bold red"))
    if verdict.remedy:
        console.print(Text(f"→ {verdict.remedy}", "italic"))


def _cell(text: str) -> str:
    return text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]}…"
