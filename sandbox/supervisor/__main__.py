"""The container's main process; copied into the images as ``/opt/sandbox/__main__.py``."""

from sandbox.supervisor import bundle

bundle.use()

from sandbox.supervisor.main import main  # noqa: E402  # most of what there is in the bundle

main()
