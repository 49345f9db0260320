"""What to do about a module or a program that is not there, under the policy of the session."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches

from sandbox.commands.models import CommandResult
from sandbox.container.manifests import Manifest, manifest_of
from sandbox.kernels.models import ExecutionError
from sandbox.policy import Policy, PolicySet
from sandbox.policy.packages import normalized
from sandbox.sessions.models import Caller

INDEX = "package-index"
NEAR = 0.8
"""How alike two names are, of which one may be meant by the other."""
NOT_FOUND = 127
"""The exit code of a shell that does not find a program."""

PACKAGES = {
    "Bio": "biopython",
    "Crypto": "pycryptodome",
    "OpenSSL": "pyOpenSSL",
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "community": "python-louvain",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "discord": "discord.py",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "faiss": "faiss-cpu",
    "fitz": "PyMuPDF",
    "git": "GitPython",
    "github": "PyGithub",
    "googleapiclient": "google-api-python-client",
    "igraph": "python-igraph",
    "jose": "python-jose",
    "jwt": "PyJWT",
    "kafka": "kafka-python",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "mysql": "mysql-connector-python",
    "nacl": "PyNaCl",
    "osgeo": "GDAL",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "pylab": "matplotlib",
    "serial": "pyserial",
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "slugify": "python-slugify",
    "telegram": "python-telegram-bot",
    "umap": "umap-learn",
    "usb": "pyusb",
    "websocket": "websocket-client",
    "yaml": "PyYAML",
    "zmq": "pyzmq",
}
"""The packages whose modules have another name."""

_NAME = r"'([A-Za-z_][A-Za-z0-9_]{0,63})(?:\.[A-Za-z0-9_.]{0,200})?'"
_MODULE = re.compile(rf"No module named {_NAME}")
_OPTIONAL = re.compile(rf"Missing optional dependency {_NAME}")
_SIGNS = {"ModuleNotFoundError": _MODULE, "ImportError": _OPTIONAL}
_RAISED = re.compile(
    rf"(?:\A|\n)(?:ModuleNotFoundError: No module named|ImportError: Missing optional dependency) "
    rf"{_NAME}[^\n]*\n*\Z"
)
_PROGRAM = re.compile(r"(?:^|: )([A-Za-z0-9][A-Za-z0-9._+-]{0,63}): (?:command )?not found\s*\Z")


def images_of(policies: PolicySet, caller: Caller) -> dict[str, Manifest]:
    """What is installed under each policy that a caller may name."""
    named = (policies.get(name) for name in policies.names() if caller.may_use(name))
    return {each.name: manifest_of(each.image, policies.lock_of(each.image)) for each in named}


def is_missing(error: ExecutionError | None) -> bool:
    """Whether a cell ended because it could not import something."""
    return _module_of(error) != ""


def advice_for(error: ExecutionError | None, policy: Policy, images: Mapping[str, Manifest]) -> str:
    """What can be done about a module that a cell could not import.

    Args:
        error: What the cell ended in.
        policy: That of its session.
        images: What is installed under each policy that the caller may name.

    Returns:
        Sentences; empty when nothing is missing that could be installed.
    """
    module = _module_of(error)
    return _advice(module, policy, images, "%pip") if module else ""


def _module_of(error: ExecutionError | None) -> str:
    """The module that an error says is not there; empty when it is about something else."""
    if error is None or error.name not in _SIGNS:
        return ""
    found = _SIGNS[error.name].match(error.value)
    return found[1] if found else ""


def _advice(module: str, policy: Policy, images: Mapping[str, Manifest], pip: str) -> str:
    if module in sys.stdlib_module_names:
        return ""
    package = PACKAGES.get(module, module.replace("_", "-"))
    here = images.get(policy.name)
    if here is not None and here.has(package):
        return ""
    others = [name for name, image in images.items() if image.has(package)]
    if not others and (near := _near(module, images)):
        more = _advice(near, policy, images, pip)
        return f"{module!r} is not installed; did you mean {near!r}? {more}".rstrip()
    if INDEX in policy.network.services:
        return (
            f"{module!r} is not installed. If you mean the package {package} of the index, run "
            f"`{pip} install {package}` and import it again."
        )
    if others:
        return (
            f"{module!r} is not installed under the policy {policy.name}. It is under "
            f"{' and '.join(others)}: open_session(policy={others[0]!r})."
        )
    beside = f"can install it with open_session(policy={INDEX!r}), or " if INDEX in images else ""
    return (
        f"{module!r} is not installed, and nothing can be under the policy {policy.name}. You "
        f"{beside}can do without it; whoever runs this server can add {normalized(package)} to "
        "`image.pip` of the policy."
    )


def _near(module: str, images: Mapping[str, Manifest]) -> str:
    """A module that is known and has nearly the same name; empty when there is none."""
    if module in PACKAGES:
        return ""
    modules = {normalized(package): name for name, package in PACKAGES.items()}
    installed = {name for image in images.values() for name in image.packages}
    packages = {name: modules.get(name, name.replace("-", "_")) for name in sorted(installed)}
    library = {name: name for name in sys.stdlib_module_names if not name.startswith("_")}
    for names in (packages | dict(zip(PACKAGES, PACKAGES, strict=True)), library):
        if found := get_close_matches(module, names, 1, NEAR):
            return names[found[0]]
    return ""


def advice_for_command(
    result: CommandResult, policy: Policy, images: Callable[[], Mapping[str, Manifest]]
) -> str:
    """What can be done about a program that a shell did not find, or a module that one of Python's
    did not; empty when all was found."""
    if not result.exit_code:
        return ""
    if module := _RAISED.search(result.stderr[-600:]):
        return _advice(module[1], policy, images(), "pip")
    found = _PROGRAM.search(result.stderr[-300:]) if result.exit_code == NOT_FOUND else None
    if found is None:
        return ""
    program = found[1]
    install = (
        f" `pip install {program}` helps if that is a package of the index."
        if INDEX in policy.network.services
        else ""
    )
    return (
        f"There is no program {program!r} here.{install} Whoever runs this server can add the "
        "Debian package that has it to `image.apt` of the policy."
    )
