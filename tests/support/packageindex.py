"""A package index on loopback that a test fills, and that counts what it is asked."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import json
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sandbox.egress.indexclient import HttpUpstream
from sandbox.egress.packagecache import PackageCache
from sandbox.egress.packagefiles import FileStore
from sandbox.egress.packageindex import PackageIndex, fetcher
from sandbox.pipindex import PipIndex

JSON = "application/vnd.pypi.simple.v1+json"


def wheel(
    name: str, version: str = "1.0", padding: int = 0, more: Mapping[str, str] | None = None
) -> bytes:
    """A wheel with one module, which says its version, and further files."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n# {'x' * padding}\n",
        **(more or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(text.encode())},{len(text)}\n" for path, text in files.items()
    )
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(path), text)
    return packed.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class FakeIndex:
    """An index: its pages and files, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        """Contents by path; a test may put there what no page says."""
        self.redirects: dict[str, str] = {}
        self.raw: dict[str, bytes] = {}
        """What is sent for a path as it stands here, after which the connection ends."""
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        """Method, path and headers of each request."""
        self.slow_s = 0.0
        self.port = 0
        self._pages: dict[str, list[dict[str, Any]]] = {"pip": []}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/simple"

    def add(self, project: str, file: str, data: bytes, **more: Any) -> str:
        """Put a file on a project's page; its path."""
        path = f"/files/{file}"
        self.files[path] = data
        row = {
            "filename": file,
            "url": f"http://127.0.0.1:{self.port}{path}",
            "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
            "size": len(data),
        }
        self._pages.setdefault(project, []).append({**row, **more})
        return path

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(1 for _, asked, _ in self.asked if asked == path)

    def answer(self, path: str) -> tuple[int, str, bytes]:
        parts = path.strip("/").split("/")
        if parts[0] == "simple" and len(parts) == 2 and parts[1] in self._pages:
            page = {"meta": {"api-version": "1.0"}, "name": parts[1]}
            return 200, JSON, json.dumps({**page, "files": self._pages[parts[1]]}).encode()
        if path in self.files:
            time.sleep(self.slow_s)
            return 200, "application/octet-stream", self.files[path]
        return 404, "text/plain", b"no such page"


@contextmanager
def fake_index() -> Iterator[FakeIndex]:
    """An index that listens."""
    index = FakeIndex()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append((self.command, self.path, dict(self.headers)))
            if self.path in index.redirects:
                self.send_response(302)
                self.send_header("Location", index.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if (raw := index.raw.get(self.path)) is not None:
                self.wfile.write(raw)
                self.close_connection = True
                return
            status, kind, body = index.answer(self.path)
            etag = f'"{hashlib.sha256(body).hexdigest()}"'
            if self.headers.get("If-None-Match") == etag:
                status, body = 304, b""
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_POST = do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        index.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def services(index: FakeIndex, folder: Path, **store: Any) -> tuple[PackageIndex, PackageCache]:
    """What a controller knows of an index, and shares of it."""

    def tls() -> Any:
        raise AssertionError("nothing here speaks TLS")

    upstream = HttpUpstream(tls)
    configured = store.pop("configured", lambda: PipIndex(index.url))
    clock = {"clock": store["clock"]} if "clock" in store else {}
    known = PackageIndex(fetcher(upstream), configured=configured, **clock)
    files = FileStore(folder, store.pop("limit_bytes", 64 * 1024 * 1024))
    return known, PackageCache(known, upstream, files, **store)
