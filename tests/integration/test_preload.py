"""Modules that a policy preloads, in the image that has them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sandbox.link.link import Link
from sandbox.runtimes.docker.runtime import DockerRuntime

from ..support.containers import container
from ..support.supervisorprocess import Cells

pytestmark = pytest.mark.anyio

LOADED_S = 0.25
"""What an import takes that is none; importing pandas takes more than twice that."""


@pytest.fixture
async def link(engine: DockerRuntime) -> AsyncIterator[Link]:
    async with container(engine, "datascience") as made, made.link() as link:
        yield link


async def kernel(link: Link, kernel_id: str) -> Cells:
    await link.call("kernel.start", kernel_id=kernel_id, name="python3")
    return Cells(link, kernel_id)


async def test_the_first_import_of_pandas_is_none_and_each_kernel_is_its_own(link: Link) -> None:
    look = "import sys; print('pandas' in sys.modules, 'numpy' in sys.modules)"
    first = (
        "import time\nbegan = time.process_time()\nimport pandas\n"
        f"print(time.process_time() - began < {LOADED_S})"
    )
    columns = "name = 'display.max_columns'; print(pandas.get_option(name)); "
    columns += "pandas.set_option(name, 3); pandas.reset_option(name); "
    columns += "print(pandas.get_option(name))"
    with anyio.fail_after(120):
        drawn = set[str]()
        for name in ("a", "b"):
            cells = await kernel(link, name)
            assert await cells.run(look) == "False False\n"
            assert await cells.run(first) == "True\n"
            assert await cells.run(columns) == "20\n20\n", "as where no terminal is"
            drawn.add(await cells.run("import numpy; print(numpy.random.random())"))
            shown, reply = await cells.outputs(
                await cells.submit("import matplotlib.pyplot as plt; plt.plot([1]);")
            )
            assert reply["status"] == "ok"
            assert ["image/png" in content.get("data", {}) for _, content in shown][-1]
        assert len(drawn) == 2
        told = await link.call("info")
        assert told["preloaded"] == ["numpy", "pandas", "matplotlib.pyplot"]
        assert told["not_preloaded"] == {}


async def test_the_users_own_module_wins_in_the_kernels_that_start_later(link: Link) -> None:
    with anyio.fail_after(120):
        cells = await kernel(link, "before")
        await cells.run("open('pandas.py', 'w').write('mine = 1'); import pandas; pandas.mine")
        later = await kernel(link, "after")
        assert await later.run("import pandas, numpy; print(pandas.mine, numpy.arange(2))") == (
            "1 [0 1]\n"
        )
        assert await later.run("import sys; print('pandas' in sys.modules)") == "True\n"
