"""Predictions at a rate, whatever the answers take (an open loop), for tests of what follows the load."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.integration.cluster import BODY

CONNECTIONS = 64


class Stream:
    """Sends `rate` requests per second until it ends; `rate` may be changed. `failures` is what was not answered 200."""

    def __init__(self, port: int, model: str, rate: float) -> None:
        self.rate = rate
        self.answered = 0
        self.failures: list[str] = []
        self._port = port
        self._path = f"/v2/models/{model}/infer"
        self._ended = threading.Event()
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(CONNECTIONS)
        self._pacing = threading.Thread(target=self._pace, daemon=True)

    def step(self, rate: float) -> float:
        """Another rate from now on; returns when that was."""
        self.rate = rate
        return time.time()

    def start(self) -> None:
        self._pacing.start()

    def stop(self) -> None:
        self._ended.set()
        self._pacing.join(10)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _pace(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            self._pool.submit(self._send)
            # A test that was paused does not make up for it in one burst.
            due = max(due + 1 / self.rate, time.monotonic() - 0.5)

    def _send(self) -> None:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("POST", self._path, json.dumps(BODY), {"content-type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as exc:
            self.failures.append(repr(exc))
            connection.close()
            return
        if answer.status == http.client.OK:
            self.answered += 1
        else:
            self.failures.append(f"{answer.status}: {text[:300]!r}")


@contextmanager
def streaming(port: int, model: str, rate: float) -> Iterator[Stream]:
    stream = Stream(port, model, rate)
    stream.start()
    try:
        yield stream
    finally:
        stream.stop()
