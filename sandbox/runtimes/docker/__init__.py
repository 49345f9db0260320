"""Containers on a Docker Engine: the only importer of docker-py."""

from sandbox.runtimes.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime"]
