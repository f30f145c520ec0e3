"""The Open Inference Protocol over gRPC: a request is one like any other, and its answer says so in gRPC's own terms.

Clients are grpcio and tritonclient; the replica behind the gateway sees HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc import StatusCode
from tritonclient.grpc import service_pb2

from router.contract import ApiKey, Endpoint, ModelRoute, RateLimit, Shadow, Table, VersionRoute
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.oip import SERVICE, OipClient, echoed, framed, request, rows, serve
from tests.fakes.scripted_replica import Call, ScriptedReplica

Connect = Callable[[GatewayUnderTest], OipClient]
StartGateway = Callable[..., Awaitable[GatewayUnderTest]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    opened: list[OipClient] = []

    def connect(gateway: GatewayUnderTest) -> OipClient:
        opened.append(OipClient(gateway.grpc_port))
        return opened[-1]

    yield connect
    for client in opened:
        await client.close()


@pytest.fixture
async def client(gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect) -> OipClient:
    """Of a gateway whose model `m` echoes its inputs."""
    replica.script = serve
    await gateway.route(replica)
    return connect(gateway)


class TestInfer:
    async def test_gives_the_message_to_the_replica_as_it_came(
        self, client: OipClient, replica: ScriptedReplica
    ) -> None:
        message = request(id="7")
        message.parameters["x"].string_param = "y"

        answer = await client.ask("ModelInfer", message)

        call = replica.calls[0]
        assert (call.method, call.target, call.body) == (b"POST", b"/v2/models/m/infer", message.SerializeToString())
        assert call.field("content-type") == ["application/x-protobuf"]
        assert (answer.id, answer.raw_output_contents[0]) == ("7", message.raw_input_contents[0])

    @pytest.mark.parametrize("count", [1, 1_000, 8_000, 100_000, 500_000])
    async def test_carries_tensors_of_any_size_both_ways(self, client: OipClient, count: int) -> None:
        """500,000 rows are 4 MB: more than any window, and than a body that is streamed over HTTP."""
        tensor = rows(count)

        result = await client.triton.infer("m", [tensor])

        assert np.array_equal(result.as_numpy("x"), np.arange(2 * count, dtype=np.float32).reshape(count, 2))

    async def test_carries_many_at_a_time_on_one_connection(self, client: OipClient) -> None:
        answers = await asyncio.gather(*(client.ask("ModelInfer", request(id=str(n), count=n)) for n in range(1, 200)))

        assert [(answer.id, answer.outputs[0].shape[0]) for answer in answers] == [(str(n), n) for n in range(1, 200)]

    async def test_passes_metadata_on_as_fields(self, client: OipClient, replica: ScriptedReplica) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        metadata = (("x-request-id", "abc"), ("traceparent", trace), ("x-own", "1"), ("blob-bin", b"\x00"))

        _, trailers = await client.ask_with_trailers(metadata=metadata)

        call = replica.calls[0]
        assert (call.field("x-request-id"), call.field("traceparent"), call.field("x-own")) == (["abc"], [trace], ["1"])
        assert call.field("blob-bin") == []
        assert call.field("x-forwarded-for") == ["127.0.0.1"]
        assert (trailers["x-request-id"], trailers["x-model-version"]) == ("abc", "1")
        assert trailers["server-timing"].startswith("queue;dur=")

    async def test_metadata_cannot_change_the_framing(self, client: OipClient, replica: ScriptedReplica) -> None:
        metadata = (("content-length", "1"), ("expect", "100-continue"), ("host", "evil"), ("content-encoding", "gzip"))

        await client.ask(metadata=metadata)

        call = replica.calls[0]
        assert call.field("content-length") == [str(len(call.body))]
        assert call.field("expect") == call.field("content-encoding") == []
        assert call.field("host") == ["modelfleet"]

    async def test_is_counted_and_logged_as_over_http(
        self, start_gateway: StartGateway, replica: ScriptedReplica, connect: Connect, tmp_path: Path
    ) -> None:
        replica.script = serve
        gateway = await start_gateway(access_log=str(tmp_path / "access.log"))
        await gateway.route(replica)
        client = connect(gateway)

        await client.ask(metadata=(("x-request-id", "one"),))
        await client.refusal("ModelInfer", request("other"))

        assert gateway.count(200) == 1
        assert (
            b'modelfleet_requests_total{model="m",version="1",code="200"} 1' in (await gateway.admin("/metrics")).body
        )
        gateway.gateway.access_log.flush()  # type: ignore[union-attr]
        first, second = map(json.loads, (tmp_path / "access.log").read_text().splitlines())
        assert (first["request_id"], first["protocol"], first["status"]) == ("one", "grpc", 200)
        assert (first["path"], first["model"], first["replica"]) == ("/v2/models/m/infer", "m", "r0")
        assert (second["status"], second["code"]) == (404, "MODEL_NOT_FOUND")


class TestVersions:
    async def test_weights_are_exact_and_a_version_or_label_can_be_named(
        self, gateway: GatewayUnderTest, connect: Connect
    ) -> None:
        async with ScriptedReplica(_answering("1")) as one, ScriptedReplica(_answering("2")) as two:
            versions = {
                version: VersionRoute((Endpoint(f"r{version}", "127.0.0.1", replica.port),))
                for version, replica in (("1", one), ("2", two))
            }
            await gateway.table(m=ModelRoute(versions, {"1": 90, "2": 10}, labels={"next": "2"}))
            client = connect(gateway)

            drawn = Counter([(await client.ask()).model_version for _ in range(200)])
            named = [
                (await client.ask("ModelInfer", request(model_version=v))).model_version for v in ("1", "2", "next")
            ]
            pinned = (await client.ask(metadata=(("x-model-version", "2"),))).model_version
            refusal = await client.refusal("ModelInfer", request(model_version="3"))

        assert drawn == {"1": 180, "2": 20}
        assert (named, pinned) == (["1", "2", "2"], "2")
        assert refusal.code() == StatusCode.NOT_FOUND
        assert refusal.details() == "model 'm' has no version '3'; versions: 1, 2"

    async def test_a_sticky_caller_keeps_his_version(self, gateway: GatewayUnderTest, connect: Connect) -> None:
        async with ScriptedReplica(_answering("1")) as one, ScriptedReplica(_answering("2")) as two:
            versions = {
                version: VersionRoute((Endpoint(f"r{version}", "127.0.0.1", replica.port),))
                for version, replica in (("1", one), ("2", two))
            }
            await gateway.table(m=ModelRoute(versions, {"1": 50, "2": 50}, sticky="header:x-user"))
            client = connect(gateway)

            seen = {
                user: {(await client.ask(metadata=(("x-user", user),))).model_version for _ in range(5)}
                for user in map(str, range(20))
            }

        assert all(len(versions) == 1 for versions in seen.values())
        assert set.union(*seen.values()) == {"1", "2"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("message", "code", "details"),
        [
            (request("other"), StatusCode.NOT_FOUND, "model 'other' is not served here; models: m"),
            (request("a/b"), StatusCode.NOT_FOUND, "model 'a%2Fb' is not served here; models: m"),
            (request("m/versions/1"), StatusCode.NOT_FOUND, "model 'm%2Fversions%2F1' is not served here; models: m"),
            (request("m\r\nx: y"), StatusCode.INVALID_ARGUMENT, "the path has a broken escape or an escaped control"),
            (request(""), StatusCode.INVALID_ARGUMENT, "model_name: it is empty"),
            (b"\xff\xff", StatusCode.INVALID_ARGUMENT, "not the message that this method takes"),
        ],
    )
    async def test_say_what_is_wrong_with_the_message(
        self, client: OipClient, message: Any, code: StatusCode, details: str
    ) -> None:
        refusal = await client.refusal("ModelInfer", message)

        assert refusal.code() == code
        assert (refusal.details() or "").startswith(details)
        assert dict(refusal.trailing_metadata())["x-request-id"]

    async def test_are_the_replicas_own_words(self, client: OipClient, replica: ScriptedReplica) -> None:
        async def refuse(call: Call) -> None:
            await call.completed.wait()
            call.answer(b'{"error":"input x: no","code":"BAD_REQUEST","request_id":"1"}', b"400 Bad Request")

        replica.script = refuse

        refusal = await client.refusal()

        assert (refusal.code(), refusal.details()) == (StatusCode.INVALID_ARGUMENT, "input x: no")

    async def test_name_an_image_that_takes_no_protobuf(self, client: OipClient, replica: ScriptedReplica) -> None:
        async def confuse(call: Call) -> None:
            await call.completed.wait()
            call.answer(b'{"outputs": []}', b"200 OK", b"content-type: application/json")

        replica.script = confuse

        refusal = await client.refusal()

        assert refusal.code() == StatusCode.UNIMPLEMENTED
        assert "it takes no protobuf, as an image of its own may; ask it over HTTP" in (refusal.details() or "")

    async def test_a_method_that_is_not_served(self, client: OipClient) -> None:
        refusal = await client.refusal(SERVICE + "ModelStatistics", b"")

        assert refusal.code() == StatusCode.UNIMPLEMENTED
        assert (refusal.details() or "").startswith(f"method '{SERVICE}ModelStatistics' is not served")

    async def test_a_message_over_the_limit_of_bodies(
        self, start_gateway: StartGateway, replica: ScriptedReplica, connect: Connect
    ) -> None:
        gateway = await start_gateway(body_bytes=100_000)
        await gateway.route(replica)

        refusal = await connect(gateway).refusal("ModelInfer", request(count=1_000_000))

        assert refusal.code() == StatusCode.RESOURCE_EXHAUSTED
        assert "a message of 8000025 bytes; the gateway takes at most 100000" in (refusal.details() or "")
        assert replica.calls == []

    async def test_a_message_for_which_no_memory_is_left(
        self, start_gateway: StartGateway, replica: ScriptedReplica, connect: Connect
    ) -> None:
        """What is on its way counts by the length that it announces, before it is here."""
        replica.script = serve
        gateway = await start_gateway(held_bytes=100_000)
        await gateway.route(replica)
        client = connect(gateway)

        refusal = await client.refusal("ModelInfer", request(count=20_000))

        assert refusal.code() == StatusCode.UNAVAILABLE
        assert (refusal.details() or "").startswith("the bodies that wait in this gateway take all of its 100000 bytes")
        assert (await client.ask("ModelInfer", request(count=5_000))).outputs[0].shape[0] == 5_000
        await until(lambda: not gateway.gateway.memory.held_bytes, "all memory is given back")

    async def test_a_compressed_message(self, client: OipClient) -> None:
        refusal = await client.refusal("ModelInfer", request(count=1000), compression=grpc.Compression.Gzip)

        assert refusal.code() == StatusCode.UNIMPLEMENTED
        assert refusal.details() == "the message is compressed; messages are read uncompressed; send identity"


class TestWaiting:
    async def test_a_full_queue_refuses(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        go_on = asyncio.Event()
        replica.script = _after(go_on)
        await gateway.route(replica, concurrency=1, queue_max=1)
        client = connect(gateway)
        waiting = [asyncio.create_task(client.ask()) for _ in range(2)]
        await until(lambda: gateway.queued == 1)

        refusal = await client.refusal()
        go_on.set()

        assert refusal.code() == StatusCode.UNAVAILABLE
        assert (refusal.details() or "").startswith("model 'm' version '1': all 1 places in the queue are taken")
        assert dict(refusal.trailing_metadata())["retry-after"] == "1"
        assert [answer.model_name for answer in await asyncio.gather(*waiting)] == ["m", "m"]

    async def test_http_and_grpc_wait_in_one_queue(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        go_on = asyncio.Event()
        replica.script = _after(go_on)
        await gateway.route(replica, concurrency=1)
        client = connect(gateway)
        first = asyncio.create_task(client.ask())
        await until(lambda: replica.calls)
        http = await gateway.connect()
        http.request("/v2/models/m/ready", method="GET")
        await until(lambda: gateway.queued == 1)
        last = asyncio.create_task(client.ask())
        await until(lambda: gateway.queued == 2)

        go_on.set()
        await asyncio.gather(first, last, http.answer())

        assert [call.method for call in replica.calls] == [b"POST", b"GET", b"POST"]

    async def test_the_clients_deadline_is_the_requests(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        replica.script = _after(asyncio.Event())
        await gateway.route(replica)

        refusal = await connect(gateway).refusal(timeout=0.2)

        assert refusal.code() == StatusCode.DEADLINE_EXCEEDED
        assert 100 < int(replica.calls[0].field("x-request-timeout-ms")[0]) <= 200
        await until(lambda: gateway.count(504) == 1, "it is counted as a deadline, not as a client that left")
        replica.calls[0].close()

    async def test_an_own_deadline_is_said_in_words(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        replica.script = _after(asyncio.Event())
        await gateway.route(replica)

        refusal = await connect(gateway).refusal(metadata=(("x-request-timeout-ms", "100"),))

        assert refusal.code() == StatusCode.DEADLINE_EXCEEDED
        assert (refusal.details() or "").startswith("model 'm' version '1': no whole answer within")
        replica.calls[0].close()

    async def test_a_client_that_cancels_frees_its_place(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        replica.script = _after(asyncio.Event())
        await gateway.route(replica, concurrency=1)
        client = connect(gateway)
        inside, queued = asyncio.create_task(client.ask()), asyncio.create_task(client.ask())
        await until(lambda: gateway.queued == 1)

        queued.cancel()
        await until(lambda: gateway.queued == 0)
        inside.cancel()
        await until(lambda: gateway.count(499) == 2)

        await replica.calls[0].left.wait()

    async def test_a_batch_request_yields_to_others(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        go_on = asyncio.Event()
        replica.script = _after(go_on)
        await gateway.route(replica, concurrency=1)
        client = connect(gateway)
        tasks = [asyncio.create_task(client.ask("ModelInfer", request(id="0")))]
        await until(lambda: replica.calls)
        batch = (("x-priority", "batch"),)
        tasks.append(asyncio.create_task(client.ask("ModelInfer", request(id="batch"), metadata=batch)))
        await until(lambda: gateway.queued == 1)
        tasks.append(asyncio.create_task(client.ask("ModelInfer", request(id="1"))))
        await until(lambda: gateway.queued == 2)

        go_on.set()
        await asyncio.gather(*tasks)

        assert [_id(call) for call in replica.calls] == ["0", "1", "batch"]


class TestReplicas:
    async def test_a_request_whose_replica_died_goes_to_another(
        self, gateway: GatewayUnderTest, connect: Connect
    ) -> None:
        async def die(call: Call) -> None:
            await call.completed.wait()
            call.reset()

        async with ScriptedReplica(die) as dying, ScriptedReplica(serve) as living:
            await gateway.route(dying, living)
            client = connect(gateway)

            answers = [await client.ask() for _ in range(20)]

            assert len(answers) == 20
            assert len(dying.calls) >= 1

    async def test_the_last_one_that_dies_is_said(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        async def die(call: Call) -> None:
            await call.completed.wait()
            call.close()

        replica.script = die
        await gateway.route(replica)

        refusal = await connect(gateway).refusal()

        assert refusal.code() == StatusCode.UNAVAILABLE
        assert "the replica failed: its connection was closed before the answer" in (refusal.details() or "")

    async def test_an_answer_that_breaks_off_is_no_answer(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        async def break_off(call: Call) -> None:
            await call.completed.wait()
            call.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\nabc")
            call.close()

        replica.script = break_off
        await gateway.route(replica)

        refusal = await connect(gateway).refusal()

        assert refusal.code() == StatusCode.UNAVAILABLE
        assert "the replica failed: its answer broke off" in (refusal.details() or "")
        assert gateway.count(502) == 1

    async def test_a_shadow_gets_copies(self, gateway: GatewayUnderTest, connect: Connect) -> None:
        async with ScriptedReplica(_answering("1")) as one, ScriptedReplica(_answering("2")) as two:
            versions = {
                version: VersionRoute((Endpoint(f"r{version}", "127.0.0.1", replica.port),))
                for version, replica in (("1", one), ("2", two))
            }
            await gateway.table(m=ModelRoute(versions, {"1": 1}, shadow=Shadow("2", percent=100)))
            client = connect(gateway)

            answers = [(await client.ask()).model_version for _ in range(4)]
            await until(lambda: len(two.calls) == 4, "every request was copied")

            lane = gateway.gateway.fleet.lanes["m", "2"]
            await until(lambda: lane.copies and lane.copies.results.get("equal") == 4, "the version is no difference")
            assert answers == ["1"] * 4
            assert two.calls[0].body == one.calls[0].body
            assert two.calls[0].field("x-modelfleet-shadow") == ["1"]


class TestKeys:
    @pytest.fixture
    async def guarded(self, start_gateway: StartGateway, replica: ScriptedReplica) -> GatewayUnderTest:
        replica.script = serve
        gateway = await start_gateway(auth="required")
        route = ModelRoute({"1": VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))}, {"1": 1})
        keys = {
            "all": ApiKey(_digest("secret")),
            "none": ApiKey(_digest("other"), models=("x",)),
            "slow": ApiKey(_digest("slow"), rate_limit=RateLimit(0.01, 1)),
        }
        await gateway.gateway.apply(Table("e", 1, "c", {"m": route}, keys))
        return gateway

    async def test_are_asked_for_before_the_message_is_taken_in(
        self, guarded: GatewayUnderTest, connect: Connect
    ) -> None:
        client = connect(guarded)

        missing = await client.refusal()
        status = await client.stream().code()

        assert missing.code() == status == StatusCode.UNAUTHENTICATED
        assert missing.details() == (
            "this gateway wants an API key; send it as `authorization: Bearer KEY` or `x-api-key: KEY`"
        )

    async def test_say_who_may_ask_for_what(
        self, guarded: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        client = connect(guarded)

        await client.ask(metadata=(("authorization", "Bearer secret"),))
        await client.ask(metadata=(("x-api-key", "secret"),))
        forbidden = await client.refusal(metadata=(("authorization", "Bearer other"),))
        unknown = await client.refusal(metadata=(("authorization", "Bearer wrong"),))

        assert (forbidden.code(), unknown.code()) == (StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED)
        assert len(replica.calls) == 2
        assert all(not call.field("authorization") and not call.field("x-api-key") for call in replica.calls)

    async def test_limit_the_rate(self, guarded: GatewayUnderTest, connect: Connect) -> None:
        client = connect(guarded)
        metadata = (("authorization", "Bearer slow"),)

        await client.ask(metadata=metadata)
        refusal = await client.refusal(metadata=metadata)

        assert refusal.code() == StatusCode.RESOURCE_EXHAUSTED
        assert (refusal.details() or "").startswith("key 'slow': more than 0.01 requests/s")

    async def test_say_which_models_are_listed(self, guarded: GatewayUnderTest, connect: Connect) -> None:
        client = connect(guarded)

        mine = await client.ask("RepositoryIndex", b"", metadata=(("authorization", "Bearer secret"),))
        others = await client.ask("RepositoryIndex", b"", metadata=(("authorization", "Bearer other"),))
        nobodys = await client.refusal("RepositoryIndex", b"")

        assert [(model.name, model.version, model.state) for model in mine.models] == [("m", "1", "READY")]
        assert list(others.models) == []
        assert nobodys.code() == StatusCode.UNAUTHENTICATED

    async def test_a_revoked_one_is_refused_on_an_open_connection(
        self, guarded: GatewayUnderTest, connect: Connect
    ) -> None:
        client = connect(guarded)
        metadata = (("authorization", "Bearer secret"),)
        await client.ask(metadata=metadata)

        models = guarded.gateway.held.table.models  # type: ignore[union-attr]
        await guarded.gateway.apply(Table("e", 2, "c", models, {}))

        assert (await client.refusal(metadata=metadata)).code() == StatusCode.UNAUTHENTICATED


class TestServer:
    async def test_says_what_it_is_and_that_it_lives(self, client: OipClient) -> None:
        about = await client.triton.get_server_metadata()

        assert (about.name, await client.triton.is_server_live(), await client.triton.is_server_ready()) == (
            "modelfleet-gateway", True, True,
        )  # fmt: skip

    async def test_is_not_ready_without_a_table(self, gateway: GatewayUnderTest, connect: Connect) -> None:
        client = connect(gateway)

        assert await client.triton.is_server_live() is True
        assert await client.triton.is_server_ready() is False
        assert await client.ask("/grpc.health.v1.Health/Check", b"") == b"\x08\x02"
        refusal = await client.refusal()
        assert refusal.code() == StatusCode.UNAVAILABLE

    async def test_answers_health_checks(self, client: OipClient) -> None:
        assert await client.ask("/grpc.health.v1.Health/Check", b"") == b"\x08\x01"

        refusal = await client.refusal("/grpc.health.v1.Health/Check", b"\x0a\x01x")

        assert refusal.code() == StatusCode.NOT_FOUND

    async def test_gives_a_models_metadata_and_readiness(
        self, client: OipClient, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        metadata = await client.triton.get_model_metadata("m")
        is_ready = await client.triton.is_model_ready("m")
        await gateway.table(m=ModelRoute({"1": VersionRoute((), state="starting")}, {"1": 1}))

        assert (metadata.name, metadata.platform, list(metadata.inputs[0].shape)) == ("m", "test", [-1, 2])
        assert is_ready is True
        assert await client.triton.is_model_ready("m") is False
        assert [(m.state, m.reason) for m in (await client.ask("RepositoryIndex", b"")).models] == [
            ("LOADING", "starting")
        ]
        refusal = await client.refusal("ModelReady", service_pb2.ModelReadyRequest(name="other"))
        assert refusal.code() == StatusCode.NOT_FOUND


class TestStream:
    async def test_answers_each_request_in_its_order_by_one_message_or_several(self, client: OipClient) -> None:
        messages = [request(id=str(number), count=number) for number in range(1, 101)]

        answers = [answer async for answer in client.stream(iter(messages))]

        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(1, 101) for _ in range(2)]

    async def test_gives_each_message_on_as_soon_as_it_comes(self, client: OipClient, replica: ScriptedReplica) -> None:
        go_on = asyncio.Event()

        async def trickle(call: Call) -> None:
            await call.completed.wait()
            message = framed(service_pb2.ModelStreamInferResponse(infer_response=echoed(call.body)))
            call.send(_STREAM_HEAD + b"%x\r\n%b\r\n" % (len(message), message))
            await go_on.wait()
            call.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(message), message))

        replica.script = trickle
        stream = client.stream()
        await stream.write(request(id="1"))

        first = await asyncio.wait_for(stream.read(), 10)
        go_on.set()
        await stream.done_writing()

        assert first.infer_response.id == "1"
        assert (await stream.read()).infer_response.id == "1"
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() == StatusCode.OK

    async def test_goes_on_after_a_request_that_failed(self, client: OipClient) -> None:
        messages = [request(id="1"), request("other", id="2"), request(id="3")]

        answers = [answer async for answer in client.stream(iter(messages))]

        assert [(a.infer_response.id, a.error_message) for a in answers] == [
            ("1", ""), ("1", ""), ("2", "model 'other' is not served here; models: m"), ("3", ""), ("3", ""),
        ]  # fmt: skip

    async def test_says_when_an_answer_breaks_off_and_goes_on(
        self, client: OipClient, replica: ScriptedReplica
    ) -> None:
        async def break_off(call: Call) -> None:
            await call.completed.wait()
            if _id(call) != "1":
                await serve(call)
                return
            message = framed(service_pb2.ModelStreamInferResponse(infer_response=echoed(call.body)))
            call.send(_STREAM_HEAD + b"%x\r\n%b\r\n" % (len(message), message))
            call.close()

        replica.script = break_off

        answers = [answer async for answer in client.stream(iter([request(id="1"), request(id="2")]))]

        assert [(a.infer_response.id, a.error_message) for a in answers] == [
            ("1", ""), ("1", "model 'm' version '1': the replica failed: its answer broke off; try again"),
            ("2", ""), ("2", ""),
        ]  # fmt: skip

    async def test_a_client_that_leaves_ends_what_is_under_way(
        self, gateway: GatewayUnderTest, client: OipClient, replica: ScriptedReplica
    ) -> None:
        replica.script = _after(asyncio.Event())
        stream = client.stream()
        for number in range(3):
            await stream.write(request(id=str(number)))
        await until(lambda: len(replica.calls) == 3)

        stream.cancel()

        await until(lambda: gateway.count(499) == 3)
        for call in replica.calls:
            await call.left.wait()

    async def test_takes_no_more_than_some_ahead(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, connect: Connect
    ) -> None:
        go_on = asyncio.Event()
        replica.script = _after(go_on)
        await gateway.route(replica, concurrency=1000)
        answers = []

        async def read(stream: Any) -> None:
            answers.extend([answer async for answer in stream])

        reading = asyncio.create_task(read(connect(gateway).stream(iter([request(id=str(n)) for n in range(100)]))))
        await until(lambda: len(replica.calls) == 32)
        go_on.set()
        await reading

        assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(100) for _ in range(2)]

    async def test_a_reader_who_is_slow_slows_his_replica_alone(
        self, gateway: GatewayUnderTest, client: OipClient, replica: ScriptedReplica
    ) -> None:
        calls: list[Call] = []

        async def flood(call: Call) -> None:
            await call.completed.wait()
            calls.append(call)
            answer = service_pb2.ModelStreamInferResponse(infer_response=echoed(call.body))
            answer.infer_response.raw_output_contents[0] = b"x" * 100_000
            message = framed(answer)
            call.send(_STREAM_HEAD)
            for _ in range(300):
                call.send(b"%x\r\n%b\r\n" % (len(message), message))
            call.send(b"0\r\n\r\n")

        replica.script = flood
        stream = client.stream()
        await stream.write(request(id="1"))
        await stream.done_writing()
        await until(lambda: calls and calls[0].unsent_bytes > 0)
        held = []
        count = 0
        while await stream.read() is not grpc.aio.EOF:
            count += 1
            held.append(gateway.gateway.memory.held_bytes)

        assert count == 300
        assert max(held) < 2_000_000
        assert gateway.gateway.memory.held_bytes == 0


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _answering(version: str) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        await call.completed.wait()
        message = echoed(call.body)
        message.model_version = version
        call.answer(message.SerializeToString(), b"200 OK", b"content-type: application/x-protobuf")

    return answer


def _after(event: asyncio.Event) -> Callable[[Call], Awaitable[None]]:
    async def answer(call: Call) -> None:
        await event.wait()
        await serve(call)

    return answer


def _id(call: Call) -> str:
    return str(service_pb2.ModelInferRequest.FromString(call.body).id)


def _digest(key: str) -> str:
    import hashlib

    return hashlib.sha256(key.encode()).hexdigest()
