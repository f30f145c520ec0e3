"""A gateway on real sockets inside the test's own loop, and a raw client for it."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from router.contract import Endpoint, ModelRoute, Table, VersionRoute
from router.server import Gateway

DEADLINE_S = 10.0


class InjectedFaultError(Exception):
    """What a test raises inside the gateway."""


async def until(condition: Callable[[], object], what: str = "the condition", within_s: float = DEADLINE_S) -> None:
    """Waits until `condition` holds."""
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, f"{what} never held"
        await asyncio.sleep(0.002)


@dataclass
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes
    raw: bytes

    def field(self, name: str) -> str:
        """The one value of a field, "" without."""
        values = [value for field, value in self.fields if field == name]
        assert len(values) <= 1
        return values[0] if values else ""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class Client:
    """One connection to the gateway, raw."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def request(self, target: str = "/v2/models/m/infer", *lines: str, body: bytes = b"", method: str = "POST") -> None:
        self.send(request(target, *lines, body=body, method=method))

    async def ask(
        self, target: str = "/v2/models/m/infer", *lines: str, body: bytes = b"", method: str = "POST"
    ) -> Answer:
        self.request(target, *lines, body=body, method=method)
        return await self.answer(is_head=method == "HEAD")

    async def head(self) -> Answer:
        """The next head, with whatever status."""
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        line, *fields = raw[:-4].decode("latin-1").split("\r\n")
        pairs = [(name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)]
        return Answer(int(line.split(" ")[1]), pairs, b"", raw)

    async def answer(self, *, is_head: bool = False) -> Answer:
        answer = await self.head()
        answer.body = b"" if is_head or answer.status in (204, 304) else await self._body(answer)
        return answer

    async def final_answer(self) -> Answer:
        """The next answer that is no interim one."""
        answer = await self.head()
        while answer.status < 200:
            answer = await self.head()
        answer.body = b"" if answer.status in (204, 304) else await self._body(answer)
        return answer

    async def _body(self, answer: Answer) -> bytes:
        if answer.field("transfer-encoding") == "chunked":
            body = b""
            while piece := await self.chunk():
                body += piece
            return body
        length = answer.field("content-length")
        if not length:
            return await asyncio.wait_for(self.reader.read(), DEADLINE_S)
        return await asyncio.wait_for(self.reader.readexactly(int(length)), DEADLINE_S)

    async def chunk(self) -> bytes:
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), DEADLINE_S), 16)
        return (await asyncio.wait_for(self.reader.readexactly(size + 2), DEADLINE_S))[:-2]

    async def closed(self) -> bytes:
        """What still comes until the gateway closes."""
        return await asyncio.wait_for(self.reader.read(), DEADLINE_S)

    def leave(self) -> None:
        self.writer.transport.abort()


def request(
    target: str = "/v2/models/m/infer",
    *lines: str,
    body: bytes = b"",
    method: str = "POST",
    length: int | None = None,
) -> bytes:
    head = [f"{method} {target} HTTP/1.1", "host: gateway", *lines]
    if length is not None or body or method == "POST":
        head.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


class Listening(Protocol):
    port: int


class GatewayUnderTest:
    """A gateway with its table and its clients."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.port = int(gateway.address.rpartition(":")[2])
        self.grpc_port = int(gateway.rpc_address.rpartition(":")[2] or 0)
        self.metrics_port = int(gateway.metrics_address.rpartition(":")[2])
        self.secure: ssl.SSLContext | None = None  # what clients of a TLS port connect with
        self._revision = 0
        self._clients: list[Client] = []

    async def route(self, *replicas: Listening, **settings: Any) -> None:
        """Serves model `m`, version 1, by `replicas`."""
        endpoints = tuple(Endpoint(f"r{i}", "127.0.0.1", replica.port) for i, replica in enumerate(replicas))
        await self.table(m=ModelRoute({"1": VersionRoute(endpoints, **settings)}, {"1": 1}))

    async def table(self, **models: ModelRoute) -> None:
        self._revision += 1
        await self.gateway.apply(Table("test", self._revision, "c", models))

    async def connect(self, port: int | None = None) -> Client:
        secure = self.secure if port is None else None
        client = Client(*await asyncio.open_connection("127.0.0.1", port or self.port, limit=1 << 26, ssl=secure))
        self._clients.append(client)
        return client

    async def ask(self, target: str = "/v2/models/m/infer", *lines: str, **arguments: Any) -> Answer:
        return await (await self.connect()).ask(target, *lines, **arguments)

    async def admin(self, path: str) -> Answer:
        return await (await self.connect(self.metrics_port)).ask(path, method="GET")

    @property
    def in_flight(self) -> int:
        return sum(lane.in_flight for lane in self.gateway.fleet.lanes.values())

    @property
    def queued(self) -> int:
        return sum(lane.queued for lane in self.gateway.fleet.lanes.values())

    def count(self, status: int) -> int:
        return sum(lane.stats.codes.get(status, 0) for lane in self.gateway.fleet.lanes.values())

    async def close(self) -> None:
        for client in self._clients:
            client.leave()
        await until(lambda: not self.gateway.connections, "every connection closed")
        await self.gateway.drain()
        assert all(replica.in_flight == 0 for replica in self.gateway.fleet.replicas.values())
