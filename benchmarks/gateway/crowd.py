"""Thousands of client connections that asked once and stay: what an idle connection costs.

They ask because a connection that never did holds less: no request remembered, no transport buffers touched.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def connections(port: int, count: int, path: str) -> Iterator[None]:
    """Opens `count` connections, asks once on each, and closes them when the context ends."""
    request = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{{}}".encode()
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", port), 10)
            opened.append(sock)
            sock.sendall(request)
            if not sock.recv(65_536).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"connection {len(opened)} of {count}: its request was not answered with 200")
        yield
    finally:
        for sock in opened:
            sock.close()
