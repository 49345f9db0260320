"""The driver's end of the conversation with an adapter (``adapters/loop.py`` is the other)."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 60


class AdapterFailed(Exception):
    """An operation went wrong; the message is the contender's."""


class AdapterLacks(Exception):
    """The contender does not have that operation; the message says what it has instead."""


class AdapterGone(AdapterFailed):
    """The adapter's process ended, or was ended since it did not answer."""

    is_noted = False
    """Whether it is said already of what was measured."""


@dataclass(frozen=True)
class Answer:
    """What an operation yielded, and how long it took."""

    seconds: float
    value: Any


class Adapter:
    """A running adapter. Ask it one thing at a time."""

    def __init__(self, command: Sequence[str], log: Path, variables: Mapping[str, str]) -> None:
        """Start it; what it prints goes into the file ``log``."""
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **variables},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                start_new_session=True,  # it is ended as a whole
            )
        self._questions = cast(IO[str], self._process.stdin)
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, operation: str, timeout_s: float = 120, **arguments: Any) -> Answer:
        """Have it do something.

        Raises:
            AdapterLacks: The contender has no such thing.
            AdapterFailed: It went wrong.
            AdapterGone: There was no answer; the process is ended then.
        """
        try:
            question = {"operation": operation, "arguments": arguments}
            self._questions.write(json.dumps(question) + "\n")
            self._questions.flush()
            line = self._lines.get(timeout=timeout_s)
        except (OSError, ValueError) as exc:  # the latter: its pipe is closed here
            raise AdapterGone(f"{operation}: its process has ended") from exc
        except queue.Empty:
            self.end()
            raise AdapterGone(f"{operation}: no answer in {timeout_s:.0f} s") from None
        if not line:
            self._lines.put("")  # so that nobody waits for it again
            raise AdapterGone(f"{operation}: its process has ended")
        answer = json.loads(line)
        if "lacking" in answer:
            raise AdapterLacks(answer["lacking"])
        if "error" in answer:
            raise AdapterFailed(f"{operation}: {answer['error']}")
        return Answer(answer["seconds"], answer["value"])

    def stop(self) -> None:
        """Have it undo what it has started, and end it."""
        with suppress(AdapterFailed):
            if self.is_running:
                self.ask("stop", timeout_s=STOP_TIMEOUT_S)
        self.end()

    def end(self) -> None:
        """End its process and those that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        with suppress(OSError):  # what it has not read any more
            self._questions.close()

    def _read(self) -> None:
        with cast(IO[str], self._process.stdout) as answers:
            for line in answers:
                self._lines.put(line)
        self._lines.put("")
