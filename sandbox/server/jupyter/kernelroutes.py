"""Kernels and their kinds, as a Jupyter Server lists, starts and ends them."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from starlette.responses import Response

from sandbox.errors import NotFound
from sandbox.kernels.kernels import DEFAULT_KERNEL_NAME
from sandbox.kernels.models import KernelInfo, KernelSpec
from sandbox.server.jupyter.about import timestamp
from sandbox.server.jupyter.visits import (
    JupyterRoute,
    Visit,
    Wanted,
    body,
    done,
    none_of_them,
    told,
)
from sandbox.sessions.session import Session


class KernelWanted(Wanted):
    """The body of ``POST /api/kernels``."""

    name: str | None = Field(default=None, max_length=200)


def routes() -> list[JupyterRoute]:
    """The kernels of a session."""
    one = "/api/kernels/{kernel_id}"
    return [
        JupyterRoute("/api/kernelspecs", "GET", ("list_kernels",), _specs, for_guest=_no_specs),
        JupyterRoute("/api/kernelspecs/{name}", "GET", ("list_kernels",), _spec),
        JupyterRoute("/kernelspecs/{name}/{file:path}", "GET", ("list_kernels",), _resource),
        JupyterRoute("/api/kernels", "GET", ("list_kernels",), _list, for_guest=none_of_them),
        JupyterRoute("/api/kernels", "POST", ("start_kernel",), _start),
        JupyterRoute(one, "GET", ("list_kernels",), _show),
        JupyterRoute(one, "DELETE", ("stop_kernel",), _stop),
        JupyterRoute(f"{one}/interrupt", "POST", ("interrupt_kernel",), _interrupt),
        JupyterRoute(f"{one}/restart", "POST", ("restart_kernel",), _restart),
    ]


def kernel_model(info: KernelInfo) -> dict[str, Any]:
    """A kernel as Jupyter clients know it."""
    return {
        "id": info.kernel_id,
        "name": info.name,
        "last_activity": timestamp(info.last_activity_at),
        "execution_state": info.state,
        "connections": 0,
        **({"reason": info.reason} if info.reason else {}),
    }


def kernel_of(session: Session, kernel_id: str) -> KernelInfo:
    """A kernel as it is now.

    Raises:
        NotFound: The session has no such kernel.
    """
    for info in session.kernels.infos:
        if info.kernel_id == kernel_id:
            return info
    raise NotFound(f"There is no kernel {kernel_id!r:.80}.", remedy="List or start kernels.")


async def _specs(visit: Visit) -> Response:
    found = await visit.session.kernels.kernelspecs()
    names = sorted(found)
    default = DEFAULT_KERNEL_NAME if DEFAULT_KERNEL_NAME in found else next(iter(names), "")
    models = {name: _spec_model(name, found[name]) for name in names}
    return told({"default": default, "kernelspecs": models})


async def _no_specs(_visit: Visit) -> Response:
    """A guest starts no kernels."""
    return told({"default": "", "kernelspecs": {}})


async def _spec(visit: Visit) -> Response:
    name = visit.param("name")
    found = await visit.session.kernels.kernelspecs()
    if name not in found:
        raise NotFound(f"There is no kernelspec {name!r:.80}.", remedy="List the kernelspecs.")
    return told(_spec_model(name, found[name]))


async def _resource(visit: Visit) -> Response:
    """No picture or script of a kernelspec is served: it would come from inside the sandbox."""
    raise NotFound("Files of kernelspecs are not served.")


def _spec_model(name: str, spec: KernelSpec) -> dict[str, Any]:
    """A kernelspec; how its kernels are started is the sandbox's own affair."""
    told_of = {
        "argv": list[str](),
        "env": dict[str, str](),
        "display_name": spec.display_name,
        "language": spec.language,
        "interrupt_mode": "signal",
        "metadata": dict[str, Any](),
    }
    return {"name": name, "spec": told_of, "resources": dict[str, str]()}


async def _list(visit: Visit) -> Response:
    return told([kernel_model(each) for each in visit.session.kernels.infos])


async def _start(visit: Visit) -> Response:
    wanted = await body(visit.request, KernelWanted)
    info = await visit.session.kernels.start(wanted.name or DEFAULT_KERNEL_NAME)
    location = f"{visit.base}/api/kernels/{info.kernel_id}"
    return told(kernel_model(info), 201, {"Location": location})


async def _show(visit: Visit) -> Response:
    return told(kernel_model(kernel_of(visit.session, visit.param("kernel_id"))))


async def _stop(visit: Visit) -> Response:
    await visit.session.kernels.stop(kernel_of(visit.session, visit.param("kernel_id")).kernel_id)
    return done()


async def _interrupt(visit: Visit) -> Response:
    await visit.session.kernels.interrupt(visit.param("kernel_id"))
    return done()


async def _restart(visit: Visit) -> Response:
    return told(kernel_model(await visit.session.kernels.restart(visit.param("kernel_id"))))
