"""A broker as people run it: ``sandbox broker`` in a process of its own, before the real engine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .served import START_TIMEOUT_S, STOP_TIMEOUT_S, environment


@dataclass
class BrokerProcess:
    """A broker that can be killed and started again."""

    folder: Path
    max_sessions: int = 100
    runtime: str | None = None
    """Other than that of the tests; empty for what policies prefer."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        return self.folder / "broker.sock"

    @property
    def address(self) -> str:
        return f"broker://{self.path}"

    def start(self, *words: str) -> None:
        """Start it and wait until it listens."""
        with (self.folder / "broker.log").open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandbox", "broker", "--socket", str(self.path), *words],
                env=environment(
                    self.folder / "broker-state",
                    **({} if self.runtime is None else {"SANDBOX_RUNTIME": self.runtime}),
                    SANDBOX_MAX_SESSIONS=str(self.max_sessions),
                ),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.log().count(f"at {self.address}"):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def kill(self) -> None:
        """What an out-of-memory killer does to it; its socket's file stays."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(STOP_TIMEOUT_S)
        (self.folder / "broker.log").unlink()

    def log(self) -> str:
        return (self.folder / "broker.log").read_text()


@contextmanager
def broker_process(
    folder: Path, *, max_sessions: int = 100, runtime: str | None = None
) -> Iterator[BrokerProcess]:
    """A running broker until the end of the block."""
    broker = BrokerProcess(folder, max_sessions, runtime)
    broker.start()
    try:
        yield broker
    finally:
        if broker.process is not None and broker.process.poll() is None:
            broker.process.terminate()
            broker.process.wait(STOP_TIMEOUT_S)
