"""The ways to choose between replicas, and a replica that just became ready, as requests on sockets meet them."""

from __future__ import annotations

import asyncio

import pytest

from router.contract import BALANCES
from tests.fakes.gateway import Client, GatewayUnderTest, until
from tests.fakes.scripted_replica import Call, ScriptedReplica


async def hold(call: Call) -> None:
    """Answers when the test says so."""


async def ask_together(gateway: GatewayUnderTest, count: int) -> list[Client]:
    """Clients that each sent one request, in this order."""
    clients = [await gateway.connect() for _ in range(count)]
    for client in clients:
        client.request()
    return clients


class TestBalance:
    @pytest.mark.parametrize("balance", BALANCES)
    async def test_fills_every_slot_before_anybody_waits(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, balance: str
    ) -> None:
        async with ScriptedReplica(hold) as other:
            replica.script = hold
            await gateway.route(replica, other, concurrency=2, balance=balance)

            clients = await ask_together(gateway, 5)
            await until(lambda: (len(replica.calls), len(other.calls)) == (2, 2))

            assert gateway.queued == 1
            other.calls[0].answer()
            await until(lambda: len(other.calls) == 3, "who waited has the slot that was freed")
            for call in (*replica.calls, *other.calls[1:]):
                call.answer()
            assert [(await client.answer()).status for client in clients] == [200] * 5

    async def test_goes_in_turn(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async with ScriptedReplica() as other:
            await gateway.route(replica, other, balance="round_robin")
            client = await gateway.connect()

            taken = []
            for _ in range(6):
                await client.ask()
                taken.append((len(replica.calls), len(other.calls)))

        assert taken == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]

    async def test_keeps_work_from_a_replica_that_was_slow(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        """Idle or busy: the others' in flight says nothing when requests come one at a time."""

        async def slow(call: Call) -> None:
            await asyncio.sleep(0.2)
            call.answer()

        async with ScriptedReplica() as other:
            replica.script = slow
            await gateway.route(replica, other, balance="peak_ewma")
            client = await gateway.connect()

            for _ in range(20):
                await client.ask()

        # Each is tried once, for neither is known; then the slow one is dearer until its peak is forgotten (10 s).
        assert (len(replica.calls), len(other.calls)) == (1, 19)


class TestWarmFirst:
    @pytest.mark.parametrize("balance", BALANCES)
    async def test_gives_a_new_replica_its_concurrency_and_not_the_backlog(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, balance: str
    ) -> None:
        async with ScriptedReplica(hold) as new:
            replica.script = hold
            await gateway.route(replica, concurrency=2, balance=balance)
            clients = await ask_together(gateway, 12)
            await until(lambda: gateway.queued == 10)

            await gateway.route(replica, new, concurrency=2, balance=balance)
            await until(lambda: len(new.calls) == 2)

            assert gateway.queued == 8
            assert sorted(r.in_flight for r in gateway.gateway.fleet.replicas.values()) == [2, 2]
            for answered in range(6):
                for each in (replica, new):
                    await until(lambda each=each, answered=answered: len(each.calls) > answered)  # type: ignore[misc]
                    each.calls[answered].answer()
            assert [(await client.answer()).status for client in clients] == [200] * 12
