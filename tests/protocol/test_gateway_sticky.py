"""Callers keep their version and their replica, over connections, tables and lost replicas."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable

import pytest

from router.contract import ApiKey, Endpoint, ModelRoute, Table, VersionRoute
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

CALLERS = range(31)


def endpoint(replica: ScriptedReplica, id_: str = "") -> Endpoint:
    return Endpoint(id_ or f"r{replica.port}", "127.0.0.1", replica.port)


def two_versions(
    old: ScriptedReplica, new: ScriptedReplica, *weights: int, sticky: str = "header:x-user"
) -> ModelRoute:
    versions = {"1": VersionRoute((endpoint(old),)), "2": VersionRoute((endpoint(new),))}
    return ModelRoute(versions, {"1": weights[0], "2": weights[1]}, sticky=sticky)


async def version_of(gateway: GatewayUnderTest, line: str) -> str:
    answer = await gateway.ask("/v2/models/m/infer", line)
    assert answer.status == 200
    return answer.field("x-model-version")


async def versions_of(gateway: GatewayUnderTest, line: str, callers: Iterable[int]) -> dict[int, str]:
    """The version of each caller, asked for in this order: whoever goes by turns would get another one in another."""
    return {caller: await version_of(gateway, line.format(caller)) for caller in callers}


class TestVersions:
    @pytest.mark.parametrize(
        ("sticky", "line"),
        [("header:x-user", "X-User: {}"), ("cookie:sid", "cookie: a=b; sid={}")],
    )
    async def test_keeps_a_caller_at_its_version(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, sticky: str, line: str
    ) -> None:
        async with ScriptedReplica() as new:
            await gateway.table(m=two_versions(replica, new, 50, 50, sticky=sticky))

            first = await versions_of(gateway, line, CALLERS)
            again = await versions_of(gateway, line, reversed(CALLERS))

        assert first == again
        assert {"1", "2"} == set(first.values())

    async def test_keeps_an_api_key_at_its_version_whichever_field_it_comes_in(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        keys = {f"k{number}": ApiKey(hashlib.sha256(b"secret-%d" % number).hexdigest()) for number in range(10)}
        async with ScriptedReplica() as new:
            model = two_versions(replica, new, 50, 50, sticky="key")
            await gateway.gateway.apply(Table("keys", 1, "c", {"m": model}, keys))

            lines = ("authorization: Bearer secret-{}", "x-api-key: secret-{}")
            first, again = [[await version_of(gateway, line.format(number)) for number in range(10)] for line in lines]

        assert first == again
        assert {"1", "2"} == set(first)

    async def test_moves_callers_only_to_the_version_that_gains(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async with ScriptedReplica() as new:
            await gateway.table(m=two_versions(replica, new, 80, 20))
            before = await versions_of(gateway, "x-user: {}", CALLERS)

            await gateway.table(m=two_versions(replica, new, 40, 60))
            after = await versions_of(gateway, "x-user: {}", reversed(CALLERS))

        moves = Counter((before[caller], after[caller]) for caller in CALLERS)
        assert moves["2", "1"] == 0
        assert moves["1", "2"] > 0

    async def test_splits_by_weight_who_does_not_say_who_it_is(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async with ScriptedReplica() as new:
            await gateway.table(m=two_versions(replica, new, 75, 25))

            taken = Counter([await version_of(gateway, "x-other: 1") for _ in range(20)])

        assert taken == {"1": 15, "2": 5}

    async def test_lets_a_pin_go_before_the_caller(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        async with ScriptedReplica() as new:
            await gateway.table(m=two_versions(replica, new, 100, 0))

            answer = await gateway.ask("/v2/models/m/infer", "x-user: ann", "x-model-version: 2")

        assert answer.field("x-model-version") == "2"

    async def test_skips_a_version_without_a_replica(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        versions = {"1": VersionRoute((endpoint(replica),)), "2": VersionRoute(state="starting")}
        await gateway.table(m=ModelRoute(versions, {"1": 50, "2": 50}, sticky="header:x-user"))

        assert {await version_of(gateway, f"x-user: {caller}") for caller in range(8)} == {"1"}

    async def test_never_sets_a_cookie(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.table(m=two_versions(replica, replica, 100, 0, sticky="cookie:sid"))

        assert (await gateway.ask("/v2/models/m/infer")).field("set-cookie") == ""


async def hold(call: Call) -> None:
    """Answers with the caller's name when the test says so."""


class TestReplicas:
    @staticmethod
    async def route(gateway: GatewayUnderTest, *replicas: ScriptedReplica, concurrency: int = 32) -> None:
        version = VersionRoute(tuple(endpoint(replica) for replica in replicas), concurrency=concurrency)
        await gateway.table(m=ModelRoute({"1": version}, {"1": 1}, sticky="header:x-user"))

    @staticmethod
    async def asked(gateway: GatewayUnderTest, replicas: list[ScriptedReplica], caller: int) -> ScriptedReplica:
        """The replica that a request of `caller` reaches."""
        before = [len(replica.calls) for replica in replicas]
        assert (await gateway.ask("/v2/models/m/infer", f"x-user: {caller}")).status == 200
        return next(r for r, count in zip(replicas, before, strict=True) if len(r.calls) > count)

    async def test_keeps_a_caller_at_its_replica_and_moves_only_those_of_a_lost_one(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async with ScriptedReplica() as other, ScriptedReplica() as lost:
            replicas = [replica, other, lost]
            await self.route(gateway, *replicas)
            before = [await self.asked(gateway, replicas, caller) for caller in CALLERS]
            assert [await self.asked(gateway, replicas, caller) for caller in CALLERS] == before

            await self.route(gateway, replica, other)
            after = [await self.asked(gateway, replicas, caller) for caller in CALLERS]

        assert set(before) == set(replicas)
        assert [now for was, now in zip(before, after, strict=True) if was is not lost] == [
            was for was in before if was is not lost
        ]
        assert lost not in after

    async def test_spills_over_at_once_when_the_callers_replica_is_full(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async with ScriptedReplica(hold) as other:
            replica.script = hold
            await self.route(gateway, replica, other, concurrency=1)
            clients = [await gateway.connect() for _ in range(3)]

            clients[0].request("/v2/models/m/infer", "x-user: ann")
            await until(lambda: len(replica.calls) + len(other.calls) == 1)
            first = replica if replica.calls else other
            clients[1].request("/v2/models/m/infer", "x-user: ann")
            await until(lambda: len(replica.calls) == len(other.calls) == 1)
            clients[2].request("/v2/models/m/infer", "x-user: ann")
            await until(lambda: gateway.queued == 1)
            second = other if first is replica else replica
            second.calls[0].answer()
            await until(lambda: len(second.calls) == 2, "the one who waited took the slot that was free")

            first.calls[0].answer()
            second.calls[1].answer()
            answers = await asyncio.gather(*(client.answer() for client in clients))

        assert [answer.status for answer in answers] == [200] * 3
