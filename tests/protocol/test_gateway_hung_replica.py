"""A replica that takes requests and answers nothing: requests that may be sent again leave it, those of a busy one stay.

The gateway waits a second before it doubts a replica, and another for its answer: these tests take as long.
"""

from __future__ import annotations

import asyncio
import time

from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

LIVE = b"/v2/health/live"


async def nothing(call: Call) -> None:
    """As a stopped process: connections are taken, and no byte comes."""
    await call.left.wait()


def asked_whether_alive(replica: ScriptedReplica) -> int:
    return sum(call.target == LIVE for call in replica.calls)


def predictions(replica: ScriptedReplica) -> list[Call]:
    return [call for call in replica.calls if call.target != LIVE]


class TestHungReplica:
    async def test_loses_its_requests_to_others_and_is_ejected(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica(nothing) as hung, ScriptedReplica() as good:
            await gateway.route(hung, good, balance="round_robin")

            answers = await asyncio.gather(*(gateway.ask(body=b"%d" % n) for n in range(8)))

            assert [(answer.status, answer.body) for answer in answers] == [(200, b"%d" % n) for n in range(8)]
            assert len(predictions(hung)) == 4
            assert asked_whether_alive(hung) == 1  # for all of them
            assert (await gateway.admin("/report")).json["ejected"] == {"r0": "silent"}
            assert gateway.in_flight == 0

    async def test_keeps_what_must_not_be_sent_twice_until_its_deadline(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica(nothing) as hung, ScriptedReplica() as good:
            await gateway.route(hung, good, balance="round_robin", idempotent=False)

            answers = await asyncio.gather(
                *(gateway.ask("/v2/models/m/infer", "x-request-timeout-ms: 1500") for _ in range(2))
            )

            assert sorted(answer.status for answer in answers) == [200, 504]
            assert len(predictions(good)) == 1

    async def test_keeps_a_request_that_nobody_else_can_take(self, gateway: GatewayUnderTest) -> None:
        """The only other replica failed it before: the silent one may still come to itself."""

        async def comes_to_itself(call: Call) -> None:
            if call.target != LIVE:
                await asked.wait()
                call.answer(b"late")

        async def reset(call: Call) -> None:
            await call.completed.wait()
            call.reset()

        asked = asyncio.Event()
        async with ScriptedReplica(reset) as bad, ScriptedReplica(comes_to_itself) as hung:
            await gateway.route(bad, hung, balance="round_robin")
            answer = asyncio.create_task(gateway.ask())
            await until(lambda: "r1" in gateway.gateway.fleet.ejected(time.monotonic()))
            asked.set()

            assert ((await answer).status, (await answer).body) == (200, b"late")

    async def test_that_answers_that_it_is_alive_keeps_its_long_predictions(self, gateway: GatewayUnderTest) -> None:
        async def busy(call: Call) -> None:
            if call.target == LIVE:
                call.answer(b"{}")
                return
            await done.wait()
            call.answer(b"at last")

        done = asyncio.Event()
        async with ScriptedReplica(busy) as long, ScriptedReplica() as good:
            await gateway.route(long, good, balance="round_robin")
            answers = [asyncio.create_task(gateway.ask(body=b"soon")) for _ in range(2)]
            await until(lambda: asked_whether_alive(long) == 2)
            done.set()

            assert sorted([(await answer).body for answer in answers]) == [b"at last", b"soon"]
            assert (len(predictions(long)), len(predictions(good))) == (1, 1)
            assert (await gateway.admin("/report")).json["ejected"] == {}

    async def test_that_streams_its_answer_is_not_asked(self, gateway: GatewayUnderTest) -> None:
        """The first byte came: however slowly the others do, it is no silence."""

        async def trickle(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
            await done.wait()
            call.send(b"bc")

        done = asyncio.Event()
        async with ScriptedReplica(trickle) as slow, ScriptedReplica(nothing) as hung:
            await gateway.route(slow, hung, balance="round_robin")
            streamed = asyncio.create_task(gateway.ask())
            await until(lambda: len(predictions(slow)) == 1)
            moved = asyncio.create_task(gateway.ask())  # its alarm rings behind the other's
            await until(lambda: len(predictions(slow)) == 2)
            done.set()

            assert [(await each).body for each in (streamed, moved)] == [b"abc"] * 2
            assert asked_whether_alive(slow) == 0
