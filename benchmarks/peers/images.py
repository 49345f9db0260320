"""The peers' images, each on our own `datascience`: no registry is asked for anything.

What a peer's own recipe installs is installed here with pip; the command is its own.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers import environments
from sandbox.container import images
from sandbox.runtimes.docker import buildhost

BUILD_TIMEOUT_S = 900
LENT = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_CERT")
REPOSITORY = "sandbox-peers"

_HEAD = "ARG BASE\nFROM ${BASE}\nUSER root\n"
_INSTALL = (
    "".join(f"ARG {name}\n" for name in LENT)
    + "COPY build/ /build/\nRUN pip install --quiet --root-user-action=ignore "
)
_KERNEL_GATEWAY = _HEAD + _INSTALL + "jupyter_kernel_gateway 'ipykernel>=7,<8'\nEXPOSE 8888\n"

RECIPES: Mapping[str, str] = {
    # It makes a virtual environment in each container and has pip look for a newer pip and for
    # IPython: with no index, what is there is enough, and no time is lost on the network.
    "llmsandbox": _HEAD + 'ENV PIP_NO_INDEX=1\nWORKDIR /\nCMD ["python3"]\n',
    "swerex": _HEAD + _INSTALL + "swe-rex==1.4.0\n",
    "autogen": _KERNEL_GATEWAY
    + "USER 1000:1000\nENV TOKEN=UNSET\n"
    + "CMD exec python3 -m jupyter kernelgateway --KernelGatewayApp.ip=0.0.0.0 "
    + '--KernelGatewayApp.port=8888 --KernelGatewayApp.auth_token="${TOKEN}" '
    + "--JupyterApp.answer_yes=true --JupyterWebsocketPersonality.list_kernels=true\n",
    "smolagents": _KERNEL_GATEWAY
    + 'CMD ["jupyter", "kernelgateway", "--KernelGatewayApp.ip=0.0.0.0", '
    + '"--KernelGatewayApp.port=8888"]\n',
    "ipybox": _HEAD
    + _INSTALL
    + "'aiofiles>=24.1.0,<25' 'datamodel-code-generator>=0.28.5,<0.29' 'fastapi>=0.115.12,<0.116' "
    + "'ipykernel>=6.29.0,<7' 'jupyter-kernel-gateway>=3.0.0,<4' 'mcp>=1.8.1,<2' "
    + "'pydantic>=2.11.0,<3' 'python-multipart>=0.0.20,<0.1' 'uvicorn>=0.34.1,<0.35'\n"
    + "COPY files/ /app/\nRUN chown -R 1000:1000 /app\nUSER 1000:1000\nWORKDIR /app\n"
    + 'CMD ["/bin/bash", "/app/server.sh"]\n',
}


class ImageFailed(Exception):
    """An image could not be built; with the last lines of its build."""


def image_of(name: str) -> str:
    """The exact name of an image, which is built if need be; our own for no name.

    Raises:
        ImageFailed: It cannot be built.
    """
    base = images.reference("datascience")
    if not name:
        return base
    files = _files(name)
    digest = hashlib.sha256(f"{base}\0{RECIPES[name]}".encode())
    for path, content in sorted(files.items()):
        digest.update(path.encode() + b"\0" + content)
    reference = f"{REPOSITORY}/{name}:{digest.hexdigest()[:12]}"
    if not _is_there(reference):
        if not _is_there(base):
            raise ImageFailed(f"{base} is not built: `make setup` builds it")
        _build(reference, base, context(RECIPES[name], files, buildhost.loan().files))
    return reference


def _is_there(reference: str) -> bool:
    command = ["docker", "image", "inspect", reference]
    return subprocess.run(command, capture_output=True).returncode == 0


def context(recipe: str, files: Mapping[str, bytes], lent: Mapping[str, bytes]) -> bytes:
    """A build context: the recipe, the peer's files and what the building machine lends."""
    entries = {
        "Dockerfile": recipe.encode(),
        "build/.lent": b"",
        **{f"build/{name}": content for name, content in lent.items()},
        **{f"files/{name}": content for name, content in files.items()},
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in entries.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def _files(name: str) -> dict[str, bytes]:
    """What of the peer's own package its image has."""
    if name != "ipybox":
        return {}
    (package,) = environments.python_of(name).parents[1].glob("lib/python3*/site-packages/ipybox")
    found = [*package.glob("resource/*.py"), *package.glob("mcp/*.py"), package / "modinfo.py"]
    files = {f"ipybox/{path.relative_to(package)}": path.read_bytes() for path in found}
    return {**files, "server.sh": Path(package, "scripts/server.sh").read_bytes()}


def _build(reference: str, base: str, archive: bytes) -> None:
    lent = buildhost.loan().arguments
    arguments = [
        word
        for key, value in lent.items()
        if key in LENT or key.lower().endswith("_proxy")
        for word in ("--build-arg", f"{key}={value}")
    ]
    command = ["docker", "build", "--quiet", "--network", "host", "--tag", reference]
    done = subprocess.run(
        [*command, "--build-arg", f"BASE={base}", *arguments, "-"],
        input=archive,
        capture_output=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ImageFailed(f"{reference}:\n{(done.stdout + done.stderr).decode()[-2000:]}")
