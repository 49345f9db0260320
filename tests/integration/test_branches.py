"""Branches of kernels in a container, with its limits and its libraries."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import anyio
import pytest

from sandbox.errors import Conflict, QuotaExceeded
from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.branchmodel import sequences
from ..support.branchplay import play
from ..support.containers import Container, container
from ..support.served import RUNTIME
from ..support.supervisorprocess import Cells, run_command

pytestmark = pytest.mark.anyio

FEW = 4
HOARD = "import os\nhoard = bytearray(os.urandom(1 << 20)) * {mib}"


@pytest.fixture
async def link(engine: DockerRuntime) -> AsyncIterator[Link]:
    """A link to a container of the default policy."""
    async with container(engine) as made, made.link() as link:
        yield link


@pytest.fixture
async def science(engine: DockerRuntime) -> AsyncIterator[Link]:
    """A link to a container with NumPy and two processors."""
    async with container(engine, "datascience") as made, made.link() as link:
        yield link


async def kernel(link: Link, name: str = "k") -> Cells:
    await link.call("kernel.start", kernel_id=name, name="python3")
    return Cells(link, name)


async def branch(link: Link, cells: Cells, new_id: str, **options: bool) -> Cells:
    await link.call("kernel.branch", kernel_id=cells.kernel_id, new_id=new_id, **options)
    return Cells(link, new_id)


async def memory_limit(link: Link) -> int:
    """The session's limit in MiB; of a gVisor sandbox two thirds of its own: it keeps the rest."""
    if RUNTIME != "runsc":
        return (await link.call("probe"))["memory_limit"] >> 20
    said, _, _ = await run_command(link, argv=["cat", "/proc/meminfo"])
    total = int(said.split()[1]) << 10
    return (total - total // 3) >> 20


async def test_random_sequences_differ_in_nothing_from_a_model(link: Link) -> None:
    for seed in range(sequences(FEW)):
        with anyio.fail_after(120):
            await play(link, seed)


async def test_a_branch_at_the_memory_limit_is_refused_and_harms_nothing(link: Link) -> None:
    with anyio.fail_after(120):
        limit = await memory_limit(link)
        cells = await kernel(link)
        await cells.run(HOARD.format(mib=limit * 6 // 10) + "; kept = 1")
        await branch(link, cells, "first")
        for number in range(8):  # what a branch writes to is its own, until the limit is near
            fill = f"import os\nmore = bytearray(os.urandom(1 << 20)) * {limit // 16}"
            await cells.run(fill if number == 0 else f"more = more + more[:{limit << 16}]")
            try:
                await link.call("kernel.checkpoint", kernel_id="k", name=f"c{number}")
            except QuotaExceeded:
                break
        with pytest.raises(QuotaExceeded, match=r"MiB must be free.* MiB"):
            await branch(link, cells, "refused")
        assert await cells.run("print(kept)") == "1\n"
        assert await Cells(link, "first").run("print(kept)") == "1\n"
        kernels = (await link.call("kernel.list"))["kernels"]
        assert {each["kernel_id"] for each in kernels if each["alive"]} == {"k", "first"}


async def test_automatic_checkpoints_give_way_to_a_copy_that_needs_their_room(link: Link) -> None:
    with anyio.fail_after(120):
        limit = await memory_limit(link)
        cells = await kernel(link)
        hoard = HOARD.format(mib=limit * 35 // 100)
        await cells.run(hoard)
        await link.call("kernel.checkpoint", kernel_id="k", name="old", auto=True)
        await cells.run(hoard)  # the old one is the checkpoint's alone now
        await cells.run(f"more = bytearray(os.urandom(1 << 20)) * {limit * 15 // 100}")
        await link.call("kernel.checkpoint", kernel_id="k", name="new", auto=True)
        lost = await cells.event("checkpoint_lost")
        assert lost["name"] == "old"
        assert "made room" in lost["oom_evidence"]
        found = (await link.call("kernel.checkpoints", kernel_id="k"))["checkpoints"]
        assert [each["name"] for each in found] == ["new"]


async def test_a_checkpoint_goes_before_its_kernel_when_memory_runs_out_and_is_told(
    link: Link,
) -> None:
    with anyio.fail_after(180):
        limit = await memory_limit(link)
        cells = await kernel(link)
        hoard = HOARD.format(mib=limit * 4 // 10)
        await cells.run(hoard + "; kept = 1")
        await link.call("kernel.checkpoint", kernel_id="k", name="kept")
        await cells.run(hoard)
        await cells.run(f"more = bytearray(os.urandom(1 << 20)) * {limit * 3 // 10}")
        lost = await cells.event("checkpoint_lost")
        assert (lost["name"], lost["oom"]) == ("kept", True)
        assert await cells.run("print(kept)") == "1\n"
        (found,) = (await link.call("kernel.checkpoints", kernel_id="k"))["checkpoints"]
        assert not found["alive"]


async def test_numbers_by_chance_differ_in_branches_unless_asked_not_to(science: Link) -> None:
    draw = "print(np.random.random(), random.random())"
    with anyio.fail_after(120):
        cells = await kernel(science)
        await cells.run("import numpy as np, random; np.random.seed(1); random.seed(1)")
        same = await branch(science, cells, "same", reseed=False)
        made = [await branch(science, cells, f"other-{number}") for number in range(2)]
        drawn = [await each.run(draw) for each in (cells, same, *made)]
        assert drawn[0] == drawn[1]
        assert len({number for line in drawn[1:] for number in line.split()}) == 6


async def test_pools_of_blas_and_openmp_are_no_blockers_and_work_on_both_sides(
    science: Link,
) -> None:
    use = (
        "inverse = np.linalg.inv(a); product = a @ a\n"
        "model = HistGradientBoostingRegressor(max_iter=2).fit(a[:, :3], a[:, 3])\n"
        "print(np.allclose(inverse @ a, np.eye(len(a))))"
    )
    threads = "print(len(os.listdir('/proc/self/task')))"
    with anyio.fail_after(180):
        cells = await kernel(science)
        await cells.run(
            "import os, numpy as np, scipy.linalg\n"
            "from sklearn.ensemble import HistGradientBoostingRegressor\n"
            "a = np.random.rand(400, 400); scipy.linalg.lu_factor(a)"
        )
        assert await cells.run(use) == "True\n"
        assert RUNTIME == "runsc" or int(await cells.run(threads)) > 1
        made = await branch(science, cells, "b")
        await science.call("kernel.checkpoint", kernel_id="k", name="c")
        for each in (made, cells):
            assert await each.run(use) == "True\n"
        await science.call("kernel.rollback", kernel_id="k", name="c")
        assert await cells.run(use) == "True\n"


async def test_a_librarys_own_threads_are_refused_by_its_name(science: Link) -> None:
    with anyio.fail_after(120):
        cells = await kernel(science)
        await cells.run("import duckdb; base = duckdb.connect(); base.sql('select 1').fetchall()")
        name = "native thread" if RUNTIME == "runsc" else "duckdb"
        with pytest.raises(Conflict, match=name):
            await branch(science, cells, "b")
        await cells.run("base.close()")
        await branch(science, cells, "b")


async def test_pandas_and_matplotlib_are_no_blockers(science: Link) -> None:
    with anyio.fail_after(120):
        cells = await kernel(science)
        await cells.run(
            "import io, pandas as pd, matplotlib.pyplot as plt\n"
            "from tqdm import tqdm\n"
            "frame = pd.DataFrame({'a': range(1000), 'b': ['x'] * 1000})\n"
            "same = pd.read_csv(io.StringIO(frame.to_csv())).describe()\n"
            "list(tqdm(range(3))); plt.plot(frame.a); plt.savefig(io.BytesIO()); plt.close()"
        )
        made = await branch(science, cells, "b")
        said = await made.run("import json; print(json.dumps(int(frame.a.sum())))")
        assert json.loads(said) == 499500
        again = (
            "print(pd.read_csv(io.StringIO(frame.to_csv())).shape, *tqdm([1], file=io.StringIO()))"
        )
        assert await made.run(again) == "(1000, 3) 1\n" == await cells.run(again)


async def test_a_branch_ends_as_any_kernel_and_leaves_no_process(
    engine: DockerRuntime,
) -> None:
    async with container(engine) as made, made.link() as link:
        with anyio.fail_after(120):
            await _end_all(made, link)


async def _end_all(made: Container, link: Link) -> None:
    cells = await kernel(link)
    first = await branch(link, cells, "first")
    second = await branch(link, first, "second")
    await link.call("kernel.checkpoint", kernel_id="second", name="c")
    await second.submit("import os; os._exit(3)")
    exited = await second.event("exited")
    assert not exited["killed_by_us"]
    assert exited["exit_code"] == (None if RUNTIME == "runsc" else 3)
    pid = int(await first.run("import os; print(os.getpid())"))
    await cells.run(f"import os; os.kill({pid}, 9)")
    exited = await first.event("exited")
    assert (exited["signal"], exited["oom"]) == ((None, None) if RUNTIME == "runsc" else (9, False))
    await link.call("kernel.rollback", kernel_id="second", name="c")
    await second.run("pass")
    for name in ("k", "first", "second"):
        await link.call("kernel.stop", kernel_id=name)
    stream = link.open("process.run", argv=["sh", "-c", "ls -d /proc/[0-9]* | wc -l"])
    stream.end()
    said = b"".join([message.data async for message in stream if message.tag == 1])
    assert int(said.split(b"\n")[0].split()[0] if said[:1].isdigit() else 0) <= 8
