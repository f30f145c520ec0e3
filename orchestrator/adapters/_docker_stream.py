"""Docker's endless answers: the log of a container and the engine's events, as iterators that another thread can end.

A read blocks in the kernel until the engine says something; `_ended_by` shuts the socket down from a thread of its own
when the caller's `stopped` is set. Read `docker_engine.py` for who asks.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests

from orchestrator.adapters.engine import LogLine

_STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}
_HEADER_BYTES = 8
# Docker splits a line into records of 16 KiB; a line that never ends is cut here instead of filling the memory.
_LINE_MAX_BYTES = 256 * 1024


def read_log(response: requests.Response, replica_id: str) -> Iterator[LogLine]:
    """The lines of a container's log answer, which is framed: stream, length, bytes (Docker's attach format)."""
    pending: dict[str, bytes] = {}
    for stream, payload in _frames(response.raw.read):
        content = pending.pop(stream, b"") + payload
        while b"\n" in content:
            line, content = content.split(b"\n", 1)
            yield parse_line(line, replica_id, stream)
        if content and len(content) < _LINE_MAX_BYTES:
            pending[stream] = content
        elif content:
            yield parse_line(content, replica_id, stream)
    for stream, content in pending.items():
        yield parse_line(content, replica_id, stream)


def parse_line(line: bytes, replica_id: str, stream: str) -> LogLine:
    """One line with the timestamp that `timestamps=1` puts before it."""
    stamp, _, text = line.decode(errors="replace").rstrip("\r").partition(" ")
    return LogLine(at=parse_time(stamp), replica_id=replica_id, stream=stream, text=text)


def parse_time(stamp: str) -> float:
    """RFC 3339 with nanoseconds, as Go writes it, in seconds since the epoch; 0.0 where it is not one."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    try:
        seconds = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC).timestamp()
        return seconds + float(f"0.{fraction}" if fraction else 0)
    except ValueError:
        return 0.0


@contextlib.contextmanager
def ended_by(stopped: threading.Event | None, response: requests.Response) -> Iterator[None]:
    """While the block reads `response`, setting `stopped` makes the read return. The response is closed at the end."""
    done = threading.Event()
    watcher: threading.Thread | None = None
    if stopped is not None:
        watcher = threading.Thread(target=_watch, args=(stopped, done, response), name="stream-end", daemon=True)
        watcher.start()
    try:
        yield
    finally:
        done.set()
        # A keep-alive connection with half an answer in it must not go back to the pool.
        shut_down(response)
        response.close()


def shut_down(response: requests.Response) -> None:
    """Ends the connection under a streamed answer, also while another thread is reading it."""
    connection: Any = getattr(response.raw, "_connection", None) or getattr(response.raw, "connection", None)
    sock: Any = getattr(connection, "sock", None)
    if sock is None:
        body: Any = getattr(getattr(response.raw, "_fp", None), "fp", None)
        sock = getattr(getattr(body, "raw", None), "_sock", None)
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _watch(stopped: threading.Event, done: threading.Event, response: requests.Response) -> None:
    while not done.wait(0.1):
        if stopped.is_set():
            shut_down(response)
            return


def _frames(read: Callable[[int], bytes]) -> Iterator[tuple[str, bytes]]:
    while True:
        header = _exactly(read, _HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return
        kind, size = struct.unpack(">BxxxL", header)
        payload = _exactly(read, size)
        yield _STREAMS.get(kind, "stdout"), payload
        if len(payload) < size:
            return


def _exactly(read: Callable[[int], bytes], size: int) -> bytes:
    """`size` bytes, fewer at the end of the answer."""
    parts = []
    while size:
        part = read(size)
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
