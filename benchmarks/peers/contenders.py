"""Who is measured, how each is used, and what is measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measure:
    """One thing that is measured of every contender that has it."""

    name: str
    title: str
    unit: str
    less_is_better: bool = True


SESSION_MEASURES = (
    Measure("open", "open", "ms"),
    Measure("first", "open → first result", "ms"),
    Measure("next", "next result", "ms"),
    Measure("pandas", "`import pandas`", "ms"),
    Measure("restart", "restart → result", "ms"),
    Measure("close", "close", "ms"),
)
BULK_MEASURES = (
    Measure("output", "10 MB of output", "ms"),
    Measure("put", "100 MB file in", "ms"),
    Measure("get", "100 MB file out", "ms"),
    Measure("programs", "fresh sandbox per program", "/s", less_is_better=False),
    Measure("memory", "idle session, PSS", "MB"),
    Measure("memory_each", "each of three, PSS", "MB"),
)
MEASURES = SESSION_MEASURES + BULK_MEASURES


@dataclass(frozen=True)
class Contender:
    """One column of the comparison.

    Attributes:
        adapter: A module of :mod:`benchmarks.peers.adapters`.
        environment: A file of ``requirements/``; empty for the project's own environment.
        image: A key of :data:`benchmarks.peers.images.RECIPES`; empty for our image as it is.
        package: What is asked for its version in that environment.
        folder: Where its files are, in the sandbox.
        is_ours: Whether it is this project.
        keeps: What stays from one piece of code to the next, in words.
        about: How it is used here, in a sentence.
    """

    name: str
    title: str
    adapter: str
    keeps: str
    about: str
    environment: str = ""
    image: str = ""
    package: str = ""
    folder: str = "/workspace"
    is_ours: bool = False
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


CONTENDERS = (
    Contender(
        name="ours",
        title="this project, pool",
        adapter="ours",
        is_ours=True,
        keeps="variables",
        settings={"pool": "true", "policy": "peers"},
        about="`sandbox serve` as it is by default, with sandboxes kept ready.",
    ),
    Contender(
        name="ours-cold",
        title="this project, no pool",
        adapter="ours",
        is_ours=True,
        keeps="variables",
        settings={"pool": "false", "policy": "peers"},
        about="The same with `SANDBOX_POOL=false`: each sandbox is made when it is asked for.",
    ),
    Contender(
        name="ours-preload",
        title="this project, pool, preload",
        adapter="ours",
        is_ours=True,
        keeps="variables",
        settings={"pool": "true", "policy": "peers-preload"},
        about="The pool, and a policy with `preload: [numpy, pandas]`.",
    ),
    Contender(
        name="docker",
        title="docker run",
        adapter="dockerrun",
        keeps="files",
        about="A container that sleeps, `docker exec IMAGE python3 -c` for each piece of code; "
        "`docker run --rm` for a program. What a container costs without anything around it.",
    ),
    Contender(
        name="jupyter",
        title="jupyter_client",
        adapter="barejupyter",
        environment="jupyterclient",
        package="jupyter-client",
        keeps="variables",
        about="A kernel on this machine, in no container: nothing is isolated. What a kernel costs "
        "without anything around it.",
    ),
    Contender(
        name="llm-interactive",
        title="llm-sandbox, interactive",
        adapter="llminteractive",
        environment="llmsandbox",
        package="llm-sandbox",
        image="llmsandbox",
        folder="/sandbox",
        keeps="variables",
        about="`InteractiveSandboxSession(image=…, keep_template=True)`.",
    ),
    Contender(
        name="llm-pool",
        title="llm-sandbox, pool",
        adapter="llmpool",
        environment="llmsandbox",
        package="llm-sandbox",
        image="llmsandbox",
        folder="/sandbox",
        keeps="files",
        about="`SandboxSession(pool=…)` with a pool of two. The pool gives used containers out "
        "again, with the files of who had them before; for programs there is a second pool with "
        "`max_container_uses=1`, so that each gets a container of its own.",
    ),
    Contender(
        name="swe-rex",
        title="SWE-ReX",
        adapter="swerexdocker",
        environment="swerex",
        package="swe-rex",
        image="swerex",
        keeps="the shell",
        about="`DockerDeployment(image=…)` and one Bash session, in which each piece of code is "
        "`python3 -c`.",
    ),
    Contender(
        name="autogen",
        title="AutoGen, Docker Jupyter",
        adapter="autogenjupyter",
        environment="autogen",
        package="autogen-ext",
        image="autogen",
        keeps="variables",
        about="`DockerJupyterServer(custom_image_name=…, bind_dir=…)` and one "
        "`DockerJupyterCodeExecutor`. Files go through the folder that both sides have: they are "
        "copied on this machine.",
    ),
    Contender(
        name="smolagents",
        title="smolagents, Docker",
        adapter="smolagentsdocker",
        environment="smolagents",
        package="smolagents",
        image="smolagents",
        keeps="variables",
        about="`DockerExecutor(image_name=…, build_new_image=False)`.",
    ),
    Contender(
        name="ipybox",
        title="ipybox 0.6",
        adapter="ipyboxkernel",
        environment="ipybox",
        package="ipybox",
        image="ipybox",
        folder="/app",
        keeps="variables",
        about="`ExecutionContainer(tag=…)` and one `ExecutionClient`, whose firewall is not asked "
        "for; files through `ResourceClient`. A restart is a new client, which has a new kernel.",
    ),
)
