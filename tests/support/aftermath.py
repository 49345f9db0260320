"""What is there when a fault is over: all that lives is somebody's, and nothing else is left.

Looked at from outside: the engine, the journal, the process table, what the controller tells its
callers, and what its process holds. The controller runs as ``tests.support.observed``.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import docker
import docker.errors
import psutil

from sandbox.container.labels import LABEL_OWNER, LABEL_SANDBOX, LABEL_UID
from scripts.kills import claims

from .served import Served

SETTLED_S = 40.0
"""The sweeper compares every ten seconds."""
KEPT_CONNECTIONS = 20
"""To the engine, and of clients: they stay open for the next call."""
NUMBERS = re.compile(r"[0-9a-f]{8,}|\d+")
UNFINISHED = re.compile(r"\.(new|tmp|part|partial)$|-journal$")


@dataclass(frozen=True)
class Held:
    """What a controller's process holds beside its memory."""

    tasks: Counter[str]
    threads: Counter[str]
    descriptors: Counter[str]
    children: Counter[str]
    files: frozenset[str]
    """Temporary ones, and unfinished ones of its state."""

    def beyond(self, before: Held) -> list[str]:
        """What there is more of than before."""
        found: list[str] = []
        for name in ("tasks", "threads", "descriptors", "children"):
            more = getattr(self, name) - getattr(before, name)
            if name == "tasks" and more["_shutdown_watcher"] == 1:
                del more["_shutdown_watcher"]  # one for all event streams, from the first one on
            if name == "descriptors" and more["socket"] <= KEPT_CONNECTIONS:
                del more["socket"]
            found += [f"{count} more of {name}: {what}" for what, count in more.items() if what]
        return found + [f"left: {each}" for each in sorted(self.files - before.files)]


class Aftermath:
    """Looks at one controller, however often it is started anew.

    Args:
        folder: Of its state; see :func:`tests.support.served.serve`.
        engine: The address of its engine; empty for the local one.
    """

    def __init__(self, folder: Path, engine: str = "") -> None:
        self._folder = folder
        self._engine = engine
        self._uids: set[int] = set()
        """Of all sandboxes that were seen."""
        self._before: Held | None = None

    @property
    def temporary(self) -> Path:
        """The folder of the controller's temporary files."""
        path = self._folder / "temporary"
        path.mkdir(exist_ok=True)
        return path

    def containers(self) -> dict[str, dict[str, Any]]:
        """The containers of the controller, as the engine lists them, by sandbox."""
        with closing(self.client()) as engine:
            owner = (self._folder / "state/controllers/serve/owner").read_text().strip()
            wanted = {"label": f"{LABEL_OWNER}={owner}"}
            found = engine.api.containers(all=True, filters=wanted)
        self._uids |= {int(each["Labels"][LABEL_UID]) for each in found}
        return {each["Labels"][LABEL_SANDBOX]: each for each in found}

    def container_of(self, session_id: str) -> str:
        """The engine's id of a session's container."""
        told = claims(self._folder / "state")
        (sandbox_id,) = (each for each, (session, _) in told.items() if session == session_id)
        return self.containers()[sandbox_id]["Id"]

    def client(self) -> docker.DockerClient:
        """A client of the engine; closed by whoever asked for it."""
        return docker.DockerClient(self._engine) if self._engine else docker.from_env()

    # --- what the controller's process holds

    async def note(self, served: Served) -> None:
        """Remember what a controller holds that has served, and has no session."""
        await self.serves(served)
        with anyio.fail_after(SETTLED_S):
            while not is_full(await self._pool(served)):
                await anyio.sleep(0.1)
        self._before = await self._held(served)

    async def _pool(self, served: Served) -> list[dict[str, Any]]:
        async with served.http() as http:
            return (await http.get("/mcp/v1/admin/pool")).json()["policies"]

    async def _held(self, served: Served) -> Held:
        told = self._folder / "observed.told"
        told.unlink(missing_ok=True)
        os.kill(served.process.pid, signal.SIGUSR1)
        with anyio.fail_after(20):
            while not told.exists():
                await anyio.sleep(0.01)
        what = json.loads(told.read_text())
        process = psutil.Process(served.process.pid)
        return Held(
            Counter(what["tasks"]),
            Counter(what["threads"]),
            descriptors(served.process.pid),
            Counter(" ".join(child.cmdline()) for child in process.children(recursive=True)),
            frozenset(self._left_files()),
        )

    def _left_files(self) -> list[str]:
        found = [str(path) for path in self.temporary.rglob("*")]
        state = self._folder / "state"
        return found + [str(path) for path in state.rglob("*") if UNFINISHED.search(path.name)]

    # --- what must be so

    async def serves(self, served: Served) -> None:
        """A new session opens, answers and closes."""
        async with served.http() as http:
            answer = await http.post("/mcp/v1/sessions", json={"reuse": False})
            assert answer.status_code == 201, answer.text
            url = f"/mcp/v1/sessions/{answer.json()['session_id']}"
            await anyio.to_thread.run_sync(self.containers)
            answer = await http.post(f"{url}/executions", json={"code": "6 * 7"})
            assert answer.json()["text"] == "42", answer.text
            answer = await http.delete(url)
            assert answer.json()["state"] == "closed", answer.text

    async def check(self, served: Served, live: Collection[str] = ()) -> None:
        """It serves, the sessions are these, and on the engine and the machine is what they need.

        Without sessions the controller's process holds what it held when that was noted.
        """
        await self.serves(served)
        end_s = time.monotonic() + SETTLED_S
        while wrong := await self._wrong(served, set(live)):
            assert time.monotonic() < end_s, "\n".join(wrong)
            await anyio.sleep(0.2)

    async def _wrong(self, served: Served, live: set[str]) -> list[str]:
        wrong: list[str] = []
        async with served.http() as http:
            listed = (await http.get("/mcp/v1/sessions")).json()["sessions"]
            told = {each["session_id"] for each in listed}
        pool = await self._pool(served)
        if told != live:
            wrong.append(f"told of {sorted(told)}, and there must be {sorted(live)}")
        wrong += await anyio.to_thread.run_sync(self._wrong_outside, live, sum_of(pool))
        if not live and self._before is not None and not wrong:
            wrong += (await self._held(served)).beyond(self._before)
        return wrong

    def _wrong_outside(self, live: set[str], waiting: int) -> list[str]:
        there, claimed = self.containers(), claims(self._folder / "state")
        wrong = [f"container {each} of nobody" for each in there.keys() - claimed.keys()]
        if len(wrong) <= waiting:
            wrong.clear()  # those of the pool
        wrong += [f"claim of {each} without container" for each in claimed.keys() - there.keys()]
        if {session for session, _ in claimed.values()} != live:
            wrong.append(f"claims are {claimed}, and the sessions {sorted(live)}")
        wrong += [f"{session} is {state}" for session, state in claimed.values() if state != "open"]
        uids: set[int] = set()
        for sandbox_id, each in there.items():
            uids.add(int(each["Labels"][LABEL_UID]))
            if each["State"] != "running":
                wrong.append(f"{sandbox_id} is {each['State']}")
            else:
                wrong += [f"{sandbox_id}: {fault}" for fault in self._faults_of(each["Id"])]
        for process in psutil.process_iter(["uids", "cmdline"]):
            uid = process.info["uids"].real if process.info["uids"] else 0
            if uid in self._uids - uids:
                wrong.append(f"process {process.pid} of a sandbox that is gone: {process.info}")
        return wrong

    def _faults_of(self, container_id: str) -> list[str]:
        """What a container has that it must not: more than one way in, a volume."""
        with closing(self.client()) as engine:
            try:
                told = engine.api.inspect_container(container_id)
                rows = engine.api.top(container_id)["Processes"]
            except docker.errors.APIError as exc:
                return [str(exc)]
        bridges = [row for row in rows if "bridge" in row[-1]]
        found = [f"mounts {each}" for each in told["Mounts"] if each["Type"] == "volume"]
        if len(bridges) > 1 or len(told["ExecIDs"] or ()) > 1:
            found.append(f"more than one way in: {bridges} {told['ExecIDs']}")
        return found


def is_full(shelves: list[dict[str, Any]]) -> bool:
    """Whether as many sandboxes are ready as there should be."""
    return all(each["ready"] >= each["target"] and not each["coming"] for each in shelves)


def sum_of(shelves: list[dict[str, Any]]) -> int:
    """How many containers the pool has, or is making."""
    return sum(each["ready"] + each["coming"] for each in shelves)


def descriptors(pid: int) -> Counter[str]:
    """The open descriptors of a process, by what they lead to."""
    found: Counter[str] = Counter()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(link)
        except OSError:
            continue  # closed meanwhile
        is_file = target.startswith("/")
        found[NUMBERS.sub("N", target) if is_file else target.partition(":")[0]] += 1
    return found
