"""A Docker Engine's HTTP API with scripted answers, for what the real engine cannot be brought to: full disks, 500s."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A method and a part of the path, to a status and a body: a value, or several that are streamed one a line.
Answers = Mapping[tuple[str, str], tuple[int, Any]]

BASICS: Answers = {("GET", "/version"): (200, {"ApiVersion": "1.41", "Version": "20.10.24"})}


class DockerApi:
    """Answers the first entry that matches; anything else is 404. `asked` keeps method and path of each request."""

    def __init__(self, answers: Answers) -> None:
        self.asked: list[str] = []
        everything = {**answers, **BASICS}
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                asked.append(f"{self.command} {self.path}")
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, value = next(
                    (a for (method, part), a in everything.items() if method == self.command and part in self.path),
                    (404, {"message": "No such image"}),
                )
                self.send_response(status)
                self.send_header("content-type", "application/json")
                if isinstance(value, list):
                    self.stream([json.dumps(line).encode() + b"\r\n" for line in value])
                    return
                body = json.dumps(value).encode()
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self, parts: list[bytes]) -> None:
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [*parts, b""]))

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Silent: a test's output is its assertions."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"tcp://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> DockerApi:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
