"""Late binding measured: two replicas of a 20 ms model that takes one request at a time, behind one gateway.

Closed loop: 8 clients, each asks again when it has its answer; ideal are 100 requests/s. Open loop: Poisson arrivals at
80 % load, beside a simulation of one ideal central queue (M/D/2) fed with the very arrival times that were measured.
Overload: three times the capacity, each request with 500 ms to live.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, cast

import uvloop

from benchmarks.gateway.figures import AT_LEAST, AT_MOST, Bar, central_queue, percentile
from benchmarks.gateway.lineup import BOTH_CORES, free_port, running
from router.contract import Endpoint, ModelRoute, Table, VersionRoute, encode

SERVICE_S = 0.020
REQUEST = b"POST /v2/models/m/infer HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Replica:
    """A model that works 20 ms on one request at a time, oldest first. What each really took is measured: timers here
    are late, never early."""

    took_s: ClassVar[list[float]] = []

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Transport] = deque()

    def take(self, transport: asyncio.Transport) -> None:
        self._waiting.append(transport)
        if len(self._waiting) == 1:
            self._begin()

    def _begin(self) -> None:
        asyncio.get_running_loop().call_later(SERVICE_S, self._answer, time.monotonic())

    def _answer(self, began: float) -> None:
        self.took_s.append(time.monotonic() - began)
        transport = self._waiting.popleft()
        if not transport.is_closing():
            transport.write(ANSWER)
        if self._waiting:
            self._begin()


class Connection(asyncio.Protocol):
    """From a gateway process to a replica."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self._replica.take(self._transport)


def main() -> None:
    options = _options()
    ports = [free_port() for _ in range(2)]
    endpoints = tuple(Endpoint(f"r{port}", "127.0.0.1", port) for port in ports)
    route = VersionRoute(endpoints, concurrency=1, queue_max=100_000, queue_timeout_ms=60_000)
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "table.json"
        table.write_bytes(encode(Table("benchmark", 1, "c", {"m": ModelRoute({"1": route}, {"1": 1})})))
        command = [sys.executable, "-m", "router", "--table", str(table), "--port", str(port := free_port())]
        command += ["--metrics-port", str(free_port()), "--grpc-port", "off", "--log-file", f"{directory}/gateway.log"]
        if options.processes != 1:
            command += ["--processes", str(options.processes)]
        with running("modelfleet", command, port, BOTH_CORES):
            bars = uvloop.run(measure(port, ports, options))
    if not all(bar.is_met for bar in bars):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of each part (default: %(default)g)")
    parser.add_argument("--processes", type=int, default=1, help="of the gateway (default: %(default)s)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    return parser.parse_args()


async def measure(port: int, replica_ports: list[int], options: argparse.Namespace) -> list[Bar]:
    loop = asyncio.get_running_loop()
    for replica_port in replica_ports:
        replica = Replica()
        await loop.create_server(lambda replica=replica: Connection(replica), "127.0.0.1", replica_port)  # type: ignore[misc]
    limit = 1.10 if options.processes == 1 else 1.25
    bars = [
        await closed_loop(port, options.seconds),
        await open_loop(port, options.seconds, limit),
        *await overload(port, options.seconds),
    ]
    if options.output == "json":
        print(json.dumps({"processes": options.processes, "bars": [asdict(b) | {"is_met": b.is_met} for b in bars]}))
    else:
        print("\n".join(bar.render() for bar in bars))
    return bars


async def closed_loop(port: int, seconds: float) -> Bar:
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
    ideal = 2 / statistics.mean(Replica.took_s)
    say(
        f"closed loop, 8 clients: {rate:.1f} requests/s, {rate / ideal:.3f} of the {ideal:.1f} that two models can do; "
        f"p99 {percentile(latencies) * 1000:.1f} ms"
    )
    return Bar("closed loop of 8 clients, of what two models can do", rate / ideal, AT_LEAST, 0.98)


async def open_loop(port: int, seconds: float, limit: float) -> Bar:
    chance = random.Random(7)
    arrivals: list[float] = []
    latencies: list[float] = []
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def one() -> None:
        streams = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
        arrivals.append(time.monotonic())
        latencies.append(await ask(*streams))
        idle.append(streams)

    Replica.took_s.clear()
    began = at = time.monotonic()
    tasks = []
    while at < began + seconds:
        at += chance.expovariate(0.8 * 2 / SERVICE_S)
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    ideal = central_queue(sorted(arrivals), statistics.mean(Replica.took_s))
    ours, best = percentile(latencies) * 1000, percentile(ideal) * 1000
    say(
        f"Poisson at 80 %: p99 {ours:.1f} ms, ideal central queue {best:.1f} ms, ratio {ours / best:.2f}; "
        f"median {statistics.median(latencies) * 1000:.1f} ms, ideal {statistics.median(ideal) * 1000:.1f} ms"
    )
    for _, writer in idle:
        writer.close()
    return Bar("p99 of Poisson arrivals at 80 %, of the ideal queue's", ours / best, AT_MOST, limit)


async def overload(port: int, seconds: float) -> list[Bar]:
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

    Replica.took_s.clear()
    began = time.monotonic()
    tasks = []
    for number in range(int(seconds * 3 * 2 / SERVICE_S)):
        await asyncio.sleep(max(0.0, began + number * SERVICE_S / 6 - time.monotonic()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    capacity = 2 / statistics.mean(Replica.took_s)
    rate = statuses[200] / (time.monotonic() - began)
    say(
        f"3 x capacity, 500 ms each: {rate:.1f} served/s of {capacity:.1f}, statuses {dict(statuses)}, {late} late, "
        f"median refusal {statistics.median(refusals) * 1000:.2f} ms"
    )
    for _, writer in idle:
        writer.close()
    return [
        Bar("served at 3 x capacity, of capacity", rate / capacity, AT_LEAST, 0.95),
        Bar("of those, later than their 500 ms", late, AT_MOST, 0),
    ]


def say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
    began = time.monotonic()
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(2)
    if not head.startswith(b"HTTP/1.1 200"):
        sys.exit(f"Error: {head!r}")
    return time.monotonic() - began


if __name__ == "__main__":
    main()
