"""The images as the engine has them, and building them; needs the images of `make setup`."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import ImageNotFound

from sandbox import resources
from sandbox.container import images
from sandbox.errors import EngineUnavailable, InfrastructureError
from sandbox.runtimes.docker import build as builder
from sandbox.runtimes.docker.endpoint import Endpoint, find_endpoint

NAMES = ("python", "datascience")
LABEL = "io.sandbox.image-test"
# As a session has: of nobody in the image.
UID = 54321


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def client() -> Iterator[builder.ImageClient]:
    made = builder.connect(find_endpoint("", "", os.environ))
    yield made
    made.close()


def inside(engine: docker.DockerClient, name: str, script: str, **options: Any) -> str:
    """What a shell script prints in a fresh container of an image, as an ordinary user."""
    options = {"user": f"{UID}:{UID}", "read_only": True, **options}
    return engine.containers.run(
        images.reference(name),
        ["bash", "-euc", script],
        network_mode="none",
        tmpfs=dict.fromkeys(("/tmp", "/workspace"), f"uid={UID},gid={UID},mode=0755"),
        labels={LABEL: "yes"},
        remove=True,
        **options,
    ).decode()


@pytest.mark.parametrize("name", NAMES)
def test_set_up_has_built_the_image_of_this_version(client: builder.ImageClient, name: str) -> None:
    assert builder.is_current(client, name)


@pytest.mark.parametrize("name", NAMES)
def test_building_what_is_current_does_nothing(client: builder.ImageClient, name: str) -> None:
    told: list[str] = []
    assert builder.build(client, name, progress=told.append) == images.reference(name)
    assert told == []


@pytest.mark.parametrize("name", NAMES)
def test_no_file_can_raise_anyones_rights(engine: docker.DockerClient, name: str) -> None:
    # As root, who can look everywhere.
    assert inside(engine, name, "find / -xdev -perm /6000", user="0") == ""
    capable = (
        "import os; print([os.path.join(r, n) for r, _, ns in os.walk('/usr') for n in ns "
        "if 'security.capability' in os.listxattr(os.path.join(r, n), follow_symlinks=False)])"
    )
    assert inside(engine, name, f'python3 -c "{capable}"', user="0") == "[]\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_image_is_for_an_ordinary_user(engine: docker.DockerClient, name: str) -> None:
    config = engine.images.get(images.reference(name)).attrs["Config"]
    assert config["User"] == "1000:1000"
    assert config["Cmd"] == ["/usr/bin/python3", "-I", "/opt/sandbox"]
    assert not config["Entrypoint"]
    assert not config["Volumes"]
    assert config["WorkingDir"] == "/workspace"


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_the_build_is_left_in_the_image(engine: docker.DockerClient, name: str) -> None:
    assert inside(engine, name, "ls -A /build /root/.cache 2>/dev/null || true", user="0") == ""
    history = json.dumps(engine.images.get(images.reference(name)).history())
    assert "PIP_" not in history.replace("PIP_NO_CACHE_DIR", "").replace(
        "PIP_DISABLE_PIP_VERSION_CHECK", ""
    )
    assert "apt-get" not in history


@pytest.mark.parametrize("name", NAMES)
def test_the_usual_programs_run_for_any_uid(engine: docker.DockerClient, name: str) -> None:
    script = """
        for program in python python3 pip git curl less vim top ps \\
            file jq make patch rg sqlite3 tree unzip zip
        do command -v $program; done
        git --version; vim --version | head -1; top -b -n 1 | head -1
        pip check
        git init -q /workspace/repository
        python3 -m venv /tmp/environment
    """
    told = inside(engine, name, script)
    assert "No broken requirements found." in told


@pytest.mark.parametrize("name", NAMES)
def test_jupyter_finds_its_python_kernel(engine: docker.DockerClient, name: str) -> None:
    listed = json.loads(inside(engine, name, "jupyter kernelspec list --json 2>/dev/null"))
    assert set(listed["kernelspecs"]) == {"python3"}


def test_pip_installs_into_the_users_folder(engine: docker.DockerClient) -> None:
    script = """
        python - <<'WHEEL'
import zipfile
with zipfile.ZipFile("mine-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("mine.py", "here = __file__")
    about = "mine-1.dist-info"
    wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\\nName: mine\\nVersion: 1\\n")
    wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
    wheel.writestr(f"{about}/RECORD", "")
WHEEL
        pip install --quiet --no-index ./mine-1-py3-none-any.whl
        python -c 'import mine; print(mine.here)'
    """
    told = inside(engine, "python", script)
    assert told == "/workspace/.local/lib/python3.11/site-packages/mine.py\n"


def test_the_data_science_packages_work_on_a_read_only_root(engine: docker.DockerClient) -> None:
    script = """
        python3 - <<'CELL'
import io, warnings
warnings.simplefilter("error")
import matplotlib.pyplot as plt, numpy as np, openpyxl, pandas as pd, pyarrow, scipy.stats
from PIL import Image
from sklearn.linear_model import LinearRegression
frame = pd.DataFrame({"x": np.arange(5.0), "y": np.arange(5.0) * 2})
frame.to_parquet("frame.parquet"); frame.to_excel("frame.xlsx")
assert pd.read_parquet("frame.parquet").equals(frame)
assert round(LinearRegression().fit(frame[["x"]], frame.y).coef_[0]) == 2
assert round(scipy.stats.linregress(frame.x, frame.y).slope) == 2
frame.plot(x="x", y="y"); plt.savefig("plot.png")
print(Image.open("plot.png").size)
CELL
    """
    assert inside(engine, "datascience", script) == "(640, 480)\n"


def test_the_usual_packages_of_data_science_are_there(engine: docker.DockerClient) -> None:
    script = """
        python3 - <<'CELL'
import warnings
warnings.simplefilter("error")
import altair, bs4, docx, duckdb, jinja2, lxml, networkx, polars, pypdf, requests, seaborn, tqdm
import io, pandas as pd, plotly.express as px, statsmodels.api as sm, sympy, xlsxwriter
frame = pd.DataFrame({"a": [1, 2], "b": [2, 4]})
print(frame.to_markdown(index=False).splitlines()[0])
assert "<table" in frame.style.to_html() and pd.read_html(io.StringIO(frame.to_html()))
assert frame.plot(x="a", y="b") and px.line(frame, x="a", y="b").to_json()
assert altair.Chart(frame).mark_point().encode(x="a", y="b").to_dict()
assert round(sm.OLS(frame.b, frame.a).fit().params["a"]) == 2
assert sympy.integrate(sympy.Symbol("x")) and polars.from_pandas(frame).sum().row(0) == (3, 6)
print(duckdb.sql("select sum(b) from frame").fetchall()[0][0])
CELL
    """
    assert inside(engine, "datascience", script) == "|   a |   b |\n6\n"


@pytest.mark.parametrize(
    "style", ["pass", "plt.style.use('seaborn-v0_8')", "import seaborn; seaborn.set_theme()"]
)
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_pictures_have_letters_of_any_script_and_emoji(
    engine: docker.DockerClient, style: str, kind: str
) -> None:
    script = f"""
        python3 - <<'CELL'
import warnings
warnings.simplefilter("error")
import matplotlib.pyplot as plt
{style}
plt.title("é Ж 销售 売上 カタ 매출 臺灣 🚀✅📈👍"); plt.plot([-1, 2]); plt.savefig("plot.{kind}")
CELL
        stat --format=%n plot.{kind}
    """
    assert inside(engine, "datascience", script) == f"plot.{kind}\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_supervisor_is_compiled_and_imports_nothing_of_the_sessions(
    engine: docker.DockerClient, name: str
) -> None:
    script = """
        echo 'raise SystemExit("shadowed")' | tee socket.py > json.py
        export PYTHONPATH=/workspace
        python3 -I - <<'START'
import pathlib, sys
root = pathlib.Path("/opt/sandbox")
sys.path.insert(0, str(root))
import sandbox.supervisor.main, sandbox.link.wire
sources = list(root.rglob("*.py"))
missing = [s for s in sources if not list((s.parent / "__pycache__").glob(f"{s.stem}.*.pyc"))]
print(len(sources) > 5, missing, sandbox.link.wire.__file__)
START
    """
    assert inside(engine, name, script) == "True [] /opt/sandbox/sandbox/link/wire.py\n"


class Own:
    """A folder of recipes of a test's own, and images that go when the test ends."""

    def __init__(self, folder: Path, engine: docker.DockerClient) -> None:
        self.folder = folder
        self.name = f"test-{uuid.uuid4().hex[:8]}"
        self._engine = engine

    def write(self, *lines: str) -> None:
        recipe = self.folder / self.name
        recipe.mkdir(exist_ok=True)
        head = ("ARG BASE=sandbox/python-deps", "FROM ${BASE} AS build", "ARG STAGE")
        label = "LABEL io.sandbox.stage=${STAGE}"
        (recipe / "Dockerfile").write_text("\n".join([*head, label, *lines]) + "\n")
        images.recipes.cache_clear()

    def references(self) -> list[str]:
        listed = self._engine.api.images(name=f"sandbox/{self.name}*")
        return [tag for image in listed for tag in image["RepoTags"]]

    def remove(self) -> None:
        for reference in self.references():
            self._engine.api.remove_image(reference)


@pytest.fixture
def own(
    tmp_path: Path, engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Own]:
    folder = tmp_path / "images"
    shutil.copytree(resources.images(), folder)
    monkeypatch.setattr(resources, "images", lambda: folder)
    made = Own(folder, engine)
    yield made
    made.remove()
    images.recipes.cache_clear()


def dangling(engine: docker.DockerClient) -> set[str]:
    return {image["Id"] for image in engine.api.images(filters={"dangling": True})}


def containers(engine: docker.DockerClient) -> set[str]:
    return {one["Id"] for one in engine.api.containers(all=True, filters={"status": "exited"})}


def test_a_change_builds_the_changed_steps_only(
    own: Own, client: builder.ImageClient, engine: docker.DockerClient
) -> None:
    own.write("RUN echo one > /tmp/one", "FROM ${BASE}", "COPY --from=build /tmp/one /opt/one")
    before = dangling(engine)
    told: list[str] = []
    first = builder.build(client, own.name, progress=told.append)
    built = {line.split(":")[0] for line in told}
    assert built == {f"{own.name}-deps", own.name}
    assert inside(engine, own.name, "cat /opt/one") == "one\n"
    assert dangling(engine) <= before

    with (own.folder / "supervisor" / "Dockerfile").open("a") as recipe:
        recipe.write("# another\n")
    images.recipes.cache_clear()
    told.clear()
    second = builder.build(client, own.name, progress=told.append)
    assert second != first
    assert {line.split(":")[0] for line in told} == {own.name}
    assert engine.images.get(f"sandbox/{own.name}:latest").id == engine.images.get(second).id


def test_certificates_of_the_build_are_there_during_it_and_not_after(
    own: Own, client: builder.ImageClient, engine: docker.DockerClient, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("the extra certificate\n")
    own.write(
        "USER root",
        "ARG PIP_CERT",
        "COPY build/ /build/",
        'RUN tail -n 1 "$PIP_CERT" > /tmp/seen',
        "FROM ${BASE}",
        "COPY --from=build /tmp/seen /opt/seen",
    )
    builder.build(client, own.name, progress=lambda line: None, ca_bundle=bundle)
    assert inside(engine, own.name, "cat /opt/seen") == "the extra certificate\n"
    assert inside(engine, own.name, "ls /build 2>/dev/null || echo none") == "none\n"


def test_a_step_that_fails_is_told_with_its_last_words_and_leaves_no_image(
    own: Own, client: builder.ImageClient, engine: docker.DockerClient
) -> None:
    own.write("RUN echo the reason && exit 3")
    before = containers(engine)
    with pytest.raises(InfrastructureError, match=r"(?s)the reason.*returned a non-zero code: 3"):
        builder.build(client, own.name, progress=lambda line: None)
    assert own.references() == []
    assert containers(engine) <= before
    assert not builder.is_current(client, own.name)


# docker-py leaves the socket that it could not connect to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_absent_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no-engine"):
        builder.connect(Endpoint(f"unix://{tmp_path}/no-engine"))
    gc.collect()


def test_a_wheel_means_the_same_images_as_its_checkout(tmp_path: Path) -> None:
    checkout = resources.checkout()
    assert checkout is not None
    copy, built, installed = (tmp_path / name for name in ("checkout", "built", "installed"))
    copy.mkdir()
    for folder in ("sandbox", "images", "policies"):
        shutil.copytree(checkout / folder, copy / folder)
    for file in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(checkout / file, copy)

    python("-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(copy))
    (wheel,) = built.glob("*.whl")
    python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel))

    script = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from sandbox import resources; from sandbox.container import images\n"
        "assert (resources.policies() / 'seccomp').is_dir()\n"
        "print(resources.checkout() is not None)\n"
        "print(json.dumps({name: made.reference for name, made in images.recipes().items()}))"
    )
    from_checkout, meant = python("-c", script, str(copy)).splitlines()
    from_wheel, also_meant = python("-c", script, str(installed)).splitlines()
    assert (from_checkout, from_wheel) == ("True", "False")
    assert json.loads(meant) == json.loads(also_meant)


def python(*arguments: str) -> str:
    """What this environment's Python prints, isolated from the folder the tests run in."""
    done = subprocess.run(
        [sys.executable, "-I", *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout


def test_no_image_of_a_test_is_left(engine: docker.DockerClient) -> None:
    assert engine.api.images(name="sandbox/test-*") == []
    with pytest.raises(ImageNotFound):
        engine.images.get("sandbox/test:latest")
