"""Executions that have ended lately, within a bound of number and memory."""

from __future__ import annotations

from collections.abc import Iterator

from sandbox.kernels.execution import Execution

MAX_EXECUTIONS = 64
MAX_BYTES = 32 * 1024 * 1024


class Recent:
    """The ended executions of a session that are still in memory; the others are in the journal."""

    def __init__(self) -> None:
        self._executions: dict[str, Execution] = {}
        self._sizes: dict[str, int] = {}

    def add(self, execution: Execution) -> None:
        """Keep it, or count it anew, and let the oldest go when there are too many."""
        self._executions[execution.execution_id] = execution
        self._sizes[execution.execution_id] = execution.size_bytes
        while len(self._executions) > MAX_EXECUTIONS or (
            sum(self._sizes.values()) > MAX_BYTES and len(self._executions) > 1
        ):
            oldest = next(iter(self._executions))
            del self._executions[oldest], self._sizes[oldest]

    def get(self, execution_id: str) -> Execution | None:
        """An execution by its id; None when it is not in memory."""
        return self._executions.get(execution_id)

    def of_kernel(self, kernel_id: str) -> Iterator[Execution]:
        """Those of one kernel."""
        return (e for e in self._executions.values() if e.record.kernel_id == kernel_id)
