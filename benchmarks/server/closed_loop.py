"""A closed loop of N connections on one server: each sends its next request when it has the answer to the last.

Raw `asyncio.Protocol`s on uvloop, so that the generator costs little of the two cores that it shares with what it
measures. It counts answers with status 200; any other ends the run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import cast

import uvloop


@dataclasses.dataclass(frozen=True)
class Result:
    """`latencies_s` sorted; `seconds` is how long was measured."""

    latencies_s: list[float]
    seconds: float

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.seconds

    def percentile_s(self, percent: float) -> float:
        if not self.latencies_s:
            return float("nan")
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * percent / 100))]


def post(
    path: str, body: bytes, content_type: str = "application/json", fields: Mapping[str, str] | None = None
) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (fields or {}).items())
    return head.encode() + b"\r\n" + body


def run(port: int, request: bytes, connections: int, seconds: float, warm_s: float = 0.3) -> Result:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(port, request, connections, seconds, warm_s))


async def _run(port: int, request: bytes, connections: int, seconds: float, warm_s: float) -> Result:
    loop = asyncio.get_running_loop()
    clients = [_Client(request) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(functools.partial(_same, client), "127.0.0.1", port)
    await asyncio.sleep(warm_s)
    began = time.perf_counter()
    for client in clients:
        client.latencies_s.clear()
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - began
    latencies_s = sorted(latency for client in clients for latency in client.latencies_s)
    for client in clients:
        client.close()
    if wrong := next((client.wrong for client in clients if client.wrong), None):
        raise RuntimeError(f"the server answered {wrong[:300]!r}; only 200 is counted")
    return Result(latencies_s, took_s)


def _same(client: _Client) -> _Client:
    return client


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.latencies_s: list[float] = []
        self.wrong = b""
        self._request = request
        self._received = b""
        self._wanted = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not descend from asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._wanted and not self._read_head():
            return
        if len(self._received) >= self._wanted:
            self.latencies_s.append(time.perf_counter() - self._sent)
            self._send()

    def close(self) -> None:
        self._transport.abort()

    def _send(self) -> None:
        self._received, self._wanted = b"", 0
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _read_head(self) -> bool:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._received[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            self.wrong = self._received
            self._transport.abort()
            return False
        length = head.split(b"content-length: ")[1].split(b"\r\n")[0]
        self._wanted = end + 4 + int(length)
        return True
