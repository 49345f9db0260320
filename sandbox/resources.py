"""Where the files that travel with the package are: in a checkout or in an installed wheel.

In a checkout they stand at the repository's root, where people edit them; a wheel carries copies
of them in `sandbox/_data` (see `pyproject.toml`).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CARRIED = _PACKAGE / "_data"


def package() -> Path:
    """The folder of the `sandbox` package's own sources."""
    return _PACKAGE


def policies() -> Path:
    """The folder of the built-in policies, with the seccomp profiles in `seccomp/`."""
    return _folder("policies")


def images() -> Path:
    """The folder of the image recipes: one folder with a Dockerfile for each image."""
    return _folder("images")


def requirements() -> Path:
    """The lock of what the package needs: exact versions with hashes."""
    root = checkout()
    return (_CARRIED if root is None else root) / "requirements.txt"


def checkout() -> Path | None:
    """The repository's root when the package runs from a checkout, None from a wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "images").is_dir() else None


def _folder(name: str) -> Path:
    root = checkout()
    return _CARRIED / name if root is None else root / name
