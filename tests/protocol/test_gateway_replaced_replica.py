"""A version's only replica is gone: what comes before its replacement waits for it instead of failing."""

from __future__ import annotations

import asyncio

from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.scripted_replica import ScriptedReplica


class TestOnlyReplicaGone:
    async def test_requests_wait_until_the_table_names_its_replacement(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone, ScriptedReplica() as replacement:
            await gone.stop()
            await gateway.route(gone, idempotent=False)
            asked = [asyncio.create_task(gateway.ask(body=b"tensor")) for _ in range(20)]
            await until(lambda: gateway.queued == 20)

            await gateway.route(state="starting: a replacement is on its way")
            await gateway.route(replacement, idempotent=False)

            answers = await asyncio.gather(*asked)

        assert [answer.status for answer in answers] == [200] * 20
        assert len(replacement.calls) == 20

    async def test_a_request_is_told_of_the_failure_when_none_comes(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone:
            await gone.stop()
            await gateway.route(gone)

            answer = await gateway.ask(body=b"tensor")

        assert (answer.status, answer.code) == (502, "REPLICA_FAILED")
        assert "no connection" in answer.json["error"]

    async def test_waiters_are_refused_when_the_table_promises_nothing(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone:
            await gone.stop()
            await gateway.route(gone)
            asked = asyncio.create_task(gateway.ask(body=b"tensor"))
            await until(lambda: gateway.queued == 1)

            await gateway.route(state="failed: out of memory")

            answer = await asked

        assert (answer.status, answer.code) == (503, "NOT_READY")
        assert "out of memory" in answer.json["error"]
