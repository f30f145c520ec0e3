"""Late binding measured: two replicas of a 20 ms model that takes one request at a time, behind one gateway.

Closed loop: 8 clients, each asks again when it has its answer; ideal are 100 requests/s. Open loop: Poisson arrivals at
80 % load, beside a simulation of one ideal central queue (M/D/2) fed with the very arrival times that were measured.
Overload: three times the capacity, each request with 500 ms to live.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar, cast

import uvloop

sys.path.insert(0, str(Path(__file__).parents[2]))

from router.config import Config
from router.contract import Endpoint, ModelRoute, Table, VersionRoute
from router.log import EventLog
from router.server import Gateway

SERVICE_S = 0.020
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Model(asyncio.Protocol):
    """Works 20 ms on one request at a time. What that really took is measured: timers here are late, never early."""

    took_s: ClassVar[list[float]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        began = time.monotonic()
        asyncio.get_running_loop().call_later(SERVICE_S, self.answer, began)

    def answer(self, began: float) -> None:
        self.took_s.append(time.monotonic() - began)
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    loop = asyncio.get_running_loop()
    models = [await loop.create_server(Model, "127.0.0.1", 0) for _ in range(2)]
    endpoints = tuple(
        Endpoint(f"r{i}", "127.0.0.1", model.sockets[0].getsockname()[1]) for i, model in enumerate(models)
    )
    gateway = Gateway(Config(port=0, metrics_port=0, table_file="-"), EventLog(os.devnull))
    await gateway.listen()
    route = VersionRoute(endpoints, concurrency=1, queue_max=100_000, queue_timeout_ms=60_000)
    await gateway.apply(Table("benchmark", 1, "c", {"m": ModelRoute({"1": route}, {"1": 1})}))
    port = int(gateway.address.rpartition(":")[2])
    await closed_loop(port, options.seconds)
    await open_loop(port, options.seconds)
    await overload(port, options.seconds)
    await gateway.drain()


async def closed_loop(port: int, seconds: float) -> None:
    latencies: list[float] = []
    ends = time.monotonic() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < ends:
            latencies.append(await ask(reader, writer))
        writer.close()

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(8)))
    rate = len(latencies) / (time.monotonic() - began)
    ideal = 2 / statistics.mean(Model.took_s)
    print(
        f"closed loop, 8 clients: {rate:.1f} requests/s, {rate / ideal:.3f} of the {ideal:.1f} that two models can do; "
        f"p99 {percentile(latencies) * 1000:.1f} ms"
    )


async def open_loop(port: int, seconds: float) -> None:
    chance = random.Random(7)
    arrivals: list[float] = []
    latencies: list[float] = []
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        streams = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        arrivals.append(time.monotonic())
        latencies.append(await ask(*streams))
        idle.append(streams)

    Model.took_s.clear()
    began = at = time.monotonic()
    tasks = []
    while at < began + seconds:
        at += chance.expovariate(0.8 * 2 / SERVICE_S)
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    ideal = central_queue(sorted(arrivals), statistics.mean(Model.took_s))
    ours, best = percentile(latencies) * 1000, percentile(ideal) * 1000
    print(
        f"Poisson at 80 %: p99 {ours:.1f} ms, ideal central queue {best:.1f} ms, ratio {ours / best:.2f}; "
        f"median {statistics.median(latencies) * 1000:.1f} ms, ideal {statistics.median(ideal) * 1000:.1f} ms"
    )
    for _, writer in idle:
        writer.close()


async def overload(port: int, seconds: float) -> None:
    """Three times what the models can do, each request with 500 ms: served in time, or refused cheaply."""
    statuses: Counter[int] = Counter()
    late = 0
    refusals: list[float] = []
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        nonlocal late
        streams = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        began = time.monotonic()
        streams[1].write(REQUEST.replace(b"\r\n\r\n", b"\r\nx-request-timeout-ms: 500\r\n\r\n"))
        head = await streams[0].readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        await streams[0].readexactly(length)
        took = time.monotonic() - began
        statuses[int(head.split(b" ")[1])] += 1
        if head.startswith(b"HTTP/1.1 503"):
            refusals.append(took)
        late += took > 0.55
        idle.append(streams)

    Model.took_s.clear()
    began = time.monotonic()
    tasks = []
    for number in range(int(seconds * 3 * 2 / SERVICE_S)):
        await asyncio.sleep(max(0.0, began + number * SERVICE_S / 6 - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    capacity = 2 / statistics.mean(Model.took_s)
    rate = statuses[200] / (time.monotonic() - began)
    print(
        f"3 x capacity, 500 ms each: {rate:.1f} served/s of {capacity:.1f}, statuses {dict(statuses)}, {late} late, "
        f"median refusal {statistics.median(refusals) * 1000:.2f} ms"
    )
    for _, writer in idle:
        writer.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    began = time.monotonic()
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"Error: {head!r}")
    return time.monotonic() - began


def central_queue(arrivals: list[float], service_s: float) -> list[float]:
    """Latencies of the same arrivals at one queue before two servers that each take `service_s`."""
    free = [0.0, 0.0]
    latencies = []
    for arrival in arrivals:
        done = max(arrival, heapq.heappop(free)) + service_s
        heapq.heappush(free, done)
        latencies.append(done - arrival)
    return latencies


def percentile(values: list[float], share: float = 0.99) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


if __name__ == "__main__":
    uvloop.run(main())
