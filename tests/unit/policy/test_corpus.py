"""Malformed policies: each stops with its file, line, key and reason, and nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.errors import PolicyError
from sandbox.policy import check_file, load

BASE = """\
version: 1
limits: {memory: 1GiB}
mounts:
  - {root: data, path: a, target: /data/a}
network:
  allow:
    - {domain: "*.example.com", ports: [443, 8443]}
    - {domain: f.example.org, http: true, methods: [GET], paths: [/p/*]}
    - {domain: ask.example.org, ask: true}
  deny:
    - {domain: no.example.com}
secrets:
  - {name: token, as: file}
tools: [read_file, list_files]
approve: {tools: [read_file], remember: never}
"""


def rule(text: str) -> str:
    return f"version: 1\nnetwork:\n  allow:\n    - {text}\n"


def mount(text: str) -> str:
    return f"version: 1\nmounts:\n  - {text}\n"


def over(text: str) -> str:
    return f"version: 1\nextends: base\n{text}"


# name: (text, line, key, part of the reason or the remedy)
CORPUS: dict[str, tuple[str, int, str, str]] = {
    # types
    "network-a-word": ("version: 1\nnetwork: all\n", 2, "network", "none"),
    "network-a-list": ("version: 1\nnetwork: []\n", 2, "network", "none"),
    "allow-a-mapping": (
        "version: 1\nnetwork:\n  allow: {domain: a.b}\n",
        3,
        "network.allow",
        "list",
    ),
    "rule-a-text": (rule("api.example.com"), 4, "network.allow.0", "key: value"),
    "rule-empty": (rule("{}"), 4, "network.allow.0", "no place"),
    "rule-two-places": (
        rule("{domain: a.example.com, cidr: 192.0.2.0/24}"),
        4,
        "network.allow.0",
        "domain and cidr",
    ),
    "rule-null": (rule("{domain: null}"), 4, "network.allow.0", "no place"),
    "port-a-text": (rule("{domain: a.b, ports: ['443']}"), 4, "network.allow.0.ports.0", "whole"),
    "port-a-range": (rule("{domain: a.b, ports: 1-9}"), 4, "network.allow.0.ports", "list"),
    "port-zero": (rule("{domain: a.b, ports: [0]}"), 4, "network.allow.0.ports.0", "65535"),
    "port-twice": (rule("{domain: a.b, ports: [1, 1]}"), 4, "network.allow.0.ports", "twice"),
    "http-a-word": (rule("{domain: a.b, http: yes}"), 4, "network.allow.0.http", "true"),
    "mounts-a-mapping": ("version: 1\nmounts: {a: b}\n", 2, "mounts", "list"),
    "mount-a-bind": (mount("/srv:/data/x:ro"), 3, "mounts.0", "key: value"),
    "secrets-a-mapping": ("version: 1\nsecrets: {a: b}\n", 2, "secrets", "list"),
    "approve-a-list": ("version: 1\napprove: [read_file]\n", 2, "approve", "key: value"),
    # units and bounds
    "bytes-without-unit": (
        "version: 1\nnetwork:\n  limits: {bytes: 1000}\n",
        3,
        "network.limits.bytes",
        "unit",
    ),
    "duration-without-unit": (
        "version: 1\nnetwork:\n  limits: {duration: 60}\n",
        3,
        "network.limits.duration",
        "unit",
    ),
    "too-many-connections": (
        "version: 1\nnetwork:\n  limits: {connections: 9999}\n",
        3,
        "network.limits.connections",
        "1024",
    ),
    "no-rate": ("version: 1\nnetwork:\n  limits: {rate: 0}\n", 3, "network.limits.rate", "6000"),
    "approve-for-a-day": ("version: 1\napprove: {timeout: 1d}\n", 2, "approve.timeout", "1h"),
    # unknown keys and words
    "network-mode": ("version: 1\nnetwork: {mode: bridge}\n", 2, "network.mode", "not a key"),
    "rule-host": (rule("{host: a.example.com}"), 4, "network.allow.0.host", "not a key"),
    "rule-action": (
        rule("{domain: a.b, action: allow}"),
        4,
        "network.allow.0.action",
        "not a key",
    ),
    "deny-with-ask": (
        "version: 1\nnetwork:\n  deny:\n    - {domain: a.b, ask: true}\n",
        4,
        "network.deny.0.ask",
        "not a key",
    ),
    "unknown-service": (rule("{service: pypi}"), 4, "network.allow.0.service", "package-index"),
    "unknown-method": (
        rule("{domain: a.b, http: true, methods: [CONNECT]}"),
        4,
        "network.allow.0.methods.0",
        "accepted",
    ),
    "mount-source": (
        mount("{root: a, source: /etc, target: /data/x}"),
        3,
        "mounts.0.source",
        "not a key",
    ),
    "mount-options": (
        mount("{root: a, target: /data/x, readonly: true}"),
        3,
        "mounts.0.readonly",
        "read_only",
    ),
    "secret-value": (
        "version: 1\nsecrets:\n  - {name: a, value: hunter2}\n",
        3,
        "secrets.0.value",
        "not a key",
    ),
    "secret-in-environment": (
        "version: 1\nsecrets:\n  - {name: a, as: environment}\n",
        3,
        "secrets.0.as",
        "file",
    ),
    "approve-always": ("version: 1\napprove: {remember: always}\n", 2, "approve.remember", "never"),
    "approve-unknown-tool": (
        "version: 1\napprove:\n  tools: [run_comand]\n",
        3,
        "approve.tools.0",
        "run_command",
    ),
    "privileged": ("version: 1\nprivileged: true\n", 2, "privileged", "not a key"),
    "no-seccomp": (
        "version: 1\nruntime: {seccomp: none}\n",
        2,
        "runtime.seccomp",
        "default",
    ),
    # names that mislead
    "domain-all": (rule("{domain: '*'}"), 4, "network.allow.0.domain", "label"),
    "domain-a-top-level": (rule("{domain: '*.com'}"), 4, "network.allow.0.domain", "two labels"),
    "domain-inner-wildcard": (
        rule("{domain: a.*.example.com}"),
        4,
        "network.allow.0.domain",
        "beginning",
    ),
    "domain-partial-wildcard": (
        rule("{domain: '*api.example.com'}"),
        4,
        "network.allow.0.domain",
        "beginning",
    ),
    "domain-localhost": (rule("{domain: localhost}"), 4, "network.allow.0.domain", "one label"),
    "domain-an-address": (rule("{domain: 127.0.0.1}"), 4, "network.allow.0.domain", "cidr"),
    "domain-hexadecimal": (rule("{domain: a.0x7f}"), 4, "network.allow.0.domain", "cidr"),
    "domain-a-port": (rule("{domain: 'a.b:443'}"), 4, "network.allow.0.domain", "cidr"),
    "domain-a-url": (rule("{domain: 'https://a.b'}"), 4, "network.allow.0.domain", "address"),
    "domain-upper": (rule("{domain: API.example.com}"), 4, "network.allow.0.domain", "api."),
    "domain-dot": (rule("{domain: a.example.com.}"), 4, "network.allow.0.domain", "usual"),
    "domain-unicode": (rule("{domain: bücher.example}"), 4, "network.allow.0.domain", "xn--"),
    "domain-hyphen": (rule("{domain: -a.example.com}"), 4, "network.allow.0.domain", "name"),
    "cidr-host-bits": (rule("{cidr: 192.0.2.7/24}"), 4, "network.allow.0.cidr", "host bits"),
    "cidr-a-name": (rule("{cidr: example.com}"), 4, "network.allow.0.cidr", "network"),
    "path-upwards": (
        rule("{domain: a.b, http: true, paths: [/v1/../x]}"),
        4,
        "network.allow.0.paths.0",
        "..",
    ),
    "path-encoded": (
        rule("{domain: a.b, http: true, paths: [/v1/%2e]}"),
        4,
        "network.allow.0.paths.0",
        "%",
    ),
    "path-inner-star": (
        rule("{domain: a.b, http: true, paths: ['/*/x']}"),
        4,
        "network.allow.0.paths.0",
        "path",
    ),
    "mount-root-a-path": (mount("{root: /etc, target: /data/x}"), 3, "mounts.0.root", "a-z"),
    "mount-path-upwards": (
        mount("{root: a, path: ../b, target: /data/x}"),
        3,
        "mounts.0.path",
        "..",
    ),
    "mount-path-absolute": (
        mount("{root: a, path: /etc, target: /data/x}"),
        3,
        "mounts.0.path",
        "path",
    ),
    "mount-over-the-supervisor": (
        mount("{root: a, target: /opt/sandbox}"),
        3,
        "mounts.0.target",
        "/data",
    ),
    "mount-over-etc": (mount("{root: a, target: /etc}"), 3, "mounts.0.target", "/data"),
    "mount-target-upwards": (
        mount("{root: a, target: /data/../etc}"),
        3,
        "mounts.0.target",
        "/data",
    ),
    "mount-target-relative": (mount("{root: a, target: data/x}"), 3, "mounts.0.target", "/data"),
    # impossible combinations
    "paths-of-tls": (
        rule("{domain: a.b, paths: [/v1]}"),
        4,
        "network.allow.0.paths",
        "http: true",
    ),
    "secret-unknown": (
        rule("{domain: a.b, secret: key}"),
        4,
        "network.allow.0.secret",
        "secrets",
    ),
    "secret-to-a-wildcard": (
        rule("{domain: '*.a.b', secret: key}"),
        4,
        "network.allow.0.secret",
        "one host",
    ),
    "secret-unencrypted": (
        rule("{domain: a.b, secret: key, http: true}"),
        4,
        "network.allow.0.http",
        "unencrypted",
    ),
    "secret-in-host": (
        rule("{domain: a.b, secret: key, header: Host}"),
        4,
        "network.allow.0.header",
        "header",
    ),
    "header-without-secret": (
        rule("{domain: a.b, header: X-Key}"),
        4,
        "network.allow.0.header",
        "no secret",
    ),
    "secret-unused": ("version: 1\nsecrets:\n  - {name: a}\n", 2, "secrets", "no network rule"),
    "secret-twice": (
        "version: 1\nsecrets:\n  - {name: a, as: file}\n  - {name: a, as: file}\n",
        2,
        "secrets",
        "twice",
    ),
    "mounts-nested": (
        "version: 1\nmounts:\n  - {root: a, target: /data/x}\n  - {root: b, target: /data/x/y}\n",
        4,
        "mounts.1.target",
        "place",
    ),
    "mounts-doubled": (
        "version: 1\nmounts:\n  - {root: a, target: /data/x}\n  - {root: b, target: /data/x}\n",
        4,
        "mounts.1.target",
        "place",
    ),
    "gvisor-without-runsc": (
        "version: 1\nruntime: {prefer: [runc], require: gvisor}\n",
        2,
        "runtime.require",
        "runsc",
    ),
    "approve-a-foreign-tool": (
        "version: 1\ntools: [read_file]\napprove: {tools: [run_command]}\n",
        3,
        "approve.tools.0",
        "no tool",
    ),
    # YAML that says more than it shows
    "key-twice": ("version: 1\nnetwork: none\nnetwork: none\n", 3, "network", "twice"),
    "rule-key-twice": (
        rule("{domain: a.b, domain: c.d}"),
        4,
        "network.allow.0.domain",
        "twice",
    ),
    "tag": ("version: 1\nnetwork: !!python/object:os.system none\n", 2, "network", "tag"),
    "anchor": ("version: 1\nnetwork: &n none\n", 2, "network", "anchor"),
    "alias-bomb": ("a: &a [1, 1]\nb: [*a, *a]\n", 1, "a", "anchor"),
    "merge": ("version: 1\n<<: {network: none}\n", 2, "<<", "not a key"),
    "two-documents": ("version: 1\n---\nversion: 1\n", 2, "", "second document"),
    "directive": ("%YAML 1.1\n---\nversion: 1\n", 1, "", "directive"),
    "too-deep": ("a: " + "[" * 20 + "]" * 20 + "\n", 1, "a." + ".".join("0" * 8), "deep"),
    "not-yaml": ("version: [1\n", 2, "", "not YAML"),
    # extends: only tightens
    "extends-itself": ("version: 1\nextends: p\n", 2, "extends", "no policy"),
    "extends-nothing": ("version: 1\nextends: absent\n", 2, "extends", "no policy"),
    "extends-a-path": ("version: 1\nextends: ../base\n", 2, "extends", "no policy"),
    "wider-port": (
        over("network:\n  allow:\n    - {domain: a.example.com, ports: [22]}\n"),
        5,
        "network.allow.0",
        "within",
    ),
    "wider-domain": (
        over("network:\n  allow:\n    - {domain: '*.example.org'}\n"),
        5,
        "network.allow.0",
        "within",
    ),
    "wider-method": (
        over("network:\n  allow:\n    - {domain: f.example.org, http: true, paths: [/p/*]}\n"),
        5,
        "network.allow.0",
        "within",
    ),
    "wider-path": (
        over(
            "network:\n  allow:\n"
            "    - {domain: f.example.org, http: true, methods: [GET], paths: [/*]}\n"
        ),
        5,
        "network.allow.0",
        "within",
    ),
    "no-longer-asked": (
        over("network:\n  allow:\n    - {domain: ask.example.org}\n"),
        5,
        "network.allow.0",
        "within",
    ),
    "deny-dropped": (
        over("network:\n  allow: [{domain: a.example.com}]\n  deny: []\n"),
        5,
        "network.deny",
        "lacks",
    ),
    "wider-mount": (
        over("mounts:\n  - {root: data, target: /data/a}\n"),
        4,
        "mounts.0",
        "within",
    ),
    "writable-mount": (
        over("mounts:\n  - {root: data, path: a, target: /data/a, read_only: false}\n"),
        4,
        "mounts.0",
        "within",
    ),
    "mount-with-sockets": (
        over("mounts:\n  - {root: data, path: a, target: /data/a, sockets: allow}\n"),
        4,
        "mounts.0",
        "within",
    ),
    "another-secret": (over("secrets:\n  - {name: other, as: file}\n"), 4, "secrets.0", "within"),
    "approval-dropped": (over("approve: {tools: []}\n"), 3, "approve.tools", "lacks"),
    "approval-remembered": (over("approve: {remember: session}\n"), 3, "approve.remember", "never"),
}


@pytest.mark.parametrize("name", CORPUS)
def test_a_malformed_policy_stops_with_file_line_key_and_reason(tmp_path: Path, name: str) -> None:
    text, line, key, said = CORPUS[name]
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "p.yaml"
    path.write_text(text)
    errors = check_file(path)
    assert [(error.file, error.line, error.key) for error in errors] == [(str(path), line, key)]
    assert said in f"{errors[0].reason} {errors[0].remedy}"
    with pytest.raises(PolicyError):
        load(tmp_path, default="base")


def test_the_policy_that_the_corpus_extends_is_a_good_one(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    assert check_file(tmp_path / "base.yaml") == []
    assert len(CORPUS) >= 60


@pytest.mark.parametrize(
    "text",
    [
        *("network: none\n", "mounts: []\n", "secrets: []\n", "tools: [read_file]\n"),
        "network:\n  allow:\n    - {domain: a.example.com}\n",
        "network:\n  allow:\n    - {domain: '*.b.example.com', ask: true}\n",
        "network:\n  allow:\n    - {domain: f.example.org, http: true, methods: [GET], "
        "paths: [/p/q, /p/r/*]}\n",
        "network:\n  deny:\n    - {domain: no.example.com}\n    - {domain: also.example.com}\n",
        "mounts:\n  - {root: data, path: a/b, target: /data/a}\n",
        "approve: {tools: [read_file, list_files], timeout: 5s}\n",
    ],
)
def test_every_part_of_a_policy_may_be_narrowed(tmp_path: Path, text: str) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "p.yaml").write_text(f"extends: base\n{text}")
    assert check_file(tmp_path / "p.yaml") == []
