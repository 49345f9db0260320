"""The adapter's end of the conversation with the driver: JSON lines, one answer to each question.

A question is ``{"operation": "run", "arguments": {…}}``; an answer has ``seconds``, which the
operation took, and its ``value``; or ``error``, what went wrong; or ``lacking``, what the contender
does not have. Standard library only, since it runs in every contender's environment.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN_LENGTH = 4000
"""Characters of an output that are told to the driver, beside how many there were."""


class Lacking(Exception):
    """The contender has no way to do that; the message says what it has instead."""


class Adapter:
    """A contender, by the operations that are measured. What it opens is a session."""

    def start(self, settings: Mapping[str, str]) -> None:
        """Do what is done once, before any session: import, start a server, fill a pool."""

    def stop(self) -> None:
        """Undo it."""

    def open(self) -> Any:
        """Open a session of its own, for which nothing of another one is seen."""
        raise NotImplementedError

    def run(self, session: Any, code: str) -> str:
        """Run Python code; what it printed."""
        raise NotImplementedError

    def output(self, session: Any, code: str) -> str:
        """Run code that prints much; all that it printed."""
        return self.run(session, code)

    def close(self, session: Any) -> None:
        """Close a session and remove what belongs to it."""
        raise NotImplementedError

    def put(self, session: Any, source: Path, name: str) -> None:
        """Send a file of this machine into the session's working folder."""
        raise Lacking("no way to send a file")

    def get(self, session: Any, name: str, target: Path) -> None:
        """Take a file of the session's working folder to this machine."""
        raise Lacking("no way to take a file")

    def restart(self, session: Any) -> None:
        """Begin a new interpreter in the same sandbox."""
        raise Lacking("no restart")

    def settle(self) -> None:
        """Return when what goes on in the background after a session is done."""

    def containers(self, session: Any) -> list[str]:
        """The ids of the containers that the session has."""
        return []

    def processes(self, session: Any) -> list[int]:
        """The session's processes that are in no container."""
        return []

    def prepare(self) -> None:
        """Do what has to be there before programs run, and is not there for sessions."""

    def program(self, code: str) -> str:
        """Run one program in a sandbox that nothing ran in before and nothing will run in after."""
        session = self.open()
        try:
            return self.run(session, code)
        finally:
            self.close(session)

    def official(self, session: Any, code: str, times: int) -> list[float]:
        """The seconds of runs with another client, for who has two."""
        raise Lacking("one client only")


class Desk:
    """Answers the driver's questions with an adapter."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._sessions: dict[int, Any] = {}
        self._opened = 0

    def answer(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Carry an operation out. Never raises: an error is an answer."""
        operation = getattr(self, f"do_{question['operation']}")
        begun = time.perf_counter()
        try:
            value = operation(**question.get("arguments", {}))
        except Lacking as lacking:
            return {"lacking": str(lacking)}
        except Exception as error:  # the driver puts it into the table
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"[:500]}
        return {"seconds": time.perf_counter() - begun, "value": value}

    def do_start(self, **settings: str) -> None:
        self._adapter.start(settings)

    def do_stop(self) -> None:
        self._adapter.stop()

    def do_settle(self) -> None:
        self._adapter.settle()

    def do_open(self) -> int:
        session = self._adapter.open()
        self._opened += 1
        self._sessions[self._opened] = session
        return self._opened

    def do_run(
        self, session: int, code: str, times: int = 1, at_most_s: float = 60
    ) -> dict[str, Any]:
        """Run code so many times, or fewer where that would take too long."""
        seconds: list[float] = []
        text = ""
        began = time.perf_counter()
        for _ in range(times):
            start = time.perf_counter()
            text = self._adapter.run(self._sessions[session], code)
            seconds.append(time.perf_counter() - start)
            if time.perf_counter() - began > at_most_s:
                break
        return {"seconds": seconds, "text": text[:SHOWN_LENGTH], "length": len(text)}

    def do_output(self, session: int, code: str) -> dict[str, Any]:
        return {"length": len(self._adapter.output(self._sessions[session], code))}

    def do_official(self, session: int, code: str, times: int) -> list[float]:
        return self._adapter.official(self._sessions[session], code, times)

    def do_put(self, session: int, source: str, name: str) -> None:
        self._adapter.put(self._sessions[session], Path(source), name)

    def do_get(self, session: int, name: str, target: str) -> None:
        self._adapter.get(self._sessions[session], name, Path(target))

    def do_restart(self, session: int) -> None:
        self._adapter.restart(self._sessions[session])

    def do_close(self, session: int) -> None:
        self._adapter.close(self._sessions.pop(session))

    def do_where(self, session: int) -> dict[str, Any]:
        found = self._sessions[session]
        return {
            "containers": self._adapter.containers(found),
            "processes": self._adapter.processes(found),
        }

    def do_programs(
        self, code: str, expected: str, for_s: float, workers: int
    ) -> dict[str, float | int]:
        """Run programs one after the other by so many workers, each in a sandbox of its own."""
        self._adapter.prepare()
        done: list[float] = []
        failures: list[BaseException] = []
        begun = time.perf_counter()

        def work() -> None:
            while time.perf_counter() - begun < for_s and not failures:
                try:
                    text = self._adapter.program(code).strip()
                    if text != expected:
                        raise ValueError(f"a program printed {text[:100]!r}")
                except BaseException as error:  # told by who waits for the workers
                    failures.append(error)
                    return
                done.append(time.perf_counter())

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return {"done": len(done), "seconds": max(done) - begun}


def serve(adapter: Adapter) -> None:
    """Answer the driver until it closes the pipe. What anybody prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    desk = Desk(adapter)
    for line in sys.stdin:
        answer = desk.answer(json.loads(line))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    # Threads of a contender must not keep its process.
    sys.stderr.flush()
    os._exit(0)
