"""A gateway between a client and a replica of memory: bytes in, bytes out, without sockets, thousands of cases a second.

Everything is the gateway's own but the transports and the connecting. `settle` lets all that can happen happen: bytes
are delivered, closed connections told so, tasks run. Time passes only where a case says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Any

import httptools

from router.config import Config, Limits
from router.contract import Endpoint, ModelRoute, Table, VersionRoute
from router.log import EventLog
from router.proto.downstream import ClientConnection
from router.proto.http2 import Http2Connection
from router.proto.rpc import open_stream
from router.server import Gateway
from tests.fakes.http_readers import Seen

# Small, so that short cases reach every limit.
LIMITS = Limits(head_bytes=2048, target_bytes=256, fields=20, body_bytes=4096, buffer_bytes=64, connections=50)


class MemoryTransport(asyncio.Transport):
    """One side's transport: what the gateway wrote is in `written`, what it is to read comes by `deliver`."""

    def __init__(self, protocol: Any) -> None:
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.is_eof_sent = False
        self._inbox: list[bytes] = []
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False
        self._limit = 65_536

    # what the gateway asks of a transport

    def write(self, data: bytes) -> None:
        if not self._is_closing:
            assert not self.is_eof_sent, "wrote behind the end of writing"
            self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_eof_sent = True

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self._is_closing = True

    def is_closing(self) -> bool:
        return self._is_closing

    def pause_reading(self) -> None:
        assert self._is_reading, "paused twice"
        self._is_reading = False

    def resume_reading(self) -> None:
        assert not self._is_reading, "resumed twice"
        self._is_reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name == "peername" else default

    # what the other side does

    @property
    def is_open(self) -> bool:
        return not self._is_closing

    def deliver(self, data: bytes) -> None:
        self._inbox.append(data)

    def drop(self) -> None:
        """The peer closes."""
        self._is_closing = True

    def step(self) -> bool:
        """One thing that can happen here; False when there is none."""
        if self._is_closing:
            if self._is_lost:
                return False
            self._is_lost = True
            self.protocol.connection_lost(None)
            return True
        if self._inbox and self._is_reading:
            data = self._inbox.pop(0)
            if data:
                self.protocol.data_received(data)
            return True
        return False


class ReplicaSide:
    """The replica's end of one connection: reads requests with llhttp, and asks the world what to answer."""

    def __init__(self, world: World, transport: MemoryTransport) -> None:
        self._world = world
        self.transport = transport
        self._read = 0
        self._parser = httptools.HttpRequestParser(self)
        self._is_upgrade_asked = False
        self.is_tunnel = False  # the replica agreed to an upgrade

    def step(self) -> bool:
        new = bytes(self.transport.written[self._read :])
        if not new:
            if self.transport.is_eof_sent and self.transport.is_open:
                self.transport.drop()
                return True
            return False
        self._read += len(new)
        if self._is_upgrade_asked:
            assert self.is_tunnel, f"bytes that nobody read: {new!r}"
            return True
        try:
            self._parser.feed_data(new)  # whatever llhttp refuses here ends the case: it must not have been sent
        except httptools.HttpParserUpgrade:
            self._is_upgrade_asked = True
        return True

    def on_message_begin(self) -> None:
        self._target = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        number = len(self._world.seen)
        self._world.seen.append(Seen(self._parser.get_method(), self._target, self._body))
        for piece in self._world.answer(number):
            if piece is None:
                self.transport.drop()
            else:
                self.is_tunnel |= b"HTTP/1.1 101" in piece
                self.transport.deliver(piece)


def numbered(world: World) -> Callable[[int], Iterator[bytes | None]]:
    """Answers each request with its number."""

    def answer(number: int) -> Iterator[bytes | None]:
        is_head = world.seen[number].method == b"HEAD"
        yield b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nContent-Length: 2\r\n\r\n%b" % (number, b"" if is_head else b"{}")

    return answer


class World:
    """One gateway, one replica that is always reachable, and as many clients as a case makes."""

    def __init__(self, gateway: Gateway, loop: MemoryLoop, log: QuietLog) -> None:
        self.gateway = gateway
        self._log = log
        self.seen: list[Seen] = []
        self.answer = numbered(self)
        self._loop = loop
        self._clients: list[MemoryTransport] = []
        loop.world = self
        self.replica_sides: list[ReplicaSide] = []

    def client(self) -> MemoryTransport:
        return self._connected(ClientConnection(self.gateway))

    def rpc_client(self) -> MemoryTransport:
        return self._connected(Http2Connection(self.gateway, open_stream))

    def _connected(self, protocol: Any) -> MemoryTransport:
        transport = MemoryTransport(protocol)
        self._clients.append(transport)
        protocol.connection_made(transport)
        return transport

    async def settle(self) -> None:
        """Lets everything happen that can."""
        while True:
            stepped = [one.step() for one in (*self._clients, *self.replica_sides)]
            stepped += [side.transport.step() for side in self.replica_sides]
            if self._loop.tasks > 1:  # there is more than the case: somebody connects
                await asyncio.sleep(0)
            elif not any(stepped):
                return

    async def finish(self) -> None:
        """Every client leaves; the gateway must be as it was, and serve the next one."""
        for transport in self._clients:
            transport.drop()
        await self.settle()
        lanes = self.gateway.fleet.lanes.values()
        assert [(lane.in_flight, lane.queued) for lane in lanes] == [(0, 0)], "a slot or a place in the queue is lost"
        assert not self.gateway.connections, "a connection is still counted"
        assert not self._log.faults, "\n".join(self._log.faults)
        self.answer = numbered(self)
        self._clients, self.seen = [], []
        probe = self.client()
        probe.deliver(b"GET /models/m/probe HTTP/1.1\r\nHost: h\r\n\r\n")
        await self.settle()
        assert b"X-Number: 0\r\n" in probe.written, "a well-behaved client is not served any more"
        probe.drop()
        await self.settle()
        self._clients, self.seen = [], []
        self.replica_sides = [side for side in self.replica_sides if side.transport.is_open]


class MemoryLoop(asyncio.SelectorEventLoop):
    """Connects to the world's replica, at once."""

    world: World
    tasks = 0

    def create_task(self, coro: Any, **settings: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        task = super().create_task(coro, **settings)
        self.tasks += 1
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, _: asyncio.Task[Any]) -> None:
        self.tasks -= 1

    async def create_connection(self, protocol_factory: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        protocol = protocol_factory()
        transport = MemoryTransport(protocol)
        self.world.replica_sides.append(ReplicaSide(self.world, transport))
        protocol.connection_made(transport)
        return transport, protocol


class QuietLog(EventLog):
    """Keeps what would be reported: a fault is an exception of ours."""

    def __init__(self) -> None:
        super().__init__(os.devnull)
        self.faults: list[str] = []

    def _write(self, level: str, event: str, keys: dict[str, object]) -> None:
        if level == "error":
            self.faults.append(f"{event}: {keys.get('reason')}: {keys.get('trace')}")


async def make_world(loop: MemoryLoop) -> World:
    log = QuietLog()
    gateway = Gateway(Config(table_file="-", limits=LIMITS), log)
    route = VersionRoute((Endpoint("r", "127.0.0.1", 1),), concurrency=4, queue_max=4, eject=False, websocket=True)
    await gateway.apply(Table("fuzz", 1, "c", {"m": ModelRoute({"1": route}, {"1": 1})}))
    return World(gateway, loop, log)
