"""The gateway's own work for one request, without sockets or kernel: bytes in, bytes out, on transports of memory.

Prints the least of several rounds, since everything that disturbs makes a round longer. A fixed loop of Python stands
beside it: on a busy machine compare ratios.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

from router.config import Config, Tracing
from router.contract import Endpoint, ModelRoute, Table, VersionRoute
from router.log import EventLog
from router.proto.downstream import ClientConnection
from router.proto.request import prepare
from router.proto.traced import TracedConnection
from router.proto.upstream import ReplicaConnection
from router.server import Gateway

HEAD = (
    b"POST /v2/models/iris/infer HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: python-requests/2.32.3\r\n"
    b"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
    b"Content-Length: 84\r\n"
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 11:33:32 GMT\r\nserver: uvicorn\r\ncontent-type: application/json\r\n"
    b"content-length: 95\r\n\r\n" + b"y" * 95
)
TOLD = ANSWER.replace(
    b"content-length",
    b"x-modelfleet-trace: total=5321 decode=12+120 wait=132+800 predict=932+4000 encode=4932+100 rows=1\r\n"
    b"content-length",
)
ROUNDS, PER_ROUND = 15, 5_000


class MemoryTransport:
    """Takes what is written."""

    def write(self, data: bytes) -> None:
        self.written = data

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False


async def made(tracing: Tracing | None = None) -> tuple[Gateway, ClientConnection, ReplicaConnection]:
    """A gateway, and its two connections. Traces are made and given to a thread that drops them."""
    gateway = Gateway(Config(table_file="-", tracing=tracing), EventLog(os.devnull))
    if gateway.outbox is not None:
        gateway.outbox.close()
    route = VersionRoute((Endpoint("r", "127.0.0.1", 1),), concurrency=64)
    await gateway.apply(Table("benchmark", 1, "c", {"iris": ModelRoute({"1": route}, {"1": 1})}))
    client = (ClientConnection if tracing is None else TracedConnection)(gateway)
    client.connection_made(MemoryTransport())  # type: ignore[arg-type]
    (replica,) = gateway.fleet.replicas.values()
    upstream = ReplicaConnection(replica.pool, gateway.timers)
    upstream.connection_made(MemoryTransport())  # type: ignore[arg-type]
    replica.pool.give(upstream, time.monotonic())
    return gateway, client, upstream


async def main() -> None:
    gateway, client, upstream = await made()
    request = HEAD + b"\r\n" + b"x" * 84
    heads = [HEAD + b"x-request-id: %d\r\n\r\n" % i + b"x" * 84 for i in range(2)]

    def repeated() -> None:
        client.data_received(request)
        upstream.data_received(ANSWER)

    def changing() -> None:
        for head in heads:
            client.data_received(head)
            upstream.data_received(ANSWER)

    if "--count" in sys.argv:  # for `valgrind --tool=callgrind`: the difference of two counts is the requests' own
        for _ in range(int(sys.argv[sys.argv.index("--count") + 1])):
            repeated()
        return
    print(f"a request whose head repeats the one before: {least(repeated):6.2f} µs")
    print(f"a request with another head:                 {least(changing) / 2:6.2f} µs")
    reading = least(lambda: prepare(HEAD, gateway.config.limits, b"::1", b"http", gateway.keyring))
    print(f"of that, reading the head:                   {reading:6.2f} µs")
    for share in (0.0, 0.01, 1.0):
        print(f"a repeated one, of which {share:4.0%} are traced:  {await traced(share, request):6.2f} µs")
    print(f"a fixed loop of Python, to compare by:       {least(lambda: sum(range(1000))):6.2f} µs")
    if "--profile" in sys.argv:
        profile(repeated)


async def traced(share: float, request: bytes) -> float:
    """The loop's part alone: what the thread does with a trace comes on top, when there is time."""
    _, client, upstream = await made(Tracing("http://127.0.0.1:9", share))

    def repeated() -> None:
        client.data_received(request)
        upstream.data_received(TOLD if share == 1.0 else ANSWER)

    return least(repeated)


def least(run: Callable[[], object]) -> float:
    """Microseconds a call in the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(PER_ROUND):
            run()
        best = min(best, time.process_time() - began)
    return best / PER_ROUND * 1e6


def profile(run: Callable[[], object]) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for _ in range(20_000):
        run()
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    uvloop.run(main())
