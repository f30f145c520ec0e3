"""A web server with the habits of many: ranges, tags, dates, cuts, slowness, redirects, passwords, damage.

`FileServer` serves what `files` holds; each `ServedFile` says how. Every request is kept in `requests`, so that a test
sees which bytes were asked for and who was sent a credential. It listens on loopback and ends with its `with` block.
"""

from __future__ import annotations

import email.utils
import hashlib
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

LONG_AGO = "Wed, 01 Jan 2020 00:00:00 GMT"


@dataclass
class ServedFile:
    """`etag` "auto" is the content's own. `cuts` are byte counts after which one answer each breaks off."""

    content: bytes
    etag: str = "auto"
    modified: str = ""
    ranges: bool = True
    says_length: bool = True
    kind: str = "application/octet-stream"
    fields: dict[str, str] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirect: str = ""
    wants: str = ""
    gate: threading.Event | None = None
    gate_at: int = 0
    served: Callable[[], None] | None = None

    @property
    def tag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"' if self.etag == "auto" else self.etag


@dataclass(frozen=True)
class Asked:
    method: str
    target: str
    fields: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are what some tests are about."""


class FileServer:
    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        self.files: dict[str, ServedFile] = {}
        self.requests: list[Asked] = []
        self.sent_bytes = 0
        # Guards the two above: each request has a thread.
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server._answer(self)

            do_POST = do_GET  # noqa: N815 - http.server looks for that name

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "", host: str = "127.0.0.1", user: str = "") -> str:
        return f"{self._scheme}://{user}{host}:{self.port}{path}"

    def put(self, path: str, content: bytes, **how: object) -> str:
        """Serves `content` there; returns its address."""
        self.files[path] = ServedFile(content, **how)  # type: ignore[arg-type]
        return self.url(path)

    def asked(self, path: str) -> list[Asked]:
        with self._lock:
            return [each for each in self.requests if each.path == path]

    def downloads(self, path: str) -> list[Asked]:
        """Requests for content, and not only for a look at what is there."""
        return [each for each in self.asked(path) if each.fields.get("range") != "bytes=0-0"]

    # -- below -------------------------------------------------------------------------------------------------------

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", 0)))
        fields = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.requests.append(Asked(handler.command, handler.path, fields, body))
        file = self.files.get(urlsplit(handler.path).path)
        if file is None:
            self._say(handler, 404)
        elif file.statuses and (status := file.statuses.pop(0)) != 200:
            self._say(handler, status)
        elif file.wants and fields.get("authorization") != file.wants and file.wants not in fields.values():
            self._say(handler, 401)
        elif file.redirect:
            self._say(handler, 302, location=file.redirect)
        else:
            self._send(handler, file, fields)

    @staticmethod
    def _say(handler: BaseHTTPRequestHandler, status: int, **fields: str) -> None:
        handler.send_response(status)
        for name, value in {"content-length": "0", **fields}.items():
            handler.send_header(name, value)
        handler.end_headers()

    def _send(self, handler: BaseHTTPRequestHandler, file: ServedFile, fields: dict[str, str]) -> None:
        content, start, end = file.content, 0, len(file.content)
        wanted = fields.get("range", "")
        current = fields.get("if-range") in (None, file.tag, file.modified)
        is_part = file.ranges and wanted.startswith("bytes=") and current
        if is_part:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(end, int(last) + 1 if last else end)
            if start >= len(content):
                self._say(handler, 416, **{"content-range": f"bytes */{len(content)}"})
                return
        self._send_head(handler, file, is_part, start, end)
        self._send_body(handler, file, content[start:end], is_look=wanted == "bytes=0-0")
        if file.served and wanted != "bytes=0-0":
            file.served()

    @staticmethod
    def _send_head(handler: BaseHTTPRequestHandler, file: ServedFile, is_part: bool, start: int, end: int) -> None:
        handler.send_response_only(206 if is_part else 200)
        handler.send_header("date", email.utils.formatdate(time.time(), usegmt=True))
        handler.send_header("content-type", file.kind)
        if is_part:
            handler.send_header("content-range", f"bytes {start}-{end - 1}/{len(file.content)}")
        if file.says_length:
            handler.send_header("content-length", str(end - start))
        else:
            handler.send_header("connection", "close")
            handler.close_connection = True
        for name, value in {"etag": file.tag, "last-modified": file.modified, **file.fields}.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()

    def _send_body(self, handler: BaseHTTPRequestHandler, file: ServedFile, part: bytes, *, is_look: bool) -> None:
        cut = file.cuts.pop(0) if file.cuts and not is_look else None
        try:
            for at in range(0, len(part), 65536):
                if cut is not None and at >= cut:
                    handler.close_connection = True
                    return
                if file.gate is not None and not is_look and at >= file.gate_at:
                    file.gate.wait(60)
                chunk = part[at : at + 65536]
                handler.wfile.write(chunk)
                with self._lock:
                    self.sent_bytes += 0 if is_look else len(chunk)
        except OSError:
            handler.close_connection = True
