"""``make storm``: three hostile principals beside two honest ones, and what came of it.

The hostile ones make every attack of ``tests/support/attacks.py`` and ``hostattacks.py`` in random
order. The honest ones run cells, files, commands and terminals through the official client and
check each answer. At the end they must have been served, the record be whole, the controller's
memory be back, and nothing be left. ``--seed`` repeats an order; Control-C ends a storm early and
cleans up.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import docker

from sandbox.audit import verify
from sandbox.container.labels import LABEL_OWNER
from scripts.leftovers import processes
from tests.support.attacks import MEMORY, TIME, Attack, Attacker
from tests.support.hostattacks import HOST, SHARES
from tests.support.neighbour import (
    ALL_SCOPES,
    MIB,
    WORKS,
    Answer,
    Controller,
    Neighbour,
    Usage,
    beside,
)
from tests.support.world import close_everything, policies, sink

HOSTILE = ("mallory", "trudy", "oscar")
HONEST = ("alice", "bob")
ATTACKS: tuple[Attack, ...] = (*TIME, *MEMORY, *HOST, *SHARES)
ATTACK_S = 90.0
"""After which one is given up."""
CALM_ANSWERS = 5
WORST_S = 10.0
"""Of an honest answer, which may be a cell that waits for its processor beside three attackers."""
KEPT_BYTES = 200 * MIB
GONE_S = 60.0


@dataclass
class Report:
    """What came of a storm."""

    answers: dict[str, list[Answer]] = field(default_factory=dict[str, list[Answer]])
    attacks: Counter[str] = field(default_factory=Counter[str])
    given_up: Counter[str] = field(default_factory=Counter[str])
    kept_bytes: int = 0
    peak_bytes: int = 0
    left: list[str] = field(default_factory=list[str])
    record: str = ""

    def faults(self) -> list[str]:
        """What was not as it must be; nothing after a storm that did no harm."""
        found: list[str] = []
        for who, answers in self.answers.items():
            wrong = Counter(answer.fault for answer in answers if answer.fault)
            found += [f"{who}: {count} times {fault}" for fault, count in wrong.items()]
            if len(answers) < CALM_ANSWERS:
                found.append(f"{who} had {len(answers)} answers only")
            if (worst_s := max((a.took_s for a in answers), default=0)) > WORST_S:
                found.append(f"{who} waited {worst_s:.1f} s")
        if len(self.answers) < len(HONEST):
            found.append("the honest were not heard")
        if not self.attacks:
            found.append("no attack was made")
        if self.kept_bytes > KEPT_BYTES:
            found.append(f"the controller has kept {self.kept_bytes / MIB:.0f} MiB")
        found += [f"left: {each}" for each in self.left]
        found += [self.record] if self.record else []
        return found

    def lines(self) -> list[str]:
        """The report, for people."""
        found = [f"{sum(self.attacks.values())} attacks:"]
        for name, count in sorted(self.attacks.items()):
            cut = f", {self.given_up[name]} without their whole effect" * bool(self.given_up[name])
            found.append(f"  {count:3} {name}{cut}")
        for who, answers in self.answers.items():
            took = sorted(answer.took_s for answer in answers) or [0.0]
            p99 = took[min(len(took) - 1, len(took) * 99 // 100)]
            found.append(
                f"{who}: {len(answers)} answers, p50 {statistics.median(took):.2f} s, "
                f"p99 {p99:.2f} s, max {took[-1]:.2f} s"
            )
        found.append(
            f"controller: at most +{self.peak_bytes / MIB:.0f} MiB, "
            f"+{self.kept_bytes / MIB:.0f} MiB at the end"
        )
        found += [f"NOT AS IT MUST BE: {fault}" for fault in self.faults()] or ["all is well"]
        return found


async def hostile(attacker: Attacker, order: random.Random, end_s: float, report: Report) -> None:
    """Make one attack after another until the time is over."""
    while time.monotonic() < end_s:
        attack = order.choice(ATTACKS)
        report.attacks[attack.__name__] += 1
        try:
            with anyio.fail_after(ATTACK_S):
                await attack(attacker)
        except Exception as exc:  # refused, cut off or given up: an attack may fail as it likes
            report.given_up[attack.__name__] += 1
            print(f"  {attack.__name__}: {type(exc).__name__}: {exc!s:.200}", file=sys.stderr)


async def storm(folder: Path, seconds: float, seed: int) -> Report:
    """Let a storm pass over a controller of its own, and look at what it has left."""
    report = Report()
    before = set(processes())
    with ExitStack() as stack:
        port = stack.enter_context(sink())
        controller = Controller(folder, **policies(folder, port))
        stack.callback(controller.stop)
        await anyio.to_thread.run_sync(controller.start)
        honest: dict[str, Neighbour] = {}
        for who in HONEST:
            token = controller.token(who)
            path = folder / f"answers-{who}"
            honest[who] = stack.enter_context(beside(controller.served.url, token, path, WORKS))
        attackers = [
            Attacker(
                controller.served.base,
                controller.token(who, ALL_SCOPES),
                controller.token(who, "files:read"),
                target=f"127.0.0.1:{port}",
            )
            for who in HOSTILE
        ]
        for each in honest.values():
            await each.more(2)
        usage = Usage(controller.served.process.pid)
        start_bytes, end_s = usage.begin(), time.monotonic() + seconds
        try:
            async with anyio.create_task_group() as tasks:
                for number, attacker in enumerate(attackers):
                    order = random.Random(seed * len(HOSTILE) + number)  # noqa: S311  # an order
                    tasks.start_soon(hostile, attacker, order, end_s, report)
        finally:
            with anyio.CancelScope(shield=True):
                for who, each in honest.items():
                    await each.more(CALM_ANSWERS)
                    report.answers[who] = each.answers()
                report.peak_bytes = usage.peak() - start_bytes
                for each in (controller.neighbour, *honest.values()):
                    each.stop()  # or it would open its session again
                await anyio.to_thread.run_sync(close_everything, controller)
                report.kept_bytes = usage.resident() - start_bytes
                owner = (controller.served.state / "controllers/serve/owner").read_text().strip()
                report.left += await containers_of(owner)
    verdict = verify(folder / "state/controllers/serve/audit", "serve")
    report.record = "" if verdict.is_intact else f"the record is not whole: {verdict.fault}"
    report.left += sorted(set(processes()) - before)
    return report


async def containers_of(owner: str) -> list[str]:
    """The containers of a controller that are there still, after some time to go."""
    with closing(docker.from_env()) as engine:
        end_s = time.monotonic() + GONE_S
        while True:
            wanted = {"label": f"{LABEL_OWNER}={owner}"}
            found = engine.api.containers(all=True, filters=wanted)
            if not found or time.monotonic() > end_s:
                return [f"container {each['Id'][:12]}" for each in found]
            await anyio.sleep(0.5)


def main(words: Sequence[str] | None = None) -> int:
    """Run a storm; 1 when something was not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="storm-") as folder:
        try:
            report = anyio.run(storm, Path(folder), wanted.minutes * 60, wanted.seed)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 1
    print(f"seed {wanted.seed}, {wanted.minutes:g} minutes", *report.lines(), sep="\n")
    return 1 if report.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
