"""Run in an environment of its own: ``jupyter_kernel_client`` at a session as a Jupyter Server.

``python jupyter_calls.py SERVER_URL TOKEN KERNEL_ID CODE…`` runs each code and prints, as one line
of JSON each, its outputs. Nothing of it knows of sandboxes.
"""

from __future__ import annotations

import json
import sys


def main(url: str, token: str, kernel_id: str, *codes: str) -> None:
    from jupyter_kernel_client import JupyterKernelClient  # pyright: ignore[reportMissingImports]

    with JupyterKernelClient(server_url=url, token=token, kernel_id=kernel_id or None) as kernel:
        for code in codes:
            print(json.dumps(kernel.execute(code, timeout=60)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
