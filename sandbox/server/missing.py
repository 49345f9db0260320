"""What to do about a module or a program that is not there, under the policy of the session."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from sandbox.commands.models import CommandResult
from sandbox.container.manifests import Manifest, manifest_of
from sandbox.kernels.models import ExecutionError, ExecutionResult
from sandbox.policy import Policy, PolicySet
from sandbox.policy.packages import normalized
from sandbox.sessions.models import Caller

INDEX = "package-index"
MISSING = "ModuleNotFoundError"
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

_MODULE = re.compile(r"No module named '([A-Za-z_][A-Za-z0-9_]{0,63})(?:\.[A-Za-z0-9_.]{0,200})?'")
_PROGRAM = re.compile(r"(?:^|: )([A-Za-z0-9][A-Za-z0-9._+-]{0,63}): (?:command )?not found\s*\Z")


def images_of(policies: PolicySet, caller: Caller) -> dict[str, Manifest]:
    """What is installed under each policy that a caller may name."""
    named = (policies.get(name) for name in policies.names() if caller.may_use(name))
    return {each.name: manifest_of(each.image, policies.lock_of(each.image)) for each in named}


def advised(
    result: ExecutionResult, policy: Policy, policies: PolicySet, caller: Caller
) -> ExecutionResult:
    """The result of a cell, with what can be done about a module that is missing as its reason."""
    if result.reason or result.error is None or result.error.name != MISSING:
        return result
    advice = advice_for(result.error, policy, images_of(policies, caller))
    return result.model_copy(update={"reason": advice}) if advice else result


def advised_command(result: CommandResult, policy: Policy) -> CommandResult:
    """The same of a command and a program."""
    advice = "" if result.reason else advice_for_command(result, policy)
    return result.model_copy(update={"reason": advice}) if advice else result


def advice_for(error: ExecutionError | None, policy: Policy, images: Mapping[str, Manifest]) -> str:
    """What can be done about a module that a cell could not import.

    Args:
        error: What the cell ended in.
        policy: That of its session.
        images: What is installed under each policy that the caller may name.

    Returns:
        Sentences; empty when nothing is missing that could be installed.
    """
    found = _MODULE.match(error.value) if error and error.name == MISSING else None
    if found is None or found[1] in sys.stdlib_module_names:
        return ""
    module = found[1]
    package = PACKAGES.get(module, module.replace("_", "-"))
    here = images.get(policy.name)
    if here is not None and here.has(package):
        return ""
    if INDEX in policy.network.services:
        return (
            f"{module!r} is not installed. If you mean the package {package} of the index, run "
            f"`%pip install {package}` and import it again."
        )
    others = [name for name, image in images.items() if image.has(package)]
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


def advice_for_command(result: CommandResult, policy: Policy) -> str:
    """What can be done about a program that a shell did not find; empty when it found all."""
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
