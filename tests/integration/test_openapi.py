"""The OpenAPI document against a real controller: what it allows is sent, and what comes is what
it says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ..support.environments import python_with
from ..support.served import Served

MAX_S = 45
"""Of sending; what is found is made smaller after that."""
LIMIT_S = 240
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
    "ignored_auth",
)
LEFT_OUT = ("close_session", "close_anybodys_session", "stop_kernel", "close_terminal")
"""Of one of these all others would find nothing any more; each is tested by itself."""
CONFIG = """\
headers = {{ Authorization = "Bearer {token}" }}
[parameters]
"path.session_id" = "{session_id}"
"path.kernel_id" = "k-default"
"path.execution_id" = "{execution_id}"
"path.command_id" = "{command_id}"
"path.terminal_id" = "{terminal_id}"
"query.wait" = "0.1"
"""


@pytest.fixture
def python() -> Path:
    return python_with("schemathesis")


@contextmanager
def in_use(served: Served) -> Iterator[dict[str, str]]:
    """A session in which something has run, and the ids of that."""
    with httpx2.Client(base_url=served.base, headers=served.headers, timeout=120) as http:

        def made(path: str, **body: Any) -> dict[str, Any]:
            answer = http.post(f"/mcp/v1/sessions{path}", json=body)
            assert answer.status_code == 201, answer.text
            return answer.json()

        session_id = made("")["session_id"]
        one = f"/{session_id}"
        yield {
            "session_id": session_id,
            "execution_id": made(f"{one}/executions", code="1+1")["execution_id"],
            "command_id": made(f"{one}/commands", command="echo hi")["command_id"],
            "terminal_id": made(f"{one}/terminals")["terminal_id"],
        }


def test_what_is_sent_at_random_finds_no_server_error_and_no_undocumented_answer(
    clean: Served, python: Path, tmp_path: Path
) -> None:
    config, report = tmp_path / "schemathesis.toml", tmp_path / "report.json"
    with in_use(clean) as ids:
        config.write_text(CONFIG.format(token=clean.token, **ids))
        done = subprocess.run(
            [
                *(str(python.with_name("schemathesis")), "--config-file", str(config), "run"),
                f"{clean.url}/openapi.json",
                *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
                *("--seed", "1", "--generation-deterministic", "--max-examples", "8"),
                *("--max-time", str(MAX_S), "--workers", "1", "--request-timeout", "60"),
                *("--no-shrink", "--continue-on-failure", "--suppress-health-check", "all"),
                *("--report", "json", "--report-json-path", str(report)),
                *(word for name in LEFT_OUT for word in ("--exclude-operation-id", name)),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert report.stat().st_size > 1000


def test_the_document_is_valid_openapi(clean: Served, python: Path) -> None:
    document = httpx2.get(f"{clean.url}/openapi.json").text
    assert json.loads(document)["openapi"].startswith("3.1.")
    code = "import json, sys, openapi_spec_validator as v; v.validate(json.load(sys.stdin))"
    done = subprocess.run(
        [python, "-I", "-c", code],
        input=document,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
