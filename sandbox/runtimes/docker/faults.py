"""docker-py's errors in our words: the one place that knows both."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import docker.errors
import requests.exceptions

from sandbox.errors import (
    Conflict,
    EngineUnavailable,
    ImageMissing,
    InfrastructureError,
    SandboxError,
    SessionLost,
)
from sandbox.link.link import printable


@contextmanager
def translated(doing: str, address: str) -> Generator[None]:
    """Raise what goes wrong inside as an error of ours.

    Args:
        doing: What is done, as in "could not …".

    Raises:
        EngineUnavailable: The engine cannot be reached, or does not answer in time.
        ImageMissing: The engine does not have the image.
        SessionLost: The container is gone or does not run.
        Conflict: The name is taken, or the container is in a state in which this cannot be done.
        InfrastructureError: The engine refused for another reason, which the message tells.
    """
    try:
        yield
    except docker.errors.ImageNotFound as exc:
        raise ImageMissing(
            f"The engine could not {doing}: {_reason(exc)}",
            remedy="`sandbox image build` makes the images.",
        ) from exc
    except docker.errors.APIError as exc:
        raise refused(doing, exc.status_code or 0, _reason(exc)) from exc
    except (requests.exceptions.RequestException, OSError, EOFError) as exc:
        raise unavailable(address, exc) from exc
    except docker.errors.DockerException as exc:
        raise InfrastructureError(f"The engine could not {doing}: {exc}") from exc


def refused(doing: str, status: int, reason: str) -> SandboxError:
    """The error for an answer of the engine with this HTTP status."""
    text = f"The engine could not {doing}: {printable(reason)}"
    if status == 404:
        return SessionLost(text)
    if status == 409:
        return Conflict(text)
    if status == 503:
        return EngineUnavailable(text)
    return InfrastructureError(text)


def unavailable(address: str, cause: BaseException) -> EngineUnavailable:
    """The error for an engine that cannot be reached or does not answer."""
    text = str(cause)
    remedy = "Start the Docker Engine, or point DOCKER_HOST at one; `sandbox doctor` tells more."
    if isinstance(cause, (requests.exceptions.Timeout, TimeoutError)):
        what = "did not answer in time"
    elif "Permission denied" in text or isinstance(cause, PermissionError):
        what = "may not be used by this user"
        remedy = "Add the user to the group that owns the engine's socket (often `docker`)."
    elif "SSL" in text or "certificate" in text.lower():
        what = f"could not be reached over TLS ({printable(text, 300)})"
        remedy = "Check DOCKER_CERT_PATH and the certificates in it."
    elif "refused" in text or "No such file" in text:
        what = "is not there: nothing listens"
    else:
        what = f"could not be reached ({printable(text, 300)})"
    return EngineUnavailable(f"The container engine at {address} {what}.", remedy=remedy)


def _reason(exc: docker.errors.APIError) -> str:
    return str(exc.explanation or exc)
