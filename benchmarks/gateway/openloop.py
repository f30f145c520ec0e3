"""Open-loop load: requests leave at their own moments, whether or not earlier ones were answered.

A latency counts from the moment when its request was due, so that a stall is paid by every request that fell into it
(no coordinated omission). How late requests left is printed too: that part is the generator's or a lack of idle
connections, not the proxy's alone. Sockets and epoll by hand: asyncio would cost more than the proxies measured.
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import select
import socket
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.gateway.figures import percentile, poisson_arrivals

_PR_SET_TIMERSLACK = 29
_LAST_WAIT_S = 10.0


@dataclass
class Result:
    """Seconds, one entry a request, in order of the answers."""

    latencies_s: list[float] = field(default_factory=list)
    lateness_s: list[float] = field(default_factory=list)
    failed: int = 0


class Generator:
    """Sends `request` at each of `arrivals` over `connections` sockets; an answer is whole when it ends with `tail`."""

    def __init__(self, port: int, request: bytes, tail: bytes, connections: int) -> None:
        self._request = request
        self._tail = tail
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._epoll.register(sock, select.EPOLLIN)
        self._idle = deque(self._sockets)
        self._result = Result()

    def run(self, arrivals: Sequence[float]) -> Result:
        began = time.perf_counter()
        coming = deque(began + arrival for arrival in arrivals)
        ends = began + (arrivals[-1] if arrivals else 0.0) + _LAST_WAIT_S
        while coming or self._due:
            now = time.perf_counter()
            while coming and self._idle and coming[0] <= now:
                self._send(coming.popleft(), now)
            if now > ends:
                break
            wait_s = max(0.0, coming[0] - now) if coming and self._idle else 0.1
            # epoll itself counts in milliseconds; select keeps microseconds.
            if select.select((self._epoll,), (), (), wait_s)[0]:
                for descriptor, _ in self._epoll.poll(0):
                    self._receive(descriptor)
        self._result.failed += len(self._due) + len(coming)
        return self._result

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._epoll.close()

    def _send(self, due: float, now: float) -> None:
        descriptor = self._idle.popleft()
        self._sockets[descriptor].send(self._request)
        self._due[descriptor] = due
        self._result.lateness_s.append(now - due)

    def _receive(self, descriptor: int) -> None:
        data = self._partial.pop(descriptor, b"") + self._sockets[descriptor].recv(65_536)
        if data.endswith(self._tail):
            self._result.latencies_s.append(time.perf_counter() - self._due.pop(descriptor))
            self._result.failed += not data.startswith(b"HTTP/1.1 200")
            self._idle.append(descriptor)
        elif data:
            self._partial[descriptor] = data
        else:
            self._epoll.unregister(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests/s")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--tail", required=True, help="what every whole answer ends with")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1_000)  # nanoseconds: wakes are late by 50 µs otherwise
    head = f"POST {options.path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(options.body)}\r\n\r\n{options.body}".encode()
    generator = Generator(options.port, request, options.tail.encode(), options.connections)
    arrivals = poisson_arrivals(options.rate, options.seconds, options.seed)
    gc.disable()
    result = generator.run(arrivals)
    generator.close()
    print(json.dumps(summary(result)))


def summary(result: Result) -> dict[str, float]:
    return {
        "answered": len(result.latencies_s),
        "failed": result.failed,
        "p50_ms": statistics.median(result.latencies_s) * 1000,
        "p99_ms": percentile(result.latencies_s) * 1000,
        "late_p50_ms": statistics.median(result.lateness_s) * 1000,
        "late_p99_ms": percentile(result.lateness_s) * 1000,
    }


if __name__ == "__main__":
    main()
