"""``make dist``: what is given to others, in dist/: the sdist, the wheel, the desktop bundle
(``.mcpb``) and the ``server.json`` for an MCP registry.

``--release URL`` names the folder in which the bundle will be published; a registry takes no
``server.json`` without it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any, cast

from sandbox.server.desk import Desk
from sandbox.server.tools.catalogue import all_tools

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
LAUNCHER = ROOT / "scripts/bundle/main.py"

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME: str = PROJECT["name"]
VERSION: str = PROJECT["version"]
TITLE = "Sandbox: a container per session"
DESCRIPTION = "Run untrusted code in an isolated container per session: kernels, terminals, files."
LONG_DESCRIPTION = """\
Each conversation gets an isolated container of its own, with Jupyter kernels, notebooks, terminals,
commands and files. A policy file says what it may use and reach; the default has no network.

This extension starts a program that has to be installed on this machine, and brings none of it:

* the Python package `sandbox`, with its command on the PATH or named in the settings below,
* Docker Engine, or Docker Desktop, which runs the containers, with the images that
  `sandbox image build` makes once.

`sandbox doctor` says whether all of it is there. The sandboxes end when the application does.
"""
REGISTRY_NAME = "io.sandbox/sandbox"
MANIFEST_VERSION = "0.4"
SERVER_SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
SERVED_AT = "127.0.0.1:8000"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the bundle, so that the same sources make the same bytes."""


def manifest() -> dict[str, Any]:
    """The manifest of the desktop bundle, with the tools that the server has."""
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": NAME,
        "display_name": TITLE,
        "version": VERSION,
        "description": DESCRIPTION,
        "long_description": LONG_DESCRIPTION,
        "author": {"name": "The sandbox project"},
        "license": PROJECT["license"],
        "keywords": ["sandbox", "jupyter", "python", "docker", "notebooks", "terminal"],
        "server": {
            "type": "python",
            "entry_point": "server/main.py",
            "mcp_config": {
                "command": "python3",
                "args": ["${__dirname}/server/main.py"],
                "env": {
                    "SANDBOX_BUNDLE_COMMAND": "${user_config.command}",
                    "SANDBOX_DEFAULT_POLICY": "${user_config.policy}",
                    "SANDBOX_POLICIES": "${user_config.policies}",
                    "SANDBOX_TOOLS": "${user_config.tools}",
                },
            },
        },
        "user_config": {
            "command": {
                "type": "string",
                "title": "The sandbox program",
                "description": "The installed command, or its full path (.venv/bin/sandbox of a "
                "checkout).",
                "default": "sandbox",
                "required": False,
            },
            "policy": {
                "type": "string",
                "title": "Policy",
                "description": "What a new session may use and reach: offline, datascience, "
                "package-index, or one of yours. Empty: the default, which has no network.",
                "default": "",
                "required": False,
            },
            "policies": {
                "type": "directory",
                "title": "Folder of policies",
                "description": "Policy files of yours, besides the built-in ones.",
                "required": False,
            },
            "tools": {
                "type": "string",
                "title": "Tools",
                "description": "Toolsets, by comma: all, or code,files,… Fewer cost a model fewer "
                "tokens.",
                "default": "all",
                "required": False,
            },
        },
        "tools": _tools(),
        "tools_generated": False,
        "prompts_generated": True,
        "compatibility": {
            "platforms": ["darwin", "linux"],
            "runtimes": {"python": ">=3.8"},
        },
    }


def _tools() -> list[dict[str, str]]:
    nobodys = Desk(cast(Any, None))  # its tools are listed and never called
    return [
        {"name": tool.name, "description": _sentence(tool.description)}
        for tool in all_tools(nobodys)
    ]


def _sentence(text: str) -> str:
    """The first sentence of a description."""
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def pack(folder: Path) -> Path:
    """Write the desktop bundle into a folder and return its path.

    The same sources make the same bytes, whenever and wherever it is made.
    """
    path = folder / f"{NAME}-{VERSION}.mcpb"
    files = {
        "manifest.json": json.dumps(manifest(), indent=2, ensure_ascii=False).encode() + b"\n",
        "server/main.py": LAUNCHER.read_bytes(),
        "LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            member = zipfile.ZipInfo(name, EARLIEST)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return path


def server_json(bundle: Path, release: str = "") -> dict[str, Any]:
    """What an MCP registry is told: the bundle, by its hash, and how a controller is reached.

    No package of an index is named: nothing there of this name is ours.

    Args:
        bundle: The packed bundle.
        release: The URL of the folder in which it will be published; empty: not known yet.
    """
    release = release.rstrip("/")
    return {
        "$schema": SERVER_SCHEMA,
        "name": REGISTRY_NAME,
        "title": TITLE,
        "description": DESCRIPTION,
        "version": VERSION,
        "packages": [
            {
                "registryType": "mcpb",
                "identifier": f"{release}/{bundle.name}" if release else bundle.name,
                "version": VERSION,
                "fileSha256": hashlib.sha256(bundle.read_bytes()).hexdigest(),
                "transport": {"type": "stdio"},
            }
        ],
        "remotes": [
            {
                "type": "streamable-http",
                "url": "http://{address}/mcp/v1",
                "variables": {
                    "address": {
                        "description": "Host and port of a controller (`sandbox serve`).",
                        "default": SERVED_AT,
                    }
                },
                "headers": [
                    {
                        "name": "Authorization",
                        "description": "`Bearer ` and the token: `sandbox token show`.",
                        "isRequired": True,
                        "isSecret": True,
                    }
                ],
            }
        ],
    }


def make(folder: Path, release: str = "") -> list[Path]:
    """Make everything in a folder and return the paths; what was there of this version is replaced.

    Raises:
        subprocess.CalledProcessError: The sdist or the wheel cannot be built.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Not isolated: what builds it is locked like everything else, and nothing is downloaded.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    bundle = pack(folder)
    told = folder / "server.json"
    told.write_text(json.dumps(server_json(bundle, release), indent=2, ensure_ascii=False) + "\n")
    built = sorted(path for path in folder.glob(f"{NAME}-{VERSION}[-.]*") if path != bundle)
    return [*built, bundle, told]


def main() -> int:
    """Make everything and say what there is."""
    parser = argparse.ArgumentParser(prog="dist", description=__doc__)
    parser.add_argument("--release", default="", metavar="URL")
    arguments = parser.parse_args()
    for path in make(DIST, arguments.release):
        print(f"  {path.relative_to(ROOT)}  {path.stat().st_size / 1000:,.0f} kB")
    if not arguments.release:
        print("A registry wants to know where the bundle is: make dist RELEASE=https://…")
    return 0


if __name__ == "__main__":
    sys.exit(main())
