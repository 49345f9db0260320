"""The session's uid has a name and a home, though no file of the image can know the uid."""

from __future__ import annotations

import os

NAME = "sandbox"
FOLDER = "account"
"""Below the supervisor's state; the images' `/var/lib/extrausers` is a link to it."""


def write_account(state_dir: str, home: str) -> None:
    """Write the lines of passwd(5) and group(5) that the images look for beside their own.

    They are the session's own files: what its code writes there instead, it tells itself.
    """
    folder = os.path.join(state_dir, FOLDER)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    uid, gid = os.getuid(), os.getgid()
    lines = {
        "passwd": f"{NAME}:x:{uid}:{gid}:{NAME}:{home}:/bin/bash\n",
        "group": f"{NAME}:x:{gid}:\n",
    }
    for file, line in lines.items():
        with open(os.path.join(folder, file), "w", encoding="utf-8") as stream:
            stream.write(line)
