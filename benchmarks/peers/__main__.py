"""``make bench-peers``: measure this project and its peers in turns; print, and write the page."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks import pages
from benchmarks.peers import environments, images, page, table
from benchmarks.peers.contenders import CONTENDERS, Contender
from benchmarks.peers.protocol import ROOT, Adapter, AdapterFailed, AdapterGone
from benchmarks.peers.samples import Run
from benchmarks.peers.steps import FILE_BYTES, FILE_NAME, Measuring, Step, plan

FOLDER = environments.FOLDER
RESULT = ROOT / "benchmarks/peers.json"
START_TIMEOUT_S = 300
LABEL = "sandbox-peers"


class Field:
    """The adapters of a run, each started when it is first needed."""

    def __init__(self, run: Run, contenders: Sequence[Contender], folder: Path) -> None:
        self._run = run
        self._contenders = {each.name: each for each in contenders}
        self._folder = folder
        self._adapters: dict[str, Adapter] = {}

    def take(self, step: Step, programs_s: float) -> None:
        """Take one step; what cannot be measured is noted."""
        contender = self._contenders[step.contender]
        try:
            adapter = self._started(contender)
            Measuring(self._run, contender, adapter, self._folder).step(step.kind, programs_s)
        except AdapterGone as gone:
            if not gone.is_noted:
                self._run.note(contender.name, step.kind, str(gone))
            self.stop(contender.name)
        except (environments.EnvironmentFailed, images.ImageFailed) as failed:
            # What installers say may name machines, which are nobody's business on a page.
            log = FOLDER / f"{contender.name}.log"
            log.write_text(str(failed))
            self._run.note(contender.name, step.kind, f"it cannot be installed: {log.name}")
        except AdapterFailed as failed:
            self._run.note(contender.name, step.kind, str(failed))
        if step.kind == "alone":
            self.stop(contender.name)

    def stop(self, name: str) -> None:
        """Stop one adapter, and remove what its contender has left."""
        if adapter := self._adapters.pop(name, None):
            adapter.stop()
        if image := self._contenders[name].image:
            _remove("ancestor=" + images.image_of(image), [*self._users_of(image)])
        if name == "docker":
            _remove(f"label={LABEL}", [])

    def stop_all(self) -> None:
        """Stop every adapter."""
        for name in [*self._adapters]:
            self.stop(name)

    def _users_of(self, image: str) -> list[str]:
        """Running contenders that have containers of that image."""
        return [name for name in self._adapters if self._contenders[name].image == image]

    def _started(self, contender: Contender) -> Adapter:
        known = self._adapters.get(contender.name)
        if known is not None and known.is_running:
            return known
        python = environments.python_of(contender.environment)
        image = images.image_of(contender.image)
        if contender.package:
            version = environments.version_of(python, contender.package)
            self._run.versions[contender.name] = version
        adapter = Adapter(
            [str(python), "-m", f"benchmarks.peers.adapters.{contender.adapter}"],
            FOLDER / f"{contender.name}.log",
            {"PYTHONPATH": str(ROOT)},
        )
        self._adapters[contender.name] = adapter
        settings = {"image": image, "folder": str(self._folder), **contender.settings}
        adapter.ask("start", timeout_s=START_TIMEOUT_S, **settings)
        return adapter


def main() -> int:
    """Measure; the exit code is 0 even where a peer cannot be had: the table says so."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    names = [each.name for each in CONTENDERS]
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"some of: {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="fewer turns, to see that it works")
    parser.add_argument("--new", action="store_true", help="do not go on with a run that stopped")
    parser.add_argument("--page", action="store_true", help="write the page of the last whole run")
    chosen = parser.parse_args()
    if unknown := set(chosen.only) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: there is {', '.join(names)}")
    console = Console(width=200)
    if chosen.page:
        publish(Run.load(RESULT))
        return 0
    is_whole = not (chosen.only or chosen.quick)
    contenders = [each for each in CONTENDERS if not chosen.only or each.name in chosen.only]
    rounds, bulks, programs, programs_s = (2, 1, 1, 3.0) if chosen.quick else (5, 2, 2, 6.0)
    what = {
        "contenders": [each.name for each in contenders],
        "turns": [rounds, bulks, programs],
        "programs_s": programs_s,
        "code": _digest(),
    }
    unfinished = FOLDER / "unfinished.json"
    if chosen.new:
        unfinished.unlink(missing_ok=True)
    run = Run.begun(unfinished, what)
    run.machine = pages.machine()
    steps = plan(what["contenders"], rounds, bulks, programs)
    measure(run, contenders, steps, programs_s, unfinished, console)
    table.show(run, console)
    run.save(RESULT if is_whole else FOLDER / "part.json")
    if is_whole:
        publish(run)
    unfinished.unlink(missing_ok=True)
    return 0


def measure(
    run: Run,
    contenders: Sequence[Contender],
    steps: Sequence[Step],
    programs_s: float,
    unfinished: Path,
    console: Console,
) -> None:
    """Take the steps that are not done yet."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=FOLDER)))
        # Text, for who can only read text.
        (folder / FILE_NAME).write_text(os.urandom(FILE_BYTES // 2).hex())
        field = Field(run, contenders, folder)
        stack.callback(field.stop_all)
        for number, step in enumerate(steps, start=1):
            if step.key in run.done:
                continue
            with console.status(f"{number}/{len(steps)}: {step.key}"):
                field.take(step, programs_s)
            run.done.append(step.key)
            run.save(unfinished)


def publish(run: Run) -> None:
    """Write the page and draw its pictures."""
    page.write(run)
    titles = {each.name: each.title for each in CONTENDERS}
    python = environments.python_of("plots")
    script = Path(__file__).with_name("plots.py")
    subprocess.run(
        [str(python), str(script), str(RESULT), str(ROOT / "docs/images")],
        input=json.dumps(titles),
        text=True,
        check=True,
    )


def _digest() -> str:
    """Of all code that a run measures with."""
    found = hashlib.sha256()
    for folder in ("sandbox", "images", "benchmarks/peers"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in {".py", ".txt", ".yaml"} and path.is_file():
                found.update(path.read_bytes())
    return found.hexdigest()


def _remove(condition: str, users: Sequence[str]) -> None:
    """Remove containers that an adapter has left, unless another one may have them."""
    if users:
        return
    listed = subprocess.run(
        ["docker", "ps", "--all", "--quiet", "--filter", condition], capture_output=True, text=True
    )
    if left := listed.stdout.split():
        subprocess.run(["docker", "rm", "--force", *left], capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
