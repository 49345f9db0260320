from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sandbox.errors import ConfigError
from sandbox.runtimes.docker.endpoint import LOCAL_SOCKET, find_endpoint


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Docker configuration of our own, with the contexts `near` and `far`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    hosts = {"near": "unix:///run/near.sock", "far": "ssh://me@far.test"}
    for name, host in hosts.items():
        folder = tmp_path / ".docker/contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
        folder.mkdir(parents=True)
        endpoint = {"Host": host, "SkipTLSVerify": False}
        meta = {"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}
        (folder / "meta.json").write_text(json.dumps(meta))
    return tmp_path / ".docker"


def test_without_any_word_it_is_the_local_socket() -> None:
    endpoint = find_endpoint("", "", {})
    assert (endpoint.url, endpoint.scheme, endpoint.tls) == (LOCAL_SOCKET, "unix", None)


def test_the_nearest_word_about_the_engine_wins(docker_config: Path) -> None:
    (docker_config / "config.json").write_text('{"currentContext": "near"}')
    assert find_endpoint("", "", {}).url == "unix:///run/near.sock"
    assert find_endpoint("", "", {"DOCKER_CONTEXT": "far"}).url == "ssh://me@far.test"
    environ = {"DOCKER_CONTEXT": "far", "DOCKER_HOST": "tcp://1.2.3.4:2375"}
    assert find_endpoint("", "", environ).url == "tcp://1.2.3.4:2375"
    assert find_endpoint("", "near", environ).url == "unix:///run/near.sock"
    assert find_endpoint("ssh://other.test", "near", environ).url == "ssh://other.test"


def test_certificates_come_from_the_path_that_the_environment_names(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("")
    environ = {
        "DOCKER_HOST": "tcp://1.2.3.4:2376",
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CERT_PATH": str(tmp_path),
    }
    tls = find_endpoint("", "", environ).tls
    assert tls is not None
    assert tls.verify
    assert (tls.ca, tls.certificate, tls.key) == tuple(
        str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")
    )


@pytest.mark.parametrize(
    ("host", "context", "environ"),
    [
        ("http://1.2.3.4", "", {}),
        ("tcp://1.2.3.4", "", {}),
        ("tcp://1.2.3.4:x", "", {}),
        ("ssh://", "", {}),
        ("ssh://host:99999", "", {}),
        ("ssh://me:secret@host", "", {}),
        ("/var/run/docker.sock", "", {}),
        ("npipe:////./pipe/docker", "", {}),
        ("", "absent", {}),
        ("", "", {"DOCKER_CONTEXT": "absent"}),
        ("", "", {"DOCKER_HOST": "tcp://1.2.3.4:2376", "DOCKER_CERT_PATH": "/nowhere"}),
    ],
)
def test_an_address_that_cannot_be_used_is_never_taken_for_the_local_socket(
    host: str, context: str, environ: dict[str, str]
) -> None:
    with pytest.raises(ConfigError):
        find_endpoint(host, context, environ)
