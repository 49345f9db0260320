"""The controller's settings: what they are (``settings``), and reading them (``loading``)."""

from sandbox.config.loading import Loaded, load
from sandbox.config.settings import Settings, is_loopback

__all__ = ["Loaded", "Settings", "is_loopback", "load"]
