"""Containers in memory, for tests only: no configuration selects this runtime.

:class:`FakeRuntime` keeps the contract of ``sandbox.runtimes.base`` (``tests/contract`` runs the
same suite against it and Docker), and inside each of its containers a :class:`FakeSupervisor`
speaks the real link protocol. So sessions and the server can be tested without an engine, in
milliseconds. Nothing here isolates anything, and nothing a caller sends is executed: kernels
understand a few statements of their own (``sandbox.testing.kernel``).
"""

from sandbox.testing.runtime import FakeEngine, FakeRuntime
from sandbox.testing.supervisor import FakeSupervisor

__all__ = ["FakeEngine", "FakeRuntime", "FakeSupervisor"]
