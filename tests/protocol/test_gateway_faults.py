"""An exception inside the gateway, wherever it happens, ends its own request and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router.core.admission import Lane
from router.core.balance import Replica
from router.core.ejection import Health
from router.core.stats import Histogram, VersionStats
from router.proto.pool import Connecting, Pool
from tests.fakes.gateway import Client, GatewayUnderTest, InjectedFaultError, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica, echo

from .conftest import StartGateway
from .test_gateway_keys import Keys, api_key, bearer


class Bomb:
    """Raises once."""

    def __init__(self) -> None:
        self.is_live = True

    def __call__(self) -> None:
        if self.is_live:
            self.is_live = False
            raise InjectedFaultError


class BrokenHistogram(Histogram):
    def __init__(self, bomb: Bomb) -> None:
        super().__init__()
        self._bomb = bomb

    def add(self, seconds: float) -> None:
        self._bomb()
        super().add(seconds)


class BrokenStats(VersionStats):
    def __init__(self, bomb: Bomb) -> None:
        super().__init__()
        self.bomb = bomb

    def shed_one(self, reason: str) -> None:
        self.bomb()
        super().shed_one(reason)

    def served(self, status: int, seconds: float, model_s: float) -> None:
        self.bomb()
        super().served(status, seconds, model_s)


class BrokenHealth(Health):
    def __init__(self, bomb: Bomb) -> None:
        super().__init__()
        self.bomb = bomb

    def fail(self, kind: str) -> bool:
        self.bomb()
        return super().fail(kind)

    def succeed(self, seconds: float) -> bool:
        self.bomb()
        return super().succeed(seconds)


class BrokenPool(Pool):
    """Its requests raise when they are given a connection, or told that there is none."""

    def __init__(self, pool: Pool, gateway: GatewayUnderTest, bomb: Bomb) -> None:
        super().__init__(pool.replica, gateway.gateway.config.limits, gateway.gateway.timers)
        self._bomb = bomb

    def connect(self, waiting: Connecting) -> None:
        super().connect(BrokenWaiter(waiting, self._bomb))


class BrokenWaiter:
    def __init__(self, waiting: Connecting, bomb: Bomb) -> None:
        self._waiting = waiting
        self._bomb = bomb

    def on_connected(self, connection: Any) -> bool:
        self._bomb()
        return self._waiting.on_connected(connection)

    def on_connect_failed(self, replica: Replica, reason: str) -> None:
        self._bomb()
        self._waiting.on_connect_failed(replica, reason)

    def fault(self, exc: Exception) -> None:
        self._waiting.fault(exc)


Break = Callable[[GatewayUnderTest, Bomb], None]


def lane_of(gateway: GatewayUnderTest) -> Lane:
    return gateway.gateway.fleet.lanes["m", "1"]


def replica_of(gateway: GatewayUnderTest) -> Replica:
    (replica,) = gateway.gateway.fleet.replicas.values()
    return replica


def routing(gateway: GatewayUnderTest, bomb: Bomb) -> None:
    resolve = gateway.gateway.fleet.resolve

    def broken(*arguments: Any) -> Any:
        bomb()
        return resolve(*arguments)

    gateway.gateway.fleet.resolve = broken  # type: ignore[method-assign]


def taking_the_slot(gateway: GatewayUnderTest, bomb: Bomb) -> None:
    lane_of(gateway).stats.queue_s = BrokenHistogram(bomb)


def connecting(gateway: GatewayUnderTest, bomb: Bomb) -> None:
    replica = replica_of(gateway)
    replica.pool = BrokenPool(replica.pool, gateway, bomb)


def the_answers_head(gateway: GatewayUnderTest, bomb: Bomb) -> None:
    replica_of(gateway).health = BrokenHealth(bomb)


@pytest.fixture
async def is_served(gateway: GatewayUnderTest, replica: ScriptedReplica) -> Callable[[], Awaitable[bool]]:
    """Whether a request of another client is answered, with no slot left over."""

    async def ask() -> bool:
        await until(lambda: gateway.in_flight == 0 and gateway.queued == 0, "every slot was given back", 2)
        replica.script = echo
        return (await gateway.ask(body=b"next")).body == b"next"

    return ask


@pytest.fixture
def faults(tmp_path: Path) -> Callable[[], list[dict[str, str]]]:
    def read() -> Iterator[dict[str, str]]:
        for line in (tmp_path / "gateway.log").read_text().splitlines():
            entry = json.loads(line)
            if entry["event"] == "fault":
                yield entry

    return lambda: list(read())


Faults = Callable[[], list[dict[str, str]]]


class TestAFault:
    @pytest.mark.parametrize("broken", [routing, taking_the_slot, connecting, the_answers_head])
    @pytest.mark.parametrize(
        "raw", [request(body=b"x"), request(length=1 << 20) + b"x" * (1 << 20)], ids=["whole", "streamed"]
    )
    async def test_before_the_answer_ends_as_500_and_frees_the_slot(
        self, start_gateway: StartGateway, replica: ScriptedReplica, faults: Faults, broken: Break, raw: bytes
    ) -> None:
        gateway = await start_gateway(buffer_bytes=1024)
        await gateway.route(replica)
        broken(gateway, Bomb())
        client = await gateway.connect()

        client.send(raw)
        answer = await client.answer()

        assert (answer.status, answer.code, answer.field("connection")) == (500, "GATEWAY_FAILED", "close")
        await until(lambda: gateway.in_flight == 0, "the slot was given back", 2)
        (fault,) = faults()
        assert InjectedFaultError.__name__ in fault["trace"]
        assert fault["request_id"] == answer.field("x-request-id") == answer.json["request_id"]
        assert (await gateway.ask(body=b"next")).body == b"next"

    async def test_when_no_replica_can_be_reached_ends_as_500(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        await gateway.route(replica)
        await replica.stop()
        connecting(gateway, Bomb())

        assert (await gateway.ask()).status == 500

        await replica.listen()
        assert await is_served()

    async def test_after_the_answer_began_cuts_it_and_frees_the_slot(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        async def break_off(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            await until(lambda: begun)
            call.close()

        begun = False
        replica.script = break_off
        await gateway.route(replica)
        client = await gateway.connect()
        client.request()
        await client.head()
        assert await client.reader.readexactly(4) == b"half"

        replica_of(gateway).health = BrokenHealth(Bomb())
        begun = True

        assert await ended(client) == b""
        assert await is_served()

    async def test_after_the_answer_leaves_the_answer(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        await gateway.route(replica)
        lane_of(gateway).stats = BrokenStats(Bomb())
        client = await gateway.connect()

        client.request(body=b"mine")

        assert (await client.answer()).body == b"mine"
        assert await ended(client) == b""
        assert await is_served()

    async def test_gives_back_the_place_of_its_key(self, start_gateway: StartGateway, replica: ScriptedReplica) -> None:
        keys = Keys(await start_gateway(), replica)
        await keys.hold(one=api_key(concurrency=1))
        lane_of(keys.gateway).stats = BrokenStats(Bomb())
        client = await keys.gateway.connect()

        client.request("/v2/models/m/infer", bearer(), body=b"mine")
        await ended(client)

        assert (await keys.gateway.ask("/v2/models/m/infer", bearer())).status == 200

    async def test_of_a_waiting_request_does_not_touch_the_one_whose_slot_it_gets(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        go_on = asyncio.Event()

        async def wait(call: Call) -> None:
            await go_on.wait()
            call.answer(b"mine")

        replica.script = wait
        await gateway.route(replica, concurrency=1)
        first, second = await gateway.connect(), await gateway.connect()
        first.request()
        await until(lambda: gateway.in_flight == 1)
        second.request()
        await until(lambda: gateway.queued == 1)

        taking_the_slot(gateway, Bomb())
        go_on.set()

        assert (await first.answer()).body == b"mine"
        assert (await second.answer()).status == 500
        assert (await first.ask()).status == 200
        assert await is_served()

    async def test_at_a_deadline_leaves_the_other_deadlines(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        await gateway.route(state="starting", queue_timeout_ms=200)
        clients = [await gateway.connect() for _ in range(3)]
        for client in clients:
            client.request()
        await until(lambda: gateway.queued == 3)

        lane_of(gateway).stats = BrokenStats(Bomb())

        assert sorted([(await client.answer()).status for client in clients]) == [500, 504, 504]
        await gateway.route(replica)
        assert await is_served()

    async def test_in_a_table_update_leaves_the_table_and_the_other_requests(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        await gateway.route(state="starting")
        clients = [await gateway.connect() for _ in range(3)]
        for client in clients:
            client.request()
        await until(lambda: gateway.queued == 3)
        lane_of(gateway).stats.request_s = BrokenHistogram(Bomb())

        await gateway.route(state="failed")

        assert sorted([(await client.answer()).status for client in clients]) == [500, 503, 503]
        await gateway.route(replica)
        assert await is_served()

    async def test_of_a_request_sent_ahead_does_not_touch_the_one_before(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        async def first_breaks_the_second(call: Call) -> None:
            await call.completed.wait()
            routing(gateway, Bomb())
            call.answer(call.body)

        replica.script = first_breaks_the_second
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(request(body=b"mine") + request(body=b"next"))

        assert (await client.answer()).body == b"mine"
        assert (await client.answer()).status == 500
        assert replica_of(gateway).health.latency_s > 0
        assert await is_served()

    async def test_when_its_client_leaves_frees_the_slot(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, is_served: Callable[[], Awaitable[bool]]
    ) -> None:
        async def never(call: Call) -> None:
            await call.left.wait()

        replica.script = never
        await gateway.route(replica)
        client = await gateway.connect()
        client.request()
        await until(lambda: gateway.in_flight == 1)
        lane_of(gateway).stats.request_s = BrokenHistogram(Bomb())

        client.leave()

        assert await is_served()


async def ended(client: Client) -> bytes:
    """What still came before the connection ended, in whatever way."""
    try:
        return await client.closed()
    except ConnectionError:
        return b""
