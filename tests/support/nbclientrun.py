"""Run in an environment of its own: executes a notebook with nbclient, on any kernel.

``python nbclientrun.py IN.ipynb OUT.ipynb [KERNEL]``, and a bare one works in the folder of OUT.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat


def main(source: str, target: str, kernel: str = "python3") -> None:
    import nbclient  # pyright: ignore[reportMissingImports]  # only in that environment

    notebook: Any = nbformat.read(source, as_version=4)
    client: Any = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name=kernel,
        resources={"metadata": {"path": str(Path(target).parent)}},
    )
    client.execute()
    nbformat.write(notebook, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
