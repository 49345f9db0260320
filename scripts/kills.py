"""``make kills``: a controller is killed at random moments, and what the next one makes of it.

While sessions are opened and closed, kernels are copied, and cells and commands run, a real
``sandbox serve`` is killed with SIGKILL and started again, time after time. Each time every
container must be that of a live session of the journal, every live session must have its container,
whatever a caller had heard of must be there, branches and checkpoints among it, and running cells
and commands must go on to their end. ``--seed`` repeats the moments, as far as time can be.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import docker
import httpx2
from mcp import Client

from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX
from tests.support.served import Served, close_all, serve

LINES = 6
CELL = f"import time\nfor n in range({LINES}):\n    print(n, flush=True)\n    time.sleep(0.3)"
EXPECTED = "\n".join(map(str, range(LINES)))
COMMAND = f"for n in $(seq 0 {LINES - 1}); do echo $n; sleep 0.3; done; exit 3"
HELD = "print(held)"
COPIES = 3
NOT_BEGUN = "before this cell ran"
UNKNOWN = "not known whether it ran"
LATEST_KILL_S = 2.5
KEPT_SESSIONS = 2
"""So many live on from one kill to the next, at most."""
AGREED_S = 30.0
"""The engine may still be making what a killed controller has asked for."""
ENDED_S = 60.0


@dataclass
class Report:
    """What came of the kills."""

    kills: int = 0
    sessions: int = 0
    """Taken back."""
    cells: int = 0
    """That ran over a kill, or ended in it, and were found again."""
    not_begun: int = 0
    """Cells that waited when the kill came; they are told to be lost, and have run nothing."""
    commands: int = 0
    """That ran over a kill, or ended in it, and were found again with all that they wrote."""
    not_known: int = 0
    """Commands that the kill hit as they were started; that is what is told of them."""
    copies: int = 0
    """Branches and checkpoints of kernels that were there again, with what they held."""
    cut_short: int = 0
    """Openings that a kill hit."""
    removed: int = 0
    """Containers that were nobody's."""
    faults: list[str] = field(default_factory=list[str])

    def line(self) -> str:
        """All of it in one line."""
        verdict = f"{len(self.faults)} FAULTS" if self.faults else "zero orphans, nothing lost"
        return (
            f"{self.kills} kills: {self.sessions} sessions taken back, {self.cells} cells went on, "
            f"{self.not_begun} had not begun, {self.commands} commands went on, "
            f"{self.not_known} were hit as they began, {self.copies} copies of kernels kept, "
            f"{self.cut_short} openings cut short, {self.removed} containers of nobody removed: "
            f"{verdict}"
        )


@dataclass
class Heard:
    """What callers know of, so that it must outlive a kill."""

    sessions: set[str] = field(default_factory=set[str])
    executions: list[str] = field(default_factory=list[str])
    commands: list[str] = field(default_factory=list[str])
    copied_in: str = ""
    """The session in which a kernel was copied."""
    branches: list[str] = field(default_factory=list[str])
    checkpoints: list[str] = field(default_factory=list[str])
    of_a_cell: anyio.Event = field(default_factory=anyio.Event)


def claims(state: Path) -> dict[str, tuple[str, str]]:
    """The live claims of the journal: session and state, by sandbox."""
    path = state / "controllers/serve/state.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        rows = db.execute(
            "SELECT sandbox_id, session_id, state FROM sessions WHERE state IN ('opening', 'open')"
        )
        return {sandbox_id: (session_id, told) for sandbox_id, session_id, told in rows}


def containers(state: Path) -> dict[str, str]:
    """The containers of the controller's slot: what each does, by sandbox."""
    owner = (state / "controllers/serve/owner").read_text().strip()
    with closing(docker.from_env()) as engine:
        wanted = {"label": f"{LABEL_OWNER}={owner}"}
        found = engine.api.containers(all=True, filters=wanted)
    return {each["Labels"][LABEL_SANDBOX]: each["State"] for each in found}


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must answer with an execution, however that ended."""
    result = await client.call_tool(tool, arguments)
    if result.structured_content is None or "status" not in result.structured_content:
        raise RuntimeError(str(result.content)[:300])
    return result.structured_content


async def structured(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed."""
    result = await client.call_tool(tool, arguments)
    if result.is_error or result.structured_content is None:
        raise RuntimeError(str(result.content)[:300])
    return result.structured_content


async def open_and_close(http: httpx2.AsyncClient, order: random.Random, heard: Heard) -> None:
    """Open sessions, and close some, until the controller is killed."""
    while True:
        answer = await http.post("/mcp/v1/sessions", json={"reuse": False})
        if answer.status_code != 201:
            await anyio.sleep(0.2)  # the policy's number of sessions is reached
            continue
        session_id = answer.json()["session_id"]
        if order.random() < 0.5:
            await http.delete(f"/mcp/v1/sessions/{session_id}")
        else:
            heard.sessions.add(session_id)


async def execute(client: Client, heard: Heard) -> None:
    """Start a command and two cells, one of which waits for the other."""
    command = await call(client, "run_command", command=COMMAND, wait=0)
    heard.sessions.add(command["session_id"])
    heard.commands.append(command["command_id"])
    for _ in range(2):
        cell = await call(client, "execute_code", code=CELL, wait=0)
        heard.sessions.add(cell["session_id"])
        heard.executions.append(cell["execution_id"])
        heard.of_a_cell.set()


async def copy(client: Client, heard: Heard) -> None:
    """Branch a kernel, and keep checkpoints of it."""
    opened = await structured(client, "open_session", reuse=False)
    here = {"session_id": opened["session_id"]}
    heard.sessions.add(here["session_id"])
    await structured(client, "execute_code", code="held = 7", **here)
    heard.copied_in = here["session_id"]
    for number in range(COPIES):
        made = await structured(client, "branch_kernel", **here)
        heard.branches.append(made["kernel_id"])
        made = await structured(client, "checkpoint_kernel", name=f"c{number}", **here)
        heard.checkpoints.append(made["checkpoint"])


async def until_killed(served: Served, order: random.Random, heard: Heard) -> None:
    """Be busy with a controller, and kill it in the middle of that."""

    async def whatever_comes(work: Any, *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception as exc:  # the controller dies meanwhile, which is what is tried
            if served.process.poll() is None:
                print(f"  {work.__name__}: {exc!s:.200}", file=sys.stderr)

    async with (
        served.http() as http,
        served.client(key="kills") as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(whatever_comes, open_and_close, http, order, heard)
        tasks.start_soon(whatever_comes, open_and_close, http, order, heard)
        tasks.start_soon(whatever_comes, execute, client, heard)
        tasks.start_soon(whatever_comes, copy, client, heard)
        if order.random() < 0.7:  # else some openings are under way, and nothing else
            with anyio.move_on_after(ENDED_S):
                await heard.of_a_cell.wait()
        await anyio.sleep(order.uniform(0.0, LATEST_KILL_S))
        served.process.kill()
        tasks.cancel_scope.cancel()
    await anyio.to_thread.run_sync(served.process.wait, 30)


async def agreed(state: Path, report: Report) -> dict[str, tuple[str, str]]:
    """Wait until journal and engine say the same, and return the claims."""
    end_s = time.monotonic() + AGREED_S
    while True:
        told = await anyio.to_thread.run_sync(claims, state)
        there = await anyio.to_thread.run_sync(containers, state)
        if told.keys() == there.keys() and set(there.values()) <= {"running"}:
            break
        if time.monotonic() > end_s:
            report.faults += [f"orphan {each}" for each in there.keys() - told.keys()]
            report.faults += [f"session without {each}" for each in told.keys() - there.keys()]
            report.faults += [f"{each} is {how}" for each, how in there.items() if how != "running"]
            break
        await anyio.sleep(0.2)
    report.faults += [
        f"session {session_id} is {how} for ever"
        for session_id, how in told.values()
        if how != "open"
    ]
    return told


async def look(served: Served, heard: Heard, report: Report) -> None:
    """See that what was there before the kill is there again, and nothing else."""
    told = await agreed(served.state, report)
    alive = {session_id for session_id, _ in told.values()}
    report.sessions += len(alive)
    report.faults += [f"session {each} is lost" for each in heard.sessions - alive]
    async with served.client(key="kills") as client:
        for execution_id in heard.executions:
            with anyio.fail_after(ENDED_S):
                result = {"status": "running"}
                while result["status"] in ("running", "queued"):
                    result = await call(client, "get_execution", execution_id=execution_id, wait=10)
            text = result["text"]
            if (result["status"], text) == ("ok", EXPECTED):
                report.cells += 1
            elif (result["status"], text) == ("lost", "") and NOT_BEGUN in result["reason"]:
                report.not_begun += 1
            else:
                report.faults.append(f"cell {execution_id}: {result['status']} with {text!r:.80}")
        for command_id in heard.commands:
            await look_at_command(client, command_id, report)
        await look_at_copies(client, heard, report)
    async with served.http() as http:
        for session_id in sorted(alive)[KEPT_SESSIONS:]:
            await http.delete(f"/mcp/v1/sessions/{session_id}")


async def look_at_copies(client: Client, heard: Heard, report: Report) -> None:
    """See that each copy of a kernel that was told of is there, and holds what it must."""
    here = {"session_id": heard.copied_in}
    for kernel_id in heard.branches:
        with anyio.fail_after(ENDED_S):
            result = await call(client, "execute_code", code=HELD, kernel_id=kernel_id, **here)
        note_copy(f"branch {kernel_id}", result, report)
    for name in heard.checkpoints:
        with anyio.fail_after(ENDED_S):
            await structured(client, "rollback_kernel", name=name, **here)
            result = await call(client, "execute_code", code=HELD, **here)
        note_copy(f"checkpoint {name}", result, report)


def note_copy(which: str, result: dict[str, Any], report: Report) -> None:
    """Count a copy of a kernel, or note what is wrong with it."""
    if (result["status"], result["text"]) == ("ok", "7"):
        report.copies += 1
    else:
        report.faults.append(f"{which}: {result['status']} with {result['text']!r:.80}")


async def look_at_command(client: Client, command_id: str, report: Report) -> None:
    """See that a command went on with all it wrote, or is told to have been hit as it began."""
    with anyio.fail_after(ENDED_S):
        result = {"status": "running"}
        while result["status"] == "running":
            result = await call(client, "get_command", command_id=command_id, wait=10)
    told = result["status"], result.get("exit_code"), result["stdout"]
    if told == ("exited", 3, f"{EXPECTED}\n"):
        report.commands += 1
    elif told == ("lost", None, "") and UNKNOWN in result["reason"]:
        report.not_known += 1
    else:
        report.faults.append(f"command {command_id}: {told!r:.80} {result.get('reason')}")


async def kills(folder: Path, times: int, order: random.Random) -> Report:
    """Kill a controller so many times."""
    report, heard = Report(), Heard()
    for number in range(times + 1):
        with serve(folder) as served:
            try:
                await look(served, heard, report)
            except Exception:  # whatever it is, the next kill comes
                report.faults.append(f"after kill {number}: {traceback.format_exc()}")
            if number == times:
                await anyio.to_thread.run_sync(close_all, served)
                report.faults += [f"left: {each}" for each in containers(served.state)]
                break
            heard = Heard()
            await until_killed(served, order, heard)
        report.kills += 1
        told, there = claims(folder / "state"), containers(folder / "state")
        opening = {each for each, (_, how) in told.items() if how == "opening"}
        report.cut_short += len(opening)
        report.removed += len(there.keys() & opening) + len(there.keys() - told.keys())
        print(f"kill {report.kills}: {len(there)} containers, {len(told)} claims", flush=True)
    return report


def main(words: Sequence[str] | None = None) -> int:
    """Kill, and look; 1 when something was not as it must be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        order = random.Random(wanted.seed)  # noqa: S311  # moments
        report = anyio.run(kills, Path(folder), wanted.times, order)
    print(*report.faults, report.line(), sep="\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
