"""A sandboxed, container-per-session executor for agents' code."""

__version__ = "0.1.0"


def _jupyter_server_extension_points() -> list[dict[str, object]]:  # pyright: ignore[reportUnusedFunction]  # Jupyter Server looks for it here
    """What Jupyter Server loads where this is enabled as an extension of it; nobody else does."""
    from importlib import import_module

    name = "sandbox.jupyter.extension"
    return [{"module": name, "app": import_module(name).SandboxExtension}]
