"""The container's main process; copied into the images as ``/opt/sandbox/__main__.py``."""

from sandbox.supervisor.main import main

main()
