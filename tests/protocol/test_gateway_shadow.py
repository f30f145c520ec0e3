"""Shadows: live answers are untouched whatever the shadow does, and what becomes of both answers is counted."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router.contract import Endpoint, ModelRoute, Shadow, VersionRoute
from router.core.shadow import Copies
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.scripted_replica import Call, ScriptedReplica
from tests.protocol.conftest import StartGateway

BODY = b'{"inputs": []}'


def answers(body: bytes, status: bytes = b"200 OK", *lines: bytes) -> Any:
    async def script(call: Call) -> None:
        await call.completed.wait()
        call.answer(body, status, *lines)

    return script


async def hang(call: Call) -> None:
    """Never answers."""


def model(
    live: ScriptedReplica, *shadows: ScriptedReplica | int, weights: dict[str, int] | None = None, **settings: Any
) -> ModelRoute:
    """Version 1 is live, version 2 its shadow."""
    ports = [each if isinstance(each, int) else each.port for each in shadows]
    route = {name: settings.pop(name) for name in ("concurrency", "request_timeout_ms") if name in settings}
    versions = {
        "1": VersionRoute((Endpoint("live", "127.0.0.1", live.port),)),
        "2": VersionRoute(tuple(Endpoint(f"s{port}", "127.0.0.1", port) for port in ports), **route),
    }
    return ModelRoute(versions, weights or {"1": 100}, shadow=Shadow("2", **settings))


def copies(gateway: GatewayUnderTest) -> Copies:
    found = gateway.gateway.fleet.lanes["m", "2"].copies
    assert found is not None
    return found


async def results(gateway: GatewayUnderTest) -> dict[str, int]:
    """What was counted, once no copy is left."""
    await until(lambda: not copies(gateway).being, "every copy came to its end")
    return copies(gateway).results


@pytest.fixture
async def shadow() -> Any:
    async with ScriptedReplica(answers(b'{"y": 1, "model_version": "2"}')) as replica:
        yield replica
        assert replica.errors == []


class TestResults:
    @pytest.mark.parametrize(
        ("live", "copied", "result"),
        [
            (answers(b'{"y": 1, "model_version": "1"}'), answers(b'{"model_version":"2","y":1.0}'), "equal"),
            (answers(b'{"y": 1}'), answers(b'{"y": 2}'), "different"),
            (answers(b'{"y": 1}'), answers(b'{"y": 1}', b"404 Not Found"), "different"),
            (answers(b'{"y": 1}'), answers(b'{"y": 1}', b"500 Internal Server Error"), "failed"),
            (answers(b"no", b"400 Bad Request"), answers(b"not so", b"422 Unprocessable"), "equal"),
            (answers(b"x" * 2000), answers(b"{}"), "too_large"),
            (answers(b"{}"), answers(b"x" * 2000), "too_large"),
        ],
    )
    async def test_are_counted(
        self, start_gateway: StartGateway, replica: ScriptedReplica, shadow: ScriptedReplica, live: Any, copied: Any, result: str
    ) -> None:  # fmt: skip
        gateway = await start_gateway(buffer_bytes=1024)
        replica.script, shadow.script = live, copied
        await gateway.table(m=model(replica, shadow))

        await gateway.ask(body=BODY)

        assert await results(gateway) == {result: 1}

    async def test_compares_streamed_answers_too(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        async def stream(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for piece in (b'{"y"', b": 1}"):
                call.send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await asyncio.sleep(0)
            call.send(b"0\r\n\r\n")

        replica.script = stream
        await gateway.table(m=model(replica, shadow))

        assert (await gateway.ask(body=BODY)).body == b'{"y": 1}'
        assert await results(gateway) == {"equal": 1}

    async def test_takes_numbers_within_the_tolerance_as_equal(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        replica.script = answers(b'{"y": 1.0001}')
        await gateway.table(m=model(replica, shadow, tolerance=0.01))

        await gateway.ask(body=BODY)

        assert await results(gateway) == {"equal": 1}

    async def test_stand_in_metrics_and_state_apart_from_what_clients_got(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        await gateway.table(m=model(replica, shadow))
        await gateway.ask(body=BODY)
        await results(gateway)

        metrics = (await gateway.admin("/metrics")).body.decode()
        state = (await gateway.admin("/debug/state")).json

        assert 'modelfleet_shadow_total{model="m",version="2",result="different"} 1' in metrics
        assert 'modelfleet_shadow_seconds_count{model="m",version="2"} 1' in metrics
        assert 'modelfleet_requests_total{model="m",version="1",code="200"} 1' in metrics
        assert 'modelfleet_requests_total{model="m",version="2"' not in metrics
        assert 'modelfleet_model_seconds_count{model="m",version="2"} 0' in metrics
        lane = next(lane for lane in state["lanes"] if lane["version"] == "2")
        assert lane["copies"]["results"] == {"different": 1}


class TestWhatIsCopied:
    async def test_is_the_request_as_the_live_version_got_it_and_marked(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        await gateway.table(m=model(replica, shadow))

        await gateway.ask(
            "/v2/models/m/infer?a=b", "x-request-id: abc", "x-user: ann", "X-Modelfleet-Shadow: 0", body=BODY
        )
        await results(gateway)

        (live,), (copy,) = replica.calls, shadow.calls
        assert (copy.method, copy.target, copy.body) == (live.method, live.target, live.body)
        for field in ("x-request-id", "traceparent", "x-user", "x-forwarded-for"):
            assert copy.field(field) == live.field(field) != []
        assert (live.field("x-modelfleet-shadow"), copy.field("x-modelfleet-shadow")) == ([], ["1"])

    async def test_is_a_percentage_evenly_spread(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        await gateway.table(m=model(replica, shadow, percent=25.0))
        client = await gateway.connect()

        for number in range(20):
            await client.ask("/v2/models/m/infer", f"x-request-id: {number}")
            await results(gateway)

        assert [call.field("x-request-id") for call in shadow.calls] == [["3"], ["7"], ["11"], ["15"], ["19"]]

    @pytest.mark.parametrize(
        ("method", "target", "count"),
        [
            ("POST", "/v2/models/m/infer", 1),
            ("POST", "/v2/models/m/versions/1/infer", 1),
            ("POST", "/v1/models/m:predict", 1),
            ("GET", "/models/m/lookup", 1),
            ("POST", "/models/m/orders", 0),
            ("DELETE", "/models/m/orders/1", 0),
            ("GET", "/v2/models/m", 0),
            ("GET", "/v2/models/m/ready", 0),
            ("POST", "/v2/models/m/versions/2/infer", 0),
        ],
    )
    async def test_are_predictions_for_other_versions(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica,
        method: str, target: str, count: int,
    ) -> None:  # fmt: skip
        await gateway.table(m=model(replica, shadow))

        assert (await gateway.ask(target, method=method)).status == 200
        await results(gateway)

        assert sum("1" in call.field("x-modelfleet-shadow") for call in shadow.calls) == count

    async def test_is_nothing_that_was_streamed(
        self, start_gateway: StartGateway, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(buffer_bytes=1024)
        await gateway.table(m=model(replica, shadow))

        assert (await gateway.ask(body=b"x" * 500_000)).status == 200

        assert (await results(gateway), shadow.calls) == ({}, [])

    async def test_is_nothing_that_was_refused(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        await gateway.table(
            m=ModelRoute(
                {"1": VersionRoute(state="failed"), "2": VersionRoute((Endpoint("s", "127.0.0.1", shadow.port),))},
                {"1": 1},
                shadow=Shadow("2"),
            )
        )

        assert (await gateway.ask("/v2/models/m/versions/1/infer")).status == 503
        assert (await results(gateway), shadow.calls) == ({}, [])


class TestLiveAnswers:
    """Whatever the shadow does, clients get what they would have got without it, and do not wait for it."""

    async def test_arrive_while_the_shadow_hangs(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        shadow.script = hang
        await gateway.table(m=model(replica, shadow))
        client = await gateway.connect()

        for number in range(3):
            assert (await client.ask(body=b"%d" % number)).body == b"%d" % number
        await until(lambda: len(shadow.calls) == 3)

        assert len(copies(gateway).being) == 3
        for call in shadow.calls:
            call.answer(b"{}")
        assert (await results(gateway)).keys() == {"different"}

    async def test_are_the_same_bytes_with_a_shadow_and_without(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        seen = []
        for settings in ({"percent": 0.0}, {"percent": 100.0}):
            await gateway.table(m=model(replica, shadow, **settings))
            answer = await gateway.ask("/v2/models/m/infer", "x-request-id: a", body=BODY)
            seen.append(([field for field in answer.fields if field[0] != "server-timing"], answer.body))
        await results(gateway)

        assert (seen[0], len(shadow.calls)) == (seen[1], 1)

    @pytest.mark.parametrize(
        "script",
        [
            lambda call: call.send(b"nonsense\r\n\r\n"),
            lambda call: call.reset(),
            lambda call: call.close(),
            lambda call: (call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"), call.close()),
        ],
        ids=["garbage", "reset", "closed", "half"],
    )
    async def test_are_untouched_when_the_shadow_fails(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica, script: Any
    ) -> None:
        async def fail(call: Call) -> None:
            script(call)

        shadow.script = fail
        await gateway.table(m=model(replica, shadow))

        answer = await gateway.ask(body=BODY)

        assert (answer.status, answer.body) == (200, BODY)
        assert await results(gateway) == {"failed": 1}

    async def test_are_untouched_when_the_shadow_cannot_be_reached(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, free_port: Callable[[], int]
    ) -> None:
        await gateway.table(m=model(replica, free_port()))

        assert (await gateway.ask(body=BODY)).body == BODY
        assert await results(gateway) == {"failed": 1}
        assert copies(gateway).failures == {"connect": 1}

    async def test_are_untouched_when_the_shadow_has_no_replica(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.table(m=model(replica))

        assert (await gateway.ask(body=BODY)).body == BODY
        assert (await results(gateway), copies(gateway).drops) == ({"dropped": 1}, {"not_ready": 1})

    async def test_pair_with_nothing_when_the_live_one_fails(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        async def half(call: Call) -> None:
            call.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            await until(lambda: copies(gateway).being == set() or shadow.calls)
            call.close()

        replica.script = half
        await gateway.table(m=model(replica, shadow))
        client = await gateway.connect()

        client.request(body=BODY)
        await client.closed()

        assert await results(gateway) == {"unpaired": 1}

    async def test_pair_with_nothing_when_the_client_left(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        replica.script = hang
        await gateway.table(m=model(replica, shadow))
        client = await gateway.connect()
        client.request(body=BODY)
        await until(lambda: shadow.calls)

        client.leave()

        assert await results(gateway) == {"unpaired": 1}
        replica.calls[0].answer()
        await until(lambda: gateway.in_flight == 0)

    async def test_are_one_and_the_copy_is_one_when_the_live_request_is_sent_again(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        async def fail_once(call: Call) -> None:
            await call.completed.wait()
            if len(replica.calls) + len(second.calls) == 1:
                call.reset()
            else:
                call.answer(b'{"y": 1}')

        async with ScriptedReplica(fail_once) as second:
            replica.script = fail_once
            route = model(replica, shadow)
            endpoints = tuple(Endpoint(f"l{each.port}", "127.0.0.1", each.port) for each in (replica, second))
            await gateway.table(
                m=ModelRoute({**route.versions, "1": VersionRoute(endpoints)}, route.weights, shadow=route.shadow)
            )

            assert (await gateway.ask(body=BODY)).status == 200

            assert await results(gateway) == {"equal": 1}
            assert (len(replica.calls) + len(second.calls), len(shadow.calls)) == (2, 1)


class TestBounds:
    async def test_drop_what_comes_above_queue_max(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        shadow.script = hang
        await gateway.table(m=model(replica, shadow, concurrency=1, queue_max=3))
        client = await gateway.connect()

        for _ in range(10):
            assert (await client.ask(body=BODY)).status == 200
        await until(lambda: shadow.calls)

        found = copies(gateway)
        assert (len(found.being), found.waiting, found.drops) == (3, 2, {"queue_full": 7})
        for number in range(3):
            await until(lambda number=number: len(shadow.calls) > number)  # type: ignore[misc]
            shadow.calls[number].answer(BODY)
        assert await results(gateway) == {"dropped": 7, "equal": 3}

    async def test_drop_what_would_hold_too_much_memory(
        self, start_gateway: StartGateway, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        gateway = await start_gateway(held_bytes=4096 * 4)
        await gateway.table(m=model(replica, shadow))

        assert (await gateway.ask(body=b"x" * 5000)).status == 200

        assert (await results(gateway), copies(gateway).drops) == ({"dropped": 1}, {"memory": 1})
        assert gateway.gateway.shadows.held_bytes == 0

    async def test_hold_nothing_when_all_is_over(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        await gateway.table(m=model(replica, shadow))
        client = await gateway.connect()

        for _ in range(5):
            await client.ask(body=BODY)
        await results(gateway)

        assert (gateway.gateway.shadows.held_bytes, gateway.gateway.shadows.being) == (0, set())

    async def test_give_up_at_the_shadows_own_deadline(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        shadow.script = hang
        await gateway.table(m=model(replica, shadow, request_timeout_ms=50))

        assert (await gateway.ask(body=BODY)).status == 200

        assert (await results(gateway), copies(gateway).failures) == ({"failed": 1}, {"timeout": 1})
        await until(lambda: not gateway.gateway.fleet.in_flight(), "the replica saw FIN and let go")

    async def test_let_live_requests_of_the_shadow_version_go_first(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        shadow.script = hang
        await gateway.table(m=model(replica, shadow, concurrency=1))
        copied = await gateway.connect()
        for _ in range(3):
            await copied.ask(body=BODY)
        await until(lambda: shadow.calls)
        batch, live = await gateway.connect(), await gateway.connect()
        batch.request("/v2/models/m/versions/2/infer", "x-priority: batch", "x-request-id: batch")
        await until(lambda: gateway.queued == 1)
        live.request("/v2/models/m/versions/2/infer", "x-request-id: live")
        await until(lambda: gateway.queued == 2)

        for number in range(5):
            await until(lambda number=number: len(shadow.calls) > number)  # type: ignore[misc]
            shadow.calls[number].answer(BODY)
        await asyncio.gather(live.answer(), batch.answer())

        kinds = [call.field("x-modelfleet-shadow") or call.field("x-request-id") for call in shadow.calls]
        assert kinds == [["1"], ["live"], ["batch"], ["1"], ["1"]]
        assert await results(gateway) == {"equal": 3}

    async def test_count_apart_from_the_versions_own_load(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        """The autoscaler reads in flight and queued; the drain of a replica reads what is inside it."""
        shadow.script = hang
        await gateway.table(m=model(replica, shadow, concurrency=1))
        client = await gateway.connect()

        for _ in range(3):
            await client.ask(body=BODY)
        await until(lambda: shadow.calls)

        assert (gateway.in_flight, gateway.queued) == (0, 0)
        assert (await gateway.admin("/report")).json["in_flight"] == {f"s{shadow.port}": 1}
        await gateway.table(m=ModelRoute(model(replica, shadow).versions, {"1": 1}))
        shadow.calls[0].answer()


class TestEnds:
    async def test_with_the_shadow_leaving_the_table(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        shadow.script = hang
        route = model(replica, shadow, concurrency=1)
        await gateway.table(m=route)
        client = await gateway.connect()
        for _ in range(3):
            await client.ask(body=BODY)
        await until(lambda: shadow.calls)

        await gateway.table(m=ModelRoute({"1": route.versions["1"]}, {"1": 1}))

        assert (copies(gateway).being, copies(gateway).drops) == (set(), {"removed": 3})
        await until(lambda: not gateway.gateway.fleet.in_flight(), "the replica saw FIN and let go")
        await until(lambda: len(gateway.gateway.fleet.replicas) == 1)
        assert (await client.ask(body=BODY)).body == BODY
        assert len(shadow.calls) == 1

    async def test_not_with_a_table_that_leaves_it_as_it_is(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        shadow.script = hang
        await gateway.table(m=model(replica, shadow))
        await gateway.ask(body=BODY)
        await until(lambda: shadow.calls)

        await gateway.table(m=model(replica, shadow, weights={"1": 90, "2": 10}, percent=50.0))
        shadow.calls[0].answer(BODY)

        assert await results(gateway) == {"equal": 1}

    async def test_with_the_gateway(
        self, start_gateway: StartGateway, replica: ScriptedReplica, shadow: ScriptedReplica
    ) -> None:
        """The drain waits for clients, not for copies; the fixture checks that no slot is left."""
        gateway = await start_gateway()
        shadow.script = hang
        await gateway.table(m=model(replica, shadow, concurrency=1))
        client = await gateway.connect()
        for _ in range(3):
            await client.ask(body=BODY)
        await until(lambda: shadow.calls)

        await gateway.close()

        assert (copies(gateway).being, copies(gateway).drops) == (set(), {"draining": 3})
        assert gateway.gateway.fleet.in_flight() == {}


class TestSamples:
    async def test_hold_differing_pairs_and_neither_fields_nor_queries(
        self, start_gateway: StartGateway, replica: ScriptedReplica, shadow: ScriptedReplica, tmp_path: Path
    ) -> None:
        path = tmp_path / "samples.jsonl"
        gateway = await start_gateway(shadow_samples=str(path))
        replica.script = answers(b'{"y": [1, 5]}')
        shadow.script = answers(b'{"y": [1, 6]}')
        await gateway.table(m=model(replica, shadow, samples_per_minute=2))
        client = await gateway.connect()

        for _ in range(4):
            await client.ask(
                "/v2/models/m/infer?token=t", "authorization: Bearer secret", "x-request-id: abc", body=BODY
            )
            await results(gateway)

        lines = path.read_text().splitlines()
        assert await results(gateway) == {"different": 4}
        assert (len(lines), stat.S_IMODE(path.stat().st_mode)) == (2, 0o600)
        sample = json.loads(lines[0])
        assert sample.pop("ts")
        assert sample == {
            "request_id": "abc",
            "model": "m",
            "result": "different",
            "difference": "y[1]: 5 is not 6",
            "request": {"method": "POST", "path": "/v2/models/m/infer", "body": BODY.decode()},
            "live": {"version": "1", "status": 200, "body": '{"y": [1, 5]}'},
            "shadow": {"version": "2", "status": 200, "body": '{"y": [1, 6]}'},
        }

    async def test_are_lost_where_the_file_cannot_be_written_and_nothing_else(
        self, start_gateway: StartGateway, replica: ScriptedReplica, shadow: ScriptedReplica, tmp_path: Path
    ) -> None:
        gateway = await start_gateway(shadow_samples=str(tmp_path / "missing" / "samples.jsonl"))
        await gateway.table(m=model(replica, shadow))

        assert (await gateway.ask(body=BODY)).body == BODY
        assert await results(gateway) == {"different": 1}
