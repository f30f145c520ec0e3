"""A web server for tests: answers every request with the page that is set, as late as is set."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class Pages:
    """`page` is what it answers; `asked` the forms that were posted. While `is_stuck` it answers nothing."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.page = ""
        self.status = 200
        self.asked: list[dict[str, list[str]]] = []
        self.is_stuck = False
        self.released = threading.Event()


@contextmanager
def serving() -> Iterator[Pages]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if pages.is_stuck:
                pages.released.wait(20)
                return
            body = pages.page.encode()
            self.send_response(pages.status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["content-length"])).decode()
            pages.asked.append(parse_qs(form))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pages = Pages(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield pages
    finally:
        pages.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
