"""Containers on a Docker Engine: the only importer of docker-py."""
