"""Run in an environment of its own: somebody in a notebook's room, by jupyter_nbmodel_client.

``python nbmodelrun.py URL PATH TOKEN``. Prints a line of JSON for each change that it sees; for
each line of JSON that it reads, ``{"cell": INDEX, "source": TEXT}``, it edits a cell.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any


async def main(url: str, path: str, token: str) -> None:
    import jupyter_nbmodel_client as nb  # pyright: ignore[reportMissingImports]  # only there

    client_for: Any = nb.NbModelClient
    address: str = nb.get_jupyter_notebook_websocket_url(url, path, token=token)
    async with client_for(address, username="grace") as client:
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

        def read() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

        loop.run_in_executor(None, read)
        shown = ""
        wanted = asyncio.create_task(lines.get())
        while True:
            told = json.dumps({"synced": client.synced, "cells": [dict(cell) for cell in client]})
            if told != shown:
                print(told, flush=True)
                shown = told
            await asyncio.wait([wanted], timeout=0.05)
            if wanted.done():
                if not (line := wanted.result()):
                    return
                edit = json.loads(line)
                client.set_cell_source(edit["cell"], edit["source"])
                wanted = asyncio.create_task(lines.get())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
