"""Containers through a broker, for a controller that may not speak to the engine itself."""

from sandbox.runtimes.broker.runtime import SCHEME, BrokerRuntime

__all__ = ["SCHEME", "BrokerRuntime"]
