"""Does what a sequence of the model says with kernels of a supervisor."""

from __future__ import annotations

import json
import uuid

from sandbox.link.link import Link

from .branchmodel import BEGIN, FIRST, sequence
from .supervisorprocess import Cells

_SHOW = "import json; print(json.dumps(_))"


async def play(link: Link, seed: int) -> None:
    """Do a sequence with a new kernel; each answer must be the model's."""
    first = uuid.uuid4().hex
    await link.call("kernel.start", kernel_id=first, name="python3")
    kernels = {FIRST: Cells(link, first)}
    await kernels[FIRST].run(BEGIN)
    for step in sequence(seed):
        kernel_id = kernels[step.kernel].kernel_id
        if step.kind == "run":
            source = step.source if step.expected is None else f"{step.source}\n{_SHOW}"
            said = await kernels[step.kernel].run(source)
            if step.expected is not None:
                assert json.loads(said) == step.expected, (seed, step, said)
        elif step.kind == "branch":
            new_id = uuid.uuid4().hex
            await link.call("kernel.branch", kernel_id=kernel_id, new_id=new_id, reseed=False)
            kernels[step.name] = Cells(link, new_id)
        elif step.kind == "stop":
            await link.call("kernel.stop", kernel_id=kernel_id)
            del kernels[step.kernel]
        else:
            op = "drop_checkpoint" if step.kind == "drop" else step.kind
            await link.call(f"kernel.{op}", kernel_id=kernel_id, name=step.name)
    for cells in kernels.values():
        await link.call("kernel.stop", kernel_id=cells.kernel_id)
