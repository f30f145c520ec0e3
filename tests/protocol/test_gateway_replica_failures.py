"""Replicas that refuse, break, lie or stall: what the client sees, what is sent again, and that nothing leaks over."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest

from tests.fakes.gateway import GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica, echo


async def reset(call: Call) -> None:
    await call.completed.wait()
    call.reset()


def raw(transport: asyncio.BaseTransport) -> socket.socket:
    """The transport's socket once more, to act on before the loop does."""
    return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))


def sends(data: bytes, *, close: bool = True) -> object:
    async def script(call: Call) -> None:
        await call.completed.wait()
        call.send(data)
        if close:
            call.close()

    return script


class TestRetry:
    async def test_goes_to_another_replica_when_one_cannot_be_reached(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone, ScriptedReplica() as good:
            await gone.stop()
            await gateway.route(gone, good, idempotent=False)

            answers = [await gateway.ask(body=b"tensor") for _ in range(4)]

        assert [answer.status for answer in answers] == [200] * 4
        assert len(good.calls) == 4

    async def test_goes_to_another_replica_when_one_resets_before_its_answer(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica(reset) as bad, ScriptedReplica() as good:
            await gateway.route(bad, good)

            answers = [await gateway.ask(body=b"tensor") for _ in range(4)]

        assert [(answer.status, answer.body) for answer in answers] == [(200, b"tensor")] * 4
        assert len(good.calls) == 4

    @pytest.mark.parametrize("length", [65_536, 65_537, 1 << 20])
    async def test_sends_the_whole_body_again_however_long(self, gateway: GatewayUnderTest, length: int) -> None:
        body = os.urandom(length)
        async with ScriptedReplica(reset) as bad, ScriptedReplica() as good:
            await gateway.route(bad, good, balance="round_robin")

            answers = [await gateway.ask(body=body) for _ in range(2)]

            assert [(answer.status, answer.body == body) for answer in answers] == [(200, True)] * 2
            assert bad.calls[0].body == body

    async def test_is_not_needed_for_a_connection_that_was_closed_unseen(self, gateway: GatewayUnderTest) -> None:
        """The replica closes an idle connection while a request of a non-idempotent version is on its way in.

        The request is ready in the gateway's socket before the FIN is, so that the gateway reads it first: it must not
        be sent on a connection that is over, for then nobody knows whether it was executed.
        """
        async with ScriptedReplica() as replica:
            await gateway.route(replica, idempotent=False)
            client = await gateway.connect()
            assert (await client.ask()).status == 200
            (connection,) = replica.connections

            with raw(client.writer.transport) as ours, raw(connection.transport) as theirs:
                ours.send(request())
                theirs.shutdown(socket.SHUT_WR)

            assert (await client.answer()).status == 200
            assert replica.accepted == 2

    async def test_is_not_done_for_what_may_have_been_executed_and_is_not_idempotent(
        self, gateway: GatewayUnderTest
    ) -> None:
        async with ScriptedReplica(reset) as one, ScriptedReplica(reset) as two:
            await gateway.route(one, two, idempotent=False)

            answer = await gateway.ask()

            assert (answer.status, answer.code) == (502, "REPLICA_FAILED")
            assert len(one.calls) + len(two.calls) == 1

    async def test_never_sends_a_request_twice_to_the_same_replica(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        replica.script = reset
        await gateway.route(replica)

        assert (await gateway.ask()).status == 502
        assert len(replica.calls) == 1

    async def test_is_bounded_by_a_budget(self, gateway: GatewayUnderTest) -> None:
        """A fleet that fails must not be hit harder than before it failed."""
        async with ScriptedReplica(reset) as one, ScriptedReplica(reset) as two:
            await gateway.route(one, two)

            for _ in range(100):
                assert (await gateway.ask()).status == 502

            assert len(one.calls) + len(two.calls) <= 100 + 32 + 100 * 0.2

    async def test_is_counted_with_its_reason(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone, ScriptedReplica() as good:
            await gone.stop()
            await gateway.route(gone, good)
            for _ in range(8):
                await gateway.ask()

            assert 'modelfleet_retries_total{model="m",version="1",reason="connect"}' in (
                (await gateway.admin("/metrics")).body.decode()
            )

    async def test_of_a_503_is_done_when_the_version_asks_for_it(self, gateway: GatewayUnderTest) -> None:
        async def busy(call: Call) -> None:
            await call.completed.wait()
            call.answer(b"busy", b"503 Service Unavailable")

        async with ScriptedReplica(busy) as full, ScriptedReplica() as good:
            await gateway.route(full, good, retry_on=("connect", "503"))
            assert {(await gateway.ask(body=b"tensor")).body for _ in range(4)} == {b"tensor"}

            await gateway.route(full)
            assert ((await gateway.ask()).status, (await gateway.ask()).body) == (503, b"busy")


class TestEjection:
    async def test_spares_requests_a_replica_that_cannot_be_reached(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone, ScriptedReplica() as good:
            await gone.stop()
            await gateway.route(gone, good)
            while not (await gateway.admin("/report")).json["ejected"]:
                await gateway.ask()

            assert (await gateway.admin("/report")).json["ejected"] == {"r0": "connect"}
            before = len(gateway.gateway.fleet.lanes["m", "1"].stats.retries)
            for _ in range(10):
                assert (await gateway.ask()).status == 200
            assert len(gateway.gateway.fleet.lanes["m", "1"].stats.retries) == before

    async def test_ends_when_the_replica_is_back(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as gone, ScriptedReplica() as good:
            await gone.stop()
            await gateway.route(gone, good)
            while not (await gateway.admin("/report")).json["ejected"]:
                await gateway.ask()
            await gone.listen()

            ends = time.monotonic() + 10
            while not gone.calls:
                assert (await gateway.ask()).status == 200
                assert time.monotonic() < ends

    async def test_is_counted_and_shown(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica(sends(b"garbage\r\n\r\n")) as bad, ScriptedReplica() as good:  # type: ignore[arg-type]
            await gateway.route(bad, good)
            while not bad.calls:
                await gateway.ask()

            metrics = (await gateway.admin("/metrics")).body.decode()
            (shown, _) = (await gateway.admin("/debug/state")).json["replicas"]

        assert 'modelfleet_ejections_total{model="m",version="1",reason="invalid"} 1' in metrics
        assert (shown["id"], shown["reason"], shown["ejected_for_s"] > 0) == ("r0", "invalid", True)


class TestBrokenAnswers:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x00\x01garbage\r\n\r\n",
            b"HTTP/1.1 20",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nraw",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
        ],
        ids=["nothing", "garbage", "part of a status line", "part of a head", "bare LF", "two lengths", "both framings",
             "bad chunk", "endless head", "101", "endless 100"],
    )  # fmt: skip
    async def test_become_502_with_the_reason(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, data: bytes
    ) -> None:
        replica.script = sends(data)  # type: ignore[assignment]
        await gateway.route(replica)

        answer = await gateway.ask()
        replica.script = echo

        assert (answer.status, answer.code) == (502, "REPLICA_FAILED")
        assert (await gateway.ask(body=b"next")).body == b"next"

    @pytest.mark.parametrize(
        "data",
        [
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        ],
    )
    async def test_that_break_off_never_look_complete(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, data: bytes
    ) -> None:
        replica.script = sends(data)  # type: ignore[assignment]
        await gateway.route(replica)
        client = await gateway.connect()

        client.request()
        head = await client.head()
        rest = await client.closed()

        assert head.status == 200
        assert b"short" in rest
        assert not rest.endswith(b"0\r\n\r\n")

    async def test_that_break_off_reset_an_http_1_0_client(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        """It reads until the connection closes: only a reset says that the answer is not whole."""
        replica.script = sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n")  # type: ignore[assignment]
        await gateway.route(replica)
        client = await gateway.connect()

        client.send(b"GET /v2/models/m HTTP/1.0\r\n\r\n")

        with pytest.raises(ConnectionResetError):
            await client.answer()

    @pytest.mark.parametrize("extra", [b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 4\r\n\r\nevil", b"\r\n", b"0"])
    async def test_with_bytes_behind_them_never_reach_the_next_client(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, extra: bytes
    ) -> None:
        replica.script = sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + extra, close=False)  # type: ignore[assignment]
        await gateway.route(replica)

        assert (await gateway.ask()).body == b"ok"
        replica.script = echo
        for _ in range(4):
            answer = await gateway.ask(body=b"mine")
            assert (answer.body, answer.field("x-evil")) == (b"mine", "")

    async def test_that_nobody_asked_for_close_the_idle_connection(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        await gateway.ask()

        replica.calls[0].send(b"HTTP/1.1 200 OK\r\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: not replica.connections)

        assert (await gateway.ask(body=b"mine")).body == b"mine"
        assert replica.accepted == 2

    async def test_to_head_requests_do_not_shift_the_next_answer(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        head = await client.ask("/v2/models/m", method="HEAD")
        answer = await client.ask(body=b"mine")

        assert (head.field("content-length"), answer.body) == ("0", b"mine")


class TestIdleConnections:
    async def test_that_the_replica_closed_are_not_used(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def answer_and_close(call: Call) -> None:
            await call.completed.wait()
            call.answer(b"bye")
            await asyncio.sleep(0.01)
            call.reset()

        replica.script = answer_and_close
        await gateway.route(replica)

        for _ in range(10):
            assert (await gateway.ask()).status == 200
            await until(lambda: not replica.connections)
