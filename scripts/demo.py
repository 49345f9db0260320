"""``make demo``: start a controller and run a real analysis in a sandbox, over MCP, step by step.

Everything goes through the front door: the official MCP client talks HTTP to ``sandbox serve``,
which runs on a free port with a state directory of its own and is stopped at the end. Where
``SANDBOX_URL`` names a controller that runs already, that one is used, with ``SANDBOX_TOKEN``.
"""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import nbformat
from mcp import Client
from mcp_types import ImageContent
from rich.console import Console
from rich.syntax import Syntax

from scripts.controller import Controller, ControllerFailed, controller

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
NOTEBOOK = OUTPUT / "session.ipynb"

console = Console(highlight=False, soft_wrap=True)

ANALYSIS = """\
import pandas as pd
import matplotlib.pyplot as plt

iris = pd.read_csv("iris.csv")
means = iris.groupby("species").mean().round(2)
means.to_csv("means.csv")

for species, group in iris.groupby("species"):
    plt.scatter(group.petal_length_cm, group.petal_width_cm, label=species)
plt.xlabel("petal length, cm"); plt.ylabel("petal width, cm"); plt.legend()
plt.show()
means
"""

SCORE = """\
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

features = iris.drop(columns="species")
scores = cross_val_score(LogisticRegression(max_iter=500), features, iris.species)
print(f"accuracy, 5-fold: {scores.mean():.3f} (iris is still here: {len(iris)} rows)")
"""

NETWORK = """\
import urllib.request
urllib.request.urlopen("https://example.com", timeout=5)
"""


class DemoFailed(Exception):
    """A step did not show what it must show."""


def step(title: str) -> None:
    """Announce a step."""
    console.print(f"\n[bold cyan]▶ {title}[/]")


def show_code(code: str) -> None:
    """Show what runs in the sandbox."""
    console.print(
        Syntax(code.rstrip(), "python", theme="ansi_dark", background_color="default"),
        soft_wrap=False,
    )


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool and return its structured result.

    Raises:
        DemoFailed: The tool gave no structured result.
    """
    told, _ = await shown(client, tool, **arguments)
    return told


async def shown(client: Client, tool: str, **arguments: Any) -> tuple[dict[str, Any], list[bytes]]:
    """Call a tool and return its structured result, and its pictures.

    Raises:
        DemoFailed: The tool gave no structured result.
    """
    result = await client.call_tool(tool, arguments)
    if result.structured_content is None:
        text = " ".join(getattr(block, "text", "") for block in result.content)
        raise DemoFailed(f"{tool}: {text}")
    images = [block for block in result.content if isinstance(block, ImageContent)]
    return result.structured_content, [base64.b64decode(image.data) for image in images]


def expect(condition: bool, what: str) -> None:
    """Stop the demo when a step did not do what it is there to show."""
    if not condition:
        raise DemoFailed(what)


@contextmanager
def served() -> Iterator[Controller]:
    """The controller that the environment names, or one of our own for the time of the block.

    Raises:
        DemoFailed: One is named without its token.
        ControllerFailed: Our own did not start.
    """
    url = os.environ.get("SANDBOX_URL", "")
    if not url:
        step("Start the controller: sandbox serve")
        with controller() as own:
            yield own
        return
    token = os.environ.get("SANDBOX_TOKEN", "")
    if not token:
        raise DemoFailed("SANDBOX_URL names a controller, and SANDBOX_TOKEN must hold its token.")
    step(f"Connect to the controller at {url}")
    yield Controller(url.rstrip("/").removesuffix("/mcp/v1"), token)


async def analyse(server: Controller) -> None:
    """Walk through the steps; the session is closed however they end."""
    async with server.client() as client:
        tools = await client.list_tools()
        console.print(f"  {len(tools.tools)} tools at {server.url}")

        step("Open a session: a container of its own under the policy “datascience”")
        started = time.perf_counter()
        session = await call(client, "open_session", policy="datascience")
        console.print(
            f"  {session['session_id']} on {session['runtime']}, image {session['image']}, "
            f"in {time.perf_counter() - started:.2f} s"
        )
        here = {"session_id": session["session_id"]}
        try:
            await work(client, here)
            await keep(server, here["session_id"])
        finally:
            step("Close the session: container, files and processes are gone")
            await call(client, "close_session", **here)


async def work(client: Client, here: dict[str, str]) -> None:
    """What is done in the session."""
    step("Write a file into it: 150 irises")
    content = (ROOT / "examples" / "iris.csv").read_text()
    written = await call(client, "write_file", path="iris.csv", content=content, **here)
    console.print(f"  {written['path']}, {written['size']} bytes")

    step("Analyse it with pandas in a Jupyter kernel")
    show_code(ANALYSIS)
    result, pictures = await shown(client, "execute_code", code=ANALYSIS, **here)
    expect(result["status"] == "ok", f"the analysis ended as {result['status']}: {result}")
    console.print(result["text"], markup=False)
    expect(len(pictures) == 1, "no picture came back")
    image = OUTPUT / "iris.png"
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(pictures[0])
    console.print(f"  [green]the picture is saved as {image.relative_to(ROOT)}[/]")

    step("Go on in the same kernel: its variables are kept")
    show_code(SCORE)
    result = await call(client, "execute_code", code=SCORE, **here)
    expect(result["status"] == "ok", f"the model ended as {result['status']}: {result}")
    console.print(result["text"], markup=False)

    step("Run a shell command: ls -l; id; wc -l *.csv")
    ran = await call(client, "run_command", command="ls -l; id; wc -l *.csv", **here)
    expect(ran["exit_code"] == 0, f"the command failed: {ran}")
    console.print(ran["stdout"].rstrip())

    step("Read back the file that the analysis wrote")
    read = await call(client, "read_file", path="means.csv", **here)
    console.print(read["content"].rstrip())
    (OUTPUT / "means.csv").write_text(read["content"])

    step("Try to reach the network: the policy says none")
    show_code(NETWORK)
    denied = await call(client, "execute_code", code=NETWORK, **here)
    expect(denied["status"] == "error", f"the network was reachable: {denied}")
    expect(bool(denied.get("denials")), f"no rule is named: {denied}")
    for denial in denied["denials"]:
        console.print(f"  [green]denied:[/] {denial}")


async def keep(server: Controller, session_id: str) -> None:
    """Save what the session did as a notebook, which Jupyter opens and which runs again."""
    step("Keep what was done as a notebook")
    async with httpx2.AsyncClient(base_url=server.base, headers=server.headers) as http:
        answer = await http.get(f"/mcp/v1/sessions/{session_id}/export")
    expect(answer.status_code == 200, f"no notebook came: {answer.status_code} {answer.text}")
    NOTEBOOK.write_bytes(answer.content)
    made = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(made)
    codes = [cell for cell in made.cells if cell.cell_type == "code"]
    expect([cell.source for cell in codes[:2]] == [ANALYSIS, SCORE], "its cells are not ours")
    pictures = sum("image/png" in each.get("data", {}) for cell in codes for each in cell.outputs)
    expect(pictures == 1, f"it has {pictures} pictures")
    console.print(
        f"  [green]{NOTEBOOK.relative_to(ROOT)}: {len(codes)} cells with their outputs[/]\n"
        f"  open it:      jupyter lab {NOTEBOOK.relative_to(ROOT)}\n"
        f"  run it again: .venv/bin/sandbox notebook run --policy datascience "
        f"--with examples/iris.csv {NOTEBOOK.relative_to(ROOT)}"
    )


def main() -> int:
    """Run the demo; the exit code says whether every step showed what it must."""
    console.print("[bold]A sandboxed executor: one container per session, over MCP[/]")
    try:
        with served() as server:
            anyio.run(analyse, server)
    except (DemoFailed, ControllerFailed) as failure:
        console.print(f"[bold red]The demo failed:[/] {failure}")
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; its sandbox is gone.")
        return 130
    console.print(
        "\n[bold green]Done.[/] The picture, the table and the notebook are in demo-output/. "
        "Next: `make serve`, then connect your MCP client (see README.md)."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
