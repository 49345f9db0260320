"""What a supervisor says of why a cell failed is believed as far as it can be."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from sandbox.errors import LinkLost
from sandbox.kernels import evidence
from sandbox.kernels.evidence import Evidence, evidence_of

pytestmark = pytest.mark.anyio


class Kernel:
    """A way to what answers, or fails."""

    def __init__(self, answer: dict[str, Any] | Exception | None) -> None:
        self._answer = answer

    async def call(self, op: str, **_fields: Any) -> dict[str, Any]:
        assert op == "kernel.evidence"
        if self._answer is None:
            await anyio.sleep_forever()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer or {}


async def test_what_is_full_and_who_was_killed_is_told() -> None:
    answer = {"full": {"shm": "bytes", "tmp": "inodes"}, "oom_kills": 2, "oom_own": True}
    found = await evidence_of(Kernel(answer))
    assert found.full == {"shm": "bytes", "tmp": "inodes"}
    assert found.ran_out_of_memory


async def test_nobody_counts_where_no_counter_can_be_read() -> None:
    found = await evidence_of(Kernel({"full": {}}))
    assert found.oom_kills is None
    assert not found.ran_out_of_memory


@pytest.mark.parametrize(
    "answer",
    [
        {"full": {"/etc": "bytes"}},
        {"full": {"shm": "yes"}},
        {"full": ["shm"]},
        {"full": {}, "oom_kills": -1},
        {"full": {}, "oom_kills": "many"},
        LinkLost("gone"),
    ],
)
async def test_what_makes_no_sense_is_no_evidence(answer: Any) -> None:
    assert await evidence_of(Kernel(answer)) == Evidence()


async def test_nobody_waits_long_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "PATIENCE_S", 0.01)
    with anyio.fail_after(5):
        assert await evidence_of(Kernel(None)) == Evidence()
