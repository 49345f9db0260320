"""`sandbox run`: one piece of code in a sandbox of its own."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import anyio

from sandbox.audit import recorded
from sandbox.cli import exits, logs
from sandbox.cli.printing import Printer
from sandbox.cli.wiring import controller
from sandbox.config import Settings
from sandbox.errors import InvalidRequest
from sandbox.kernels.execution import Execution
from sandbox.kernels.models import ExecutionResult
from sandbox.server.arguments import MAX_CODE
from sandbox.server.grants import LOCAL
from sandbox.sessions.models import Caller
from sandbox.sessions.session import Session

EXIT_CODES = {
    "ok": exits.OK,
    "error": exits.FAILED,
    "died": exits.FAILED,
    "timeout": exits.TIMED_OUT,
    "interrupted": exits.INTERRUPTED,
    "lost": exits.INFRASTRUCTURE,
    "running": exits.INFRASTRUCTURE,
}


@dataclass(frozen=True, slots=True)
class Work:
    """What to run."""

    code: str
    policy: str
    kernel: str
    timeout_s: float
    """Seconds it may run; 0 for the policy's limit."""
    images: Path
    stem: str

    @classmethod
    def read(
        cls,
        file: str | None,
        code: str | None,
        *,
        policy: str,
        kernel: str,
        timeout_s: float,
        images: Path | None,
    ) -> Work:
        """The work of a command line.

        Raises:
            InvalidRequest: The code cannot be read, or is not text of a bounded length.
        """
        folder, stem = Path.cwd(), "output"
        if code is None:
            if file not in (None, "-"):
                folder, stem = Path(file).parent, Path(file).stem
            code = _read(file or "-")
        if len(code) > MAX_CODE or "\0" in code:
            raise InvalidRequest(f"Code has at most {MAX_CODE} characters and no NUL.")
        if timeout_s < 0:
            raise InvalidRequest("--timeout is a number of seconds, 0 or more.")
        return cls(code, policy, kernel, timeout_s, images or folder, stem)

    def arguments(self) -> dict[str, object]:
        """What the audit log keeps the digest of."""
        told = {"code": self.code, "policy": self.policy, "kernel": self.kernel}
        return {**told, "timeout": self.timeout_s}


def _read(file: str) -> str:
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            return stream.read(MAX_CODE + 1).decode()
    except OSError as exc:
        raise InvalidRequest(f"{file} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"{file} is not a text in UTF-8.") from exc


def run_work(settings: Settings, work: Work, *, as_json: bool) -> int:
    """Run it, print what comes, and return the exit code.

    Raises:
        SandboxError: It could not be run.
    """
    logs.configure(settings.log_level)
    result = anyio.run(_run, settings, work, as_json)
    if as_json:
        print(result.model_dump_json(indent=2))
    return EXIT_CODES[result.status]


async def _run(settings: Settings, work: Work, as_json: bool) -> ExecutionResult:
    printer = Printer(work.images, work.stem, quiet=as_json)
    async with controller(settings, "run") as manager:
        with recorded(manager.audit, "cli", "sandbox run", work.arguments(), LOCAL) as call:
            manager.audit.require()
            session = await manager.open(Caller(LOCAL), policy=work.policy, reuse=False)
            async with session.use():
                result = await _execute(session, work, printer)
            call.ended("ok" if result.status == "ok" else "failed", result.status)
    printer.close(result)
    return result


async def _execute(session: Session, work: Work, printer: Printer) -> ExecutionResult:
    kernel_id = ""
    if work.kernel != "python3":
        kernel_id = (await session.kernels.start(work.kernel)).kernel_id
    execution = await session.kernels.execute(
        work.code, kernel_id=kernel_id, timeout_s=work.timeout_s or None
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_interrupt_at_signal, execution)
        await _follow(execution, printer)
        tasks.cancel_scope.cancel()
    return execution.snapshot()


async def _follow(execution: Execution, printer: Printer) -> None:
    while True:
        version = execution.version
        result = execution.snapshot()
        printer.show(result)
        if result.status != "running":
            return
        await execution.changed(version)


async def _interrupt_at_signal(execution: Execution) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            await execution.cancel()
