"""One gateway process: its listeners, the fleet it routes to, and its end.

Owns start and drain. Of all this only `make_request_id` and the counters are called for a request; read
`proto/downstream.py` for a request's way in, `sync.py` for where tables come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import signal
import socket
import time
import traceback
from collections.abc import Generator, Iterator
from importlib import metadata
from typing import Any

import msgspec

from router import metrics
from router.access import AccessLog
from router.config import Config
from router.contract import GatewayReport, Table, decode_in_steps
from router.core.balance import Replica
from router.core.table import Fleet
from router.core.target import Own
from router.log import EventLog
from router.proto.admin import AdminConnection
from router.proto.downstream import ClientConnection
from router.proto.pool import Pool
from router.proto.timers import Timers

BACKLOG = 4096
# A table is put in force in stretches of this length, so that no request waits longer behind one.
_STRETCH_S = 0.001


class Gateway:
    """Everything that the connections of one process share."""

    def __init__(self, config: Config, log: EventLog) -> None:
        loop = asyncio.get_running_loop()
        self.config = config
        self.log = log
        self.timers = Timers(loop)
        self.fleet = Fleet(random.Random().randrange, self._open_pool, self._close_pool)
        self.connections: set[ClientConnection] = set()
        self.admin_connections: set[AdminConnection] = set()
        self.unrouted: dict[int, int] = {}
        self.is_draining = False
        self.access_log: AccessLog | None = None
        if config.access_log:
            self.access_log = AccessLog(config.access_log, config.access_log_share, random.random)
        loop.set_exception_handler(self._report_fault)
        self._started_at = time.time()
        self._listeners: list[asyncio.Server] = []
        self._drained = asyncio.Event()
        self._applying = asyncio.Lock()
        # Unique without asking the system's random source for every request.
        self._id_prefix = os.urandom(6).hex()
        self._trace_prefix = os.urandom(8).hex().encode()
        self._id_count = 0

    # for connections

    def admit(self, connection: ClientConnection) -> bool:
        """Counts a connection; False when there are too many."""
        if len(self.connections) >= self.config.limits.connections:
            return False
        self.connections.add(connection)
        return True

    def forget(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if self.is_draining and not self.connections:
            self._drained.set()

    def make_request_id(self) -> str:
        self._id_count += 1
        return f"{self._id_prefix}-{self._id_count:x}"

    def make_traceparent(self) -> bytes:
        """A new trace, not sampled: whoever wants it recorded sends their own."""
        self._id_count += 1
        return b"00-%b%016x-%016x-00" % (self._trace_prefix, self._id_count, self._id_count)

    def count_unrouted(self, status: int) -> None:
        self.unrouted[status] = self.unrouted.get(status, 0) + 1

    def answer_own(self, own: Own) -> tuple[int, bytes]:
        """The answer to one of the gateway's own paths: status and JSON."""
        if own is Own.LIVE:
            return (503, b'{"live": false}') if self.is_draining else (200, b'{"live": true}')
        if own is Own.READY:
            ready = bool(self.fleet.tag) and not self.is_draining
            return (200, b'{"ready": true}') if ready else (503, b'{"ready": false}')
        about = {"name": "modelfleet-gateway", "version": _version(), "extensions": ["binary_tensor_data"]}
        return 200, json.dumps(about).encode()

    def answer_admin(self, path: bytes) -> tuple[bytes, bytes] | None:
        """The content type and body of a path of the private port; None when there is none."""
        if path == b"/metrics":
            return b"text/plain; version=0.0.4; charset=utf-8", self._metrics()
        if path == b"/healthz":
            return b"application/json", b'{"status": "draining"}' if self.is_draining else b'{"status": "ok"}'
        if path == b"/report":
            return b"application/json", msgspec.json.encode(self.report())
        if path == b"/debug/state":
            return b"application/json", json.dumps(self._state(), indent=1).encode()
        return None

    def report(self) -> GatewayReport:
        queued = {f"{lane.model}/{lane.version}": lane.queued for lane in self.fleet.lanes.values() if lane.queued}
        return GatewayReport(
            pid=os.getpid(),
            tag=self.fleet.tag,
            started_at=self._started_at,
            in_flight=self.fleet.in_flight(),
            queued=queued,
            draining=self.is_draining,
            ejected=self.fleet.ejected(time.monotonic()),
        )

    # life

    async def listen(self) -> None:
        """Opens both ports. Shared with a successor (SO_REUSEPORT), so that one can start before the other ends."""
        loop = asyncio.get_running_loop()
        config = self.config
        for factory, host, port in (
            (lambda: ClientConnection(self), config.host, config.port),
            (lambda: AdminConnection(self), config.metrics_host, config.metrics_port),
        ):
            server = await loop.create_server(factory, host, port, reuse_port=True, backlog=BACKLOG)
            self._listeners.append(server)
        self.log.info("gateway listening", address=self.address, metrics=self.metrics_address, pid=os.getpid())

    @property
    def address(self) -> str:
        return _address(self._listeners[0])

    @property
    def metrics_address(self) -> str:
        return _address(self._listeners[1])

    async def load(self, raw: bytes) -> Table:
        """Checks a table and puts it in force, while requests go on. Raises `TableError`; nothing is changed then."""
        with _collector_paused():
            table: Table = await _in_stretches(decode_in_steps(raw))
            await self.apply(table)
        return table

    async def apply(self, table: Table) -> None:
        """Puts a checked table in force, while requests go on."""
        async with self._applying:
            with _collector_paused():
                await _in_stretches(self.fleet.apply(table, time.monotonic))
        self.log.info("table applied", tag=table.tag, models=len(table.models))

    async def serve_until_signal(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await stop.wait()
        await self.drain()

    async def drain(self) -> None:
        """Takes nothing new, finishes what is in flight within `drain_timeout_s`, ends the rest."""
        self.is_draining = True
        began = time.monotonic()
        public, *private = self._listeners
        public.close()
        for connection in list(self.connections):
            connection.drain()
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), self.config.limits.drain_timeout_s)
        cut = len(self.connections)
        for connection in list(self.connections):
            connection.abort()
        for server in private:
            server.close()
        for admin in list(self.admin_connections):
            admin.close()
        for replica in self.fleet.replicas.values():
            replica.pool.close()
        if self.access_log is not None:
            self.access_log.close()
        self.log.info("gateway drained", took_s=round(time.monotonic() - began, 3), connections_cut=cut)

    def _report_fault(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours. The loop has closed the connection that it happened on; the others go on."""
        exc = context.get("exception")
        trace = "".join(traceback.format_exception(exc)) if exc else ""
        self.log.error("fault", reason=context.get("message", ""), trace=trace)

    def _open_pool(self, replica: Replica) -> None:
        replica.pool = Pool(replica, self.config.limits, self.timers)

    def _close_pool(self, replica: Replica) -> None:
        replica.pool.close()
        replica.pool = None  # ends the cycle of the two

    def _metrics(self) -> bytes:
        gauges = {
            "modelfleet_gateway_connections": ("Client connections open now.", float(len(self.connections))),
            "modelfleet_gateway_models": ("Models in the routing table.", float(len(self.fleet.models))),
            "modelfleet_gateway_started_at_seconds": ("When this process started.", self._started_at),
        }
        return metrics.render(self.fleet.lanes.values(), self.unrouted, gauges)

    def _state(self) -> dict[str, object]:
        now = time.monotonic()
        lanes = [
            {
                "model": lane.model,
                "version": lane.version,
                "in_flight": lane.in_flight,
                "queued": lane.queued,
                "state": lane.route.state,
                "predicted_wait_ms": round(lane.predicted_wait_s() * 1000, 3),
                "replicas": [replica.id for replica in lane.replicas],
            }
            for lane in self.fleet.lanes.values()
        ]
        replicas = [
            {
                "id": replica.id,
                "address": f"{replica.host}:{replica.port}",
                "in_flight": replica.in_flight,
                "idle_connections": len(replica.pool.idle),
                "retired": replica.retired,
                "capacity": replica.capacity,
                "latency_ms": round(replica.health.latency_s * 1000, 3),
                "ejections": replica.health.ejections,
                "ejected_for_s": round(max(0.0, replica.health.ejected_until - now), 3),
                "reason": replica.health.reason,
            }
            for replica in self.fleet.replicas.values()
        ]
        return {
            "tag": self.fleet.tag,
            "draining": self.is_draining,
            "connections": len(self.connections),
            "lanes": lanes,
            "replicas": replicas,
        }


async def _in_stretches(steps: Generator[None, None, Any]) -> Any:
    """Runs `steps` to their end, letting requests through in between."""
    began = time.monotonic()
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
        if time.monotonic() - began > _STRETCH_S:
            await asyncio.sleep(0)
            began = time.monotonic()


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from walking 10,000 models again and again while they are made (pauses of 140 ms
    were measured), and later: what a table holds dies by its reference count, never in a cycle."""
    if not gc.isenabled():  # inside another pause
        yield
        return
    gc.collect(1)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def bind_problem(host: str, port: int) -> str:
    """Why nobody should listen on `host:port`, "" when it is free: SO_REUSEPORT would share it in silence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as exc:
            return (exc.strerror or str(exc)).lower()
    return ""


def _address(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _version() -> str:
    try:
        return metadata.version("modelfleet")
    except metadata.PackageNotFoundError:
        return "0"
