"""A sandboxed, container-per-session executor for agents' code."""

__version__ = "0.1.0"
