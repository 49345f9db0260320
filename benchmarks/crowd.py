"""Many lean clients at once: a controller that lets them in, and sessions of several principals.

Each client has a connection and, while it calls, a thread of its own. What they do together begins
together, and ends when the last has ended.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.lean import LeanClient
from benchmarks.measures import check
from scripts.controller import Controller
from tests.support.neighbour import ALL_SCOPES
from tests.support.served import Served, sandbox, serve

PRINCIPALS = 4
OPENING = 8
"""Clients that open or close sessions at once when many are wanted: as many as are made at once."""
POLICY = """\
version: 1
description: What load is measured under.
image: python
runtime: {prefer: [runc, runsc]}
limits:
  {memory: 512MiB, cpus: 1, pids: 64, sessions: 1000, kernels: 4, idle: 8h, lifetime: 24h}
workspace: {size: 64MiB}
tmp: {size: 32MiB}
network: none
tools: ["*"]
"""
COLD, READY = "load", "ready"
"""Policies that are alike but for the pool."""

T = TypeVar("T")


class House:
    """A served controller with room for a crowd.

    Args:
        tokens: One of each principal.
        admin: A token that may look at the pool and close everybody's sessions.
    """

    def __init__(self, served: Served, tokens: Sequence[str], admin: str) -> None:
        self.served = served
        self.tokens = tokens
        self._admin = Controller(served.base, admin)

    @property
    def pid(self) -> int:
        """The controller's process."""
        return self.served.process.pid

    def caller(self, number: int = 0) -> Controller:
        """The controller as one of the principals, in turn, calls it."""
        return Controller(self.served.base, self.tokens[number % len(self.tokens)])

    def shelf(self, policy: str) -> dict[str, Any]:
        """What the pool says of a policy; empty when it keeps nothing of it."""
        with LeanClient(self._admin) as client:
            shelves = client.get("admin/pool")["policies"]
        return next((shelf for shelf in shelves if shelf["policy"] == policy), {})

    def close_everything(self) -> None:
        """Close the sessions of all principals."""
        with LeanClient(self._admin) as client:
            listed = client.get("admin/sessions")["sessions"]

        def close(session_id: str) -> None:
            with LeanClient(self._admin) as client:
                client.delete(f"admin/sessions/{session_id}")

        with ThreadPoolExecutor(OPENING) as pool:
            list(pool.map(close, [session["session_id"] for session in listed]))


@contextmanager
def house(
    folder: Path | None = None, *, ready: int = 0, program: str = "sandbox", **env: str
) -> Iterator[House]:
    """Serve a controller for a crowd until the end of the block, and close what is open then.

    Args:
        folder: For its state and log; None: one that goes with it.
        ready: How many sandboxes of the policy ``READY`` are kept ready.
        program: The module that is run.
        env: More settings, as variables.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="crowd-") as made:
            with house(Path(made), ready=ready, program=program, **env) as found:
                yield found
            return
    policies = folder / "policies"
    policies.mkdir()
    (policies / f"{COLD}.yaml").write_text(f"{POLICY}pool: {{min: 0, max: 0}}\n")
    (policies / f"{READY}.yaml").write_text(f"{POLICY}pool: {{min: {ready}, max: {ready}}}\n")
    settings = {
        "SANDBOX_POLICIES": str(policies),
        "SANDBOX_DEFAULT_POLICY": COLD,
        "SANDBOX_MAX_SESSIONS": "1000",
        "SANDBOX_POOL": "true" if ready else "false",
        "SANDBOX_LOG_LEVEL": "warning",
    }
    with serve(folder, program=program, **{**settings, **env}) as served:
        tokens = [token(served, f"crowd-{number}") for number in range(PRINCIPALS)]
        found = House(served, tokens, token(served, "warden", "session,admin"))
        try:
            yield found
        finally:
            if served.process.poll() is None:
                found.close_everything()


def token(served: Served, principal: str, scopes: str = ALL_SCOPES) -> str:
    """A token of a principal's own, made as an operator does."""
    words = ("--principal", principal, "--scopes", scopes, "--policies", "*", "--json")
    done = sandbox(served.state, "token", "create", *words)
    check(done.returncode == 0, done.stderr)
    return json.loads(done.stdout)["token"]


@dataclass(frozen=True)
class Seat:
    """A session, and a client of its principal with a connection of its own."""

    caller: Controller
    client: LeanClient
    session_id: str

    def run(self, code: str, **arguments: Any) -> dict[str, Any]:
        """Run a cell that must succeed."""
        return self.client.run(code, session_id=self.session_id, **arguments)

    def close(self) -> None:
        """Close the session and the connection."""
        self.client.call("close_session", session_id=self.session_id)
        self.client.close()


def connected(caller: Controller) -> LeanClient:
    """A client that has its connection."""
    client = LeanClient(caller)
    client.call("list_sessions")
    return client


def seat(caller: Controller, policy: str = COLD, client: LeanClient | None = None) -> Seat:
    """Open a session."""
    client = client or LeanClient(caller)
    opened = client.call("open_session", policy=policy, reuse=False)
    return Seat(caller, client, opened["session_id"])


def seats(house: House, count: int, policy: str = COLD) -> list[Seat]:
    """Open so many sessions, of all principals in turn.

    Raises:
        MeasurementFailed: One of them cannot be opened; none is open then.
    """
    with ThreadPoolExecutor(OPENING) as pool:
        opening = [pool.submit(seat, house.caller(number), policy) for number in range(count)]
    if failed := next((each.exception() for each in opening if each.exception()), None):
        leave([each.result() for each in opening if not each.exception()])
        raise failed
    return [each.result() for each in opening]


def leave(taken: Sequence[Seat]) -> None:
    """Close these sessions."""
    with ThreadPoolExecutor(OPENING) as pool:
        list(pool.map(Seat.close, taken))


def together(works: Sequence[Callable[[], T]]) -> list[T]:
    """Do all of this at once, each in a thread of its own, and return what each returns.

    Raises:
        Exception: What the first of them that failed raised, when all have ended.
    """
    begin = threading.Barrier(len(works))

    def done(work: Callable[[], T]) -> T:
        begin.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(done, work) for work in works]]
