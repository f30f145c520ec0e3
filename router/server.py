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
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from router.access import AccessLog
from router.answers import Answers
from router.config import Config, Tracing, release
from router.contract import Table, decode_delta, decode_in_steps
from router.core import errors
from router.core.balance import Replica
from router.core.census import Census, origin_of
from router.core.door import Door
from router.core.errors import Refusal
from router.core.held import HeldTable
from router.core.index import BODY_BYTES, Index, status
from router.core.keys import Caller, Keyring
from router.core.ledger import Ledger, Unread
from router.core.table import Fleet
from router.core.target import Own, Target
from router.crew import Crew
from router.listeners import BACKLOG
from router.log import EventLog
from router.otlp import Outbox
from router.proto.admin import AdminConnection
from router.proto.downstream import ClientConnection
from router.proto.entrance import Entrance
from router.proto.http2 import Http2Connection
from router.proto.pool import Pool
from router.proto.request import Request
from router.proto.roles import Connection
from router.proto.rpc import open_stream
from router.proto.rpc_head import Heads
from router.proto.shadow import Shadows
from router.proto.timers import Timers
from router.proto.traced import TracedCalls, TracedConnection
from router.samples import SampleLog
from router.stretches import in_stretches
from router.tls import HTTP, HTTP2, Certificates
from router.tracer import Tracer
from router.waking import Waking

# A retiring process closes idle connections so long before its end.
LAST_S = 2.0
# Clients that speak plain HTTP to the TLS port are named once in so long.
HINT_S = 60.0


class Gateway:
    """Everything that the connections of one process share."""

    def __init__(self, config: Config, log: EventLog, crew: Crew | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.config = config
        self.crew = crew or Crew()
        self.log = log
        self.timers = Timers(loop)
        self._waking = Waking(self)
        self.fleet = Fleet(
            random.Random().randrange,
            self._open_pool,
            self._close_pool,
            self.crew.rows.cell,
            self.crew.rows,
            self._waking.wake,
        )
        self.keyring = Keyring(config.auth == "required", self.crew.rows)
        self.door = Door(self.keyring, self.fleet, time.time)
        self._index = Index(self.fleet)
        self.held = HeldTable()
        samples = SampleLog(config.shadow_samples) if config.shadow_samples else None
        self.heads = Heads(self)
        self.shadows = Shadows(self.fleet, self.timers, config.limits, samples, self.fault)
        self.connections: dict[Connection, str] = {}  # with the origin that each is counted under
        self.certificates = Certificates(config.tls, log) if config.tls is not None else None
        self.admin_connections: set[AdminConnection] = set()
        self.unrouted: dict[int, int] = {}
        self.is_draining = False
        self.has_successor = False  # draining, but the gateway as a whole goes on
        self.has_table = asyncio.Event()
        self.access_log: AccessLog | None = None
        if config.access_log:
            self.access_log = AccessLog(config.access_log, config.access_log_share, random.random)
        loop.set_exception_handler(self._report_fault)
        self._public: list[asyncio.Server] = []
        self._rpc: list[asyncio.Server] = []
        self._private: list[asyncio.Server] = []
        self._drained = asyncio.Event()
        self._applying = asyncio.Lock()
        self.memory = Ledger(config.limits.held_bytes)  # bodies
        self.unread = Unread(config.limits.held_bytes)  # answers
        self._watching: asyncio.Task[None] | None = None
        self._hint_at = 0.0
        self._census = Census(config.limits.connections, config.limits.connections_per_address)
        self._meetings: set[asyncio.Task[None]] = set()
        self.crew.join(self._on_company)
        self.tracer: Tracer | None = None
        self.traced_calls: TracedCalls | None = None
        self.outbox: Outbox | None = None
        if config.tracing is not None:
            self._begin_tracing(config.tracing)
        self.answers = Answers(self)
        # Unique without asking the system's random source for every request.
        self._id_prefix = os.urandom(6).hex()
        self._trace_prefix = os.urandom(8).hex().encode()
        self._id_count = 0

    # for connections

    def admit(self, connection: Connection, address: str) -> Refusal | None:
        """Counts a connection, or says why it may not come in."""
        origin = origin_of(address)
        refusal = self._census.enter(origin)
        if refusal is None:
            self.connections[connection] = origin
        return refusal

    def forget(self, connection: Connection) -> None:
        """Nothing happens when it was not admitted."""
        origin = self.connections.pop(connection, None)
        if origin is not None:
            self._census.leave(origin)
        if self.is_draining and not self.connections:
            self._drained.set()

    def make_request_id(self) -> str:
        self._id_count += 1
        return f"{self._id_prefix}-{self._id_count}"

    def make_traceparent(self) -> bytes:
        """A new trace, not sampled: whoever wants it recorded sends their own."""
        self._id_count += 1
        count = b"%016x" % self._id_count
        return b"00-%b%b-%b-00" % (self._trace_prefix, count, count)

    def _begin_tracing(self, settings: Tracing) -> None:
        self.outbox = outbox = Outbox(settings, self.log, lambda: self.held.table.cluster if self.held.table else "")
        self.tracer = Tracer(settings.sample, self.make_traceparent, outbox.put)
        self.make_traceparent = self.tracer.make_traceparent  # type: ignore[method-assign]  # no look at it elsewhere
        self.traced_calls = TracedCalls(self.tracer)
        outbox.start()

    @property
    def is_ending(self) -> bool:
        return self.is_draining and not self.has_successor

    def fault(self, exc: Exception, request_id: str, traceparent: bytes = b"") -> None:
        """Reports an exception of ours in the work on one request."""
        ids = {"request_id": request_id, **({"trace_id": traceparent[3:35].decode()} if traceparent else {})}
        trace = "".join(traceback.format_exception(exc))
        self.log.error("fault", reason=str(exc) or type(exc).__name__, **ids, trace=trace)

    def hint_at_tls(self) -> None:
        """Somebody spoke plain HTTP to the TLS port."""
        now = time.monotonic()
        if now >= self._hint_at:
            self._hint_at = now + HINT_S
            self.log.warning("plain HTTP on the TLS port; clients must use https://", address=self.address)

    def count_unrouted(self, status: int) -> None:
        self.unrouted[status] = self.unrouted.get(status, 0) + 1

    def answer_own(self, own: Own) -> tuple[int, bytes]:
        """The answer to one of the gateway's own paths: status and JSON."""
        if own is Own.LIVE:
            return (503, b'{"live": false}') if self.is_ending else (200, b'{"live": true}')
        if own is Own.READY:
            ready = bool(self.fleet.tag) and not self.is_ending
            return (200, b'{"ready": true}') if ready else (503, b'{"ready": false}')
        return 200, json.dumps(self.about()).encode()

    def about(self) -> dict[str, Any]:
        """The metadata of the server."""
        return {"name": "modelfleet-gateway", "version": release(), "extensions": ["binary_tensor_data"]}

    def index(self, request: Request, body: bytes) -> bytes | Refusal:
        """Which models there are, as the caller may know. A body that is too long was not read."""
        if request.content_length < 0 or request.content_length > BODY_BYTES:
            return errors.too_large(413, "the body of /v2/repository/index", BODY_BYTES)
        return self.index_for(request.caller, body)

    def index_for(self, caller: Caller | Refusal | None, body: bytes) -> bytes | Refusal:
        if not self.fleet.tag:
            return errors.no_table()
        seen = self.door.sees(caller, time.monotonic())
        return seen if isinstance(seen, Refusal) else self._index.answer(seen, body)

    def status(self, target: Target) -> bytes | Refusal:
        """Of a model's versions, as TensorFlow Serving says it."""
        model = self.fleet.models.get(target.model)
        if model is None:
            return errors.model_not_found(target.model, self.fleet.models) if self.fleet.tag else errors.no_table()
        return status(model, target.version, target.label)

    # life

    async def listen(
        self,
        public: Sequence[socket.socket] | None = None,
        private: Sequence[socket.socket] | None = None,
        rpc: Sequence[socket.socket] | None = None,
    ) -> None:
        """Accepts connections: from the supervisor's sockets, or, in a process on its own, from new ones."""
        config = self.config
        self._public = await self._accept(self._http_factory(), config.host, config.port, public)
        if rpc or (rpc is None and config.grpc_port is not None):
            self._rpc = await self._accept(self._rpc_factory(), config.host, config.grpc_port or 0, rpc)
        self._private = await self._accept(
            lambda: AdminConnection(self), config.metrics_host, config.metrics_port, private
        )
        if self.certificates is not None:
            self._watching = asyncio.create_task(self.certificates.watch(), name="certificates")
        self.log.info(
            "gateway listening",
            address=self.address,
            grpc=self.rpc_address,
            metrics=self.metrics_address,
            pid=os.getpid(),
        )

    def _http_factory(self) -> Callable[[], asyncio.BaseProtocol]:
        kind = ClientConnection if self.tracer is None else TracedConnection
        if self.certificates is None:
            return lambda: kind(self)
        context = self.certificates.context(HTTP)
        return lambda: Entrance(self, context, lambda: kind(self, is_secure=True))

    def _rpc_factory(self) -> Callable[[], asyncio.BaseProtocol]:
        if self.certificates is None:
            return lambda: Http2Connection(self, open_stream)
        context = self.certificates.context(HTTP2)
        return lambda: Entrance(self, context, lambda: Http2Connection(self, open_stream, is_secure=True))

    async def _accept(
        self,
        factory: Callable[[], asyncio.BaseProtocol],
        host: str,
        port: int,
        sockets: Sequence[socket.socket] | None,
    ) -> list[asyncio.Server]:
        loop = asyncio.get_running_loop()
        if sockets is None:
            return [await loop.create_server(factory, host, port, reuse_port=True, backlog=BACKLOG)]
        return [await loop.create_server(factory, sock=each, backlog=BACKLOG) for each in sockets]

    @property
    def address(self) -> str:
        return _address(self._public[0])

    @property
    def rpc_address(self) -> str:
        """ "" without gRPC."""
        return _address(self._rpc[0]) if self._rpc else ""

    @property
    def metrics_address(self) -> str:
        return _address(self._private[0])

    async def load(self, raw: bytes) -> Table:
        """Checks a table and puts it in force, while requests go on. Raises `TableError`; nothing is changed then."""
        with _collector_paused():
            table: Table = await in_stretches(decode_in_steps(raw))
            await self.apply(table)
        return table

    async def apply(self, table: Table) -> None:
        """Puts a checked table in force, while requests go on."""
        async with self._applying:
            with _collector_paused():
                # First, so that a revoked key ends at once.
                await in_stretches(self.keyring.apply(table.keys, time.monotonic()))
                await in_stretches(self.fleet.apply(table, time.monotonic))
                self.held.hold(table, time.time())
        self.has_table.set()
        self.crew.applied_table()
        self.log.info("table applied", tag=table.tag, models=len(table.models))

    async def load_delta(self, raw: bytes) -> None:
        """Checks what changed in the table held, and puts that in force. Raises `TableError`; nothing is changed then.

        It costs what it names, whatever the table has beside: the garbage collector has nothing to walk either.
        """
        async with self._applying:
            delta = decode_delta(raw)
            table: Table = await in_stretches(self.held.merge(delta))
            if delta.keys or delta.removed_keys:
                # First, so that a revoked key ends at once.
                await in_stretches(self.keyring.apply(table.keys, time.monotonic()))
            await in_stretches(self.fleet.amend(delta, time.monotonic))
            self.held.hold_merged(delta, table, time.time())
        self.crew.applied_table()
        self.log.info("table changed", tag=table.tag, models=len(delta.models), removed=len(delta.removed))

    async def drain(self, *, has_successor: bool = False) -> None:
        """Takes nothing new, finishes what is in flight within `drain_timeout_s`, ends the rest.

        With a successor an idle connection stays for its next request, whose answer closes it: closed at once, it
        could take away a request that is on its way.
        """
        self.has_successor = has_successor
        self.is_draining = True
        began = time.monotonic()
        for server in (*self._public, *self._rpc, *(self._private if has_successor else ())):
            server.close()
        # A client of HTTP/2 goes elsewhere as soon as it is told so, and loses nothing by it.
        for each in [each for each in self.connections if isinstance(each, Http2Connection)]:
            each.drain()
        timeout_s = self.config.limits.drain_timeout_s
        if has_successor:
            await self._await_connections(timeout_s - min(LAST_S, timeout_s / 4))
        self.end_idle()
        await self._await_connections(timeout_s - (time.monotonic() - began))
        cut = len(self.connections)
        for connection in list(self.connections):
            connection.abort()
        if self.outbox is not None:
            await asyncio.to_thread(self.outbox.close)
        await self.answers.publish()
        if has_successor:
            await self._await_answers()
        self._end()
        self.log.info("gateway drained", took_s=round(time.monotonic() - began, 3), connections_cut=cut)

    def end_idle(self) -> None:
        """Closes idle connections now, if it drains, and others after their answer."""
        if self.is_draining:
            for connection in list(self.connections):
                connection.drain()

    async def _await_connections(self, timeout_s: float) -> None:
        if self.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), max(0.0, timeout_s))

    async def _await_answers(self) -> None:
        """Whoever has asked on the private port, or is about to, gets an answer."""
        until = time.monotonic() + LAST_S
        while any(admin.is_expected for admin in self.admin_connections) and time.monotonic() < until:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    def _end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        for server in self._private:
            server.close()
        for admin in list(self.admin_connections):
            admin.close()
        self.shadows.close()
        self._waking.close()
        for replica in list(self.fleet.replicas.values()):
            replica.pool.close()
        if self.access_log is not None:
            self.access_log.close()

    def _on_company(self) -> None:
        """Other processes of the gateway are there, or gone."""
        task = asyncio.create_task(self._meet(), name="meeting")
        self._meetings.add(task)
        task.add_done_callback(self._meetings.discard)

    async def _meet(self) -> None:
        async with self._applying:
            await in_stretches(self.fleet.meet(time.monotonic))

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


def _address(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
