"""Traces of requests, as a collector gets them: a real gateway, real model servers, and OTLP read by its own messages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import pytest
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from router.config import Tracing
from router.contract import Endpoint, ModelRoute, Shadow, VersionRoute
from tests.fakes import models, oip, otlp_collector
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.otlp_collector import Collector, Span
from tests.fakes.replica import Replica, ready_replica
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway
from .test_gateway_websocket import WebSocketReplica

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SENDER = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SENDER}-01"

SOURCE = """
import logging, pathlib, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        self.go = pathlib.Path(path).parent / "go"

    def predict(self, inputs):
        if (inputs["x"] == 7).any():
            print("seven", "printed")
            logging.getLogger("author").warning("seven logged")
        while (inputs["x"] == 8).any() and not self.go.exists():
            time.sleep(0.005)
        return inputs["x"] * 2

    def predict_stream(self, inputs, parameters):
        for number in range(int(inputs["x"][0])):
            yield {"n": [number]}

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"own"})
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector.running() as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with ready_replica(
        models.python(tmp_path_factory.mktemp("model") / "m", SOURCE), backend="python", model="m"
    ) as running:
        yield running


@pytest.fixture
def batching(tmp_path: Path) -> Iterator[Replica]:
    source, settings = models.python(tmp_path / "m", SOURCE), json.dumps({"batching": {"max_size": 8}})
    with ready_replica(source, backend="python", model="m", MODELFLEET_SETTINGS=settings) as running:
        yield running


@pytest.fixture
async def gateway(start_gateway: StartGateway, collector: Collector) -> GatewayUnderTest:
    """One that begins no trace by itself."""
    return await start_gateway(tracing=Tracing(collector.url, sample=0))


def x(*numbers: float) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "datatype": "FP64", "shape": [len(numbers)], "data": list(numbers)}]}


async def spans_of(collector: Collector, trace_id: str = TRACE, least: int = 1) -> list[Span]:
    return await asyncio.to_thread(collector.await_spans, trace_id, least)


def named(spans: list[Span], name: str) -> Span:
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, [span.name for span in spans]
    return found[0]


def of_gateway(spans: list[Span]) -> Span:
    return next(
        span for span in spans if span.kind == "server" and span.resource["service.name"] == "modelfleet-gateway"
    )


def of_replica(spans: list[Span]) -> Span:
    return next(span for span in spans if span.kind == "server" and span.resource["service.name"].endswith("-replica"))


def tries(spans: list[Span]) -> list[Span]:
    return sorted((span for span in spans if span.kind == "client"), key=lambda span: span.start_s)


class TestJoinedTrace:
    @pytest.mark.parametrize(
        ("path", "body", "route"),
        [
            ("/v2/models/m/infer", x(1.0, 2.0), "/v2/models/{model}/infer"),
            ("/v2/models/m/versions/1/infer", x(1.0, 2.0), "/v2/models/{model}/versions/{version}/infer"),
            ("/v1/models/m:predict", {"instances": [1.0, 2.0]}, "/v1/models/{model}:predict"),
        ],
    )
    async def test_of_a_prediction_has_each_step_in_its_place(
        self, gateway: GatewayUnderTest, model: Replica, collector: Collector, path: str, body: Any, route: str
    ) -> None:
        await gateway.route(model)
        headers = {"traceparent": PARENT, "tracestate": "a=b,c=d", "x-request-id": "r-1"}

        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(f"http://127.0.0.1:{gateway.port}{path}", json=body, headers=headers)

        assert answer.status_code == 200, answer.text
        assert "x-modelfleet-trace" not in answer.headers
        spans = await spans_of(collector, least=7)
        root, tried, server = of_gateway(spans), *tries(spans), of_replica(spans)
        steps = [named(spans, name) for name in ("decode", "wait", "predict", "encode")]
        assert (root.parent_id, root.tracestate, root.name) == (SENDER, "a=b,c=d", f"POST {route}")
        assert root.attributes.items() >= {
            "http.request.method": "POST", "http.route": route, "url.path": path, "http.response.status_code": 200,
            "client.address": "127.0.0.1", "modelfleet.model": "m", "modelfleet.version": "1",
            "modelfleet.replica": "r0", "modelfleet.request_id": "r-1", "modelfleet.tries": 1,
        }.items()  # fmt: skip
        assert tried.parent_id == root.span_id
        assert tried.attributes["server.port"] == model.port
        assert server.parent_id == tried.span_id
        assert {step.parent_id for step in steps} == {server.span_id}
        assert server.attributes.items() >= {"modelfleet.request.rows": 2, "modelfleet.batch.rows": 2}.items()
        assert server.resource.items() >= {"service.instance.id": "r0", "modelfleet.model": "m"}.items()
        assert root.contains(tried)
        assert tried.contains(server)
        assert all(server.contains(step) for step in steps)
        assert [step.start_s for step in steps] == sorted(step.start_s for step in steps)
        assert not any(span.is_error for span in spans)

    async def test_over_grpc(self, gateway: GatewayUnderTest, model: Replica, collector: Collector) -> None:
        await gateway.route(model)

        tensor = InferInput("x", [2], "FP64")
        tensor.set_data_from_numpy(np.array([1.0, 2.0]))
        async with InferenceServerClient(f"127.0.0.1:{gateway.grpc_port}") as client:
            await client.infer("m", [tensor], headers={"traceparent": PARENT})

        spans = await spans_of(collector, least=7)
        root = of_gateway(spans)
        assert root.name == "inference.GRPCInferenceService/ModelInfer"
        assert (
            root.attributes.items()
            >= {"rpc.system": "grpc", "rpc.grpc.status_code": 0, "modelfleet.model": "m"}.items()
        )
        assert of_replica(spans).parent_id == tries(spans)[0].span_id
        assert named(spans, "predict").parent_id == of_replica(spans).span_id

    @pytest.mark.parametrize("path", ["/v2/models/m/infer_stream", "/models/m/own/path"])
    async def test_of_what_is_streamed_ends_with_its_last_byte(
        self, gateway: GatewayUnderTest, model: Replica, collector: Collector, path: str
    ) -> None:
        await gateway.route(model)

        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(
                f"http://127.0.0.1:{gateway.port}{path}", json=x(3.0), headers={"traceparent": PARENT}
            )

        assert answer.status_code == 200, answer.text
        assert "x-modelfleet-trace" not in answer.headers
        spans = await spans_of(collector, least=4)
        server, (tried,) = of_replica(spans), tries(spans)
        assert server.end_s == tried.end_s
        assert tried.contains(server)
        assert server.contains(named(spans, "first_answer"))

    async def test_says_that_an_answer_came_from_the_cache(
        self, start_gateway: StartGateway, collector: Collector, tmp_path: Path
    ) -> None:
        gateway = await start_gateway(tracing=Tracing(collector.url, sample=1))
        settings = json.dumps({"cache": {"ttl_s": 60, "max_bytes": 1 << 20}})
        source = models.python(tmp_path / "m", SOURCE)
        with ready_replica(source, backend="python", model="m", MODELFLEET_SETTINGS=settings) as replica:
            await gateway.route(replica)
            body = json.dumps(x(3.0)).encode()
            for _ in range(2):
                assert (await gateway.ask(body=body)).status == 200

            await until(lambda: len(servers(collector)) == 2)
        assert [span.attributes["modelfleet.cache"] for span in servers(collector)] == ["miss", "hit"]

    async def test_of_a_batch_says_how_many_shared_it(
        self, gateway: GatewayUnderTest, batching: Replica, collector: Collector, tmp_path: Path
    ) -> None:
        await gateway.route(batching)
        model, clients = batching, [await gateway.connect() for _ in range(4)]
        clients[0].request(body=json.dumps(x(8.0)).encode())
        await until(lambda: in_flight(model) == 1, "one request inside")
        for client in clients[1:]:
            client.request("/v2/models/m/infer", f"traceparent: {PARENT}", body=json.dumps(x(1.0)).encode())
        await until(lambda: in_flight(model) == 4, "four requests inside")
        (tmp_path / "go").touch()
        for client in clients:
            assert (await client.answer()).status == 200

        spans = await spans_of(collector, least=21)
        assert {
            span.attributes["modelfleet.batch.requests"]
            for span in spans
            if "modelfleet.batch.requests" in span.attributes
        } == {3}
        waits = [span for span in spans if span.name == "wait"]
        assert all(wait.end_s > wait.start_s for wait in waits)


def servers(collector: Collector) -> list[Span]:
    return [span for span in collector.spans if span.kind == "server" and "modelfleet.cache" in span.attributes]


def in_flight(model: Replica) -> int:
    page = httpx.get(f"{model.url}/metrics").text
    return next(int(line.split()[-1]) for line in page.splitlines() if line.startswith("modelfleet_server_inflight{"))


class TestWhatTheGatewayDid:
    async def test_a_retry_is_a_second_try(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async def broken(call: Call) -> None:
            await call.completed.wait()
            call.reset()

        async with ScriptedReplica(broken) as bad, ScriptedReplica() as good:
            await gateway.route(bad, good)
            traces = [f"{number:032x}" for number in range(1, 9)]
            for trace in traces:
                assert (await gateway.ask("/v2/models/m/infer", f"traceparent: 00-{trace}-{SENDER}-01")).status == 200
            sent = {call.field("traceparent")[0] for call in (*bad.calls, *good.calls)}

        await until(lambda: {span.trace_id for span in collector.spans} >= set(traces))
        retried = next(span for span in collector.spans if "retry" in span.events)
        spans = [span for span in collector.spans if span.trace_id == retried.trace_id]
        first, second = tries(spans)
        assert (first.is_error, first.attributes["error.type"], first.attributes["modelfleet.replica"]) == (
            True,
            "reset",
            "r0",
        )
        assert (second.is_error, second.attributes["http.request.resend_count"]) == (False, 1)
        assert retried.attributes["modelfleet.tries"] == 2
        assert not retried.is_error
        assert {f"00-{each.trace_id}-{each.span_id}-01" for each in (first, second)} <= sent

    async def test_waiting_in_the_queue_is_a_span(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        release = asyncio.Event()

        async def slow(call: Call) -> None:
            await call.completed.wait()
            await release.wait()
            call.answer()

        async with ScriptedReplica(slow) as replica:
            await gateway.route(replica, concurrency=1)
            first, second = await gateway.connect(), await gateway.connect()
            first.request()
            await until(lambda: len(replica.calls) == 1)
            second.request("/v2/models/m/infer", f"traceparent: {PARENT}")
            lane = gateway.gateway.fleet.lanes["m", "1"]
            await until(lambda: lane.queued == 1)
            release.set()
            assert [(await first.answer()).status, (await second.answer()).status] == [200, 200]

        spans = await spans_of(collector, least=3)
        root, queue = of_gateway(spans), named(spans, "queue")
        assert root.contains(queue)
        assert queue.end_s == pytest.approx(tries(spans)[0].start_s, abs=1e-6)

    async def test_a_request_that_wakes_a_model_says_so(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async with ScriptedReplica() as replica:
            await gateway.table(m=ModelRoute({"1": VersionRoute((), state="asleep")}, {"1": 1}))
            client = await gateway.connect()
            client.request("/v2/models/m/infer", f"traceparent: {PARENT}")
            await until(lambda: gateway.gateway.fleet.lanes["m", "1"].queued == 1)
            await gateway.route(replica)
            assert (await client.answer()).status == 200

        spans = await spans_of(collector, least=3)
        assert "wake" in of_gateway(spans).events

    @pytest.mark.parametrize(
        ("path", "status", "code"), [("/v2/models/none/infer", 404, "MODEL_NOT_FOUND"), ("/v9", 404, "NOT_FOUND")]
    )
    async def test_a_refusal_has_a_trace_too(
        self,
        gateway: GatewayUnderTest,
        replica: ScriptedReplica,
        collector: Collector,
        path: str,
        status: int,
        code: str,
    ) -> None:
        await gateway.route(replica)

        answer = await gateway.ask(path, f"traceparent: {PARENT}")

        (root,) = await spans_of(collector)
        assert answer.status == status
        assert root.attributes.items() >= {"http.response.status_code": status, "error.type": code}.items()

    async def test_an_answer_that_never_comes_is_an_error(
        self, gateway: GatewayUnderTest, collector: Collector
    ) -> None:
        async def silent(call: Call) -> None:
            await call.left.wait()

        async with ScriptedReplica(silent) as replica:
            await gateway.route(replica)
            answer = await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}", "x-request-timeout-ms: 100")

        spans = await spans_of(collector, least=2)
        assert answer.status == 504
        assert of_gateway(spans).is_error
        assert of_gateway(spans).attributes["error.type"] == "DEADLINE"
        assert tries(spans)[0].is_error

    @pytest.mark.parametrize(
        "told",
        [
            b"total=1e9",
            b"total=99999999999999",
            b"x" * 5000,
            b"total=5 decode=0+999999999999 cache=<script> \xff=1",
            b"total=",
            b"decode=1+1",
            b"total=1 total=2 open=1 rows=1",
        ],
    )
    async def test_whatever_a_replica_says_of_itself_its_spans_lie_within_the_try(
        self, gateway: GatewayUnderTest, collector: Collector, told: bytes
    ) -> None:
        async def lies(call: Call) -> None:
            await call.completed.wait()
            call.answer(b"{}", b"200 OK", b"X-Modelfleet-Trace: " + told)

        async with ScriptedReplica(lies) as replica:
            await gateway.route(replica)
            answer = await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}")

        spans = await spans_of(collector, least=2)
        assert answer.status == 200
        assert answer.field("x-modelfleet-trace") == ""
        assert all(of_gateway(spans).contains(span) for span in spans)
        assert "<script>" not in str(spans)


class TestEveryWay:
    """A trace has the same spans whatever way its request takes through the gateway."""

    async def test_of_a_websocket(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        replica = WebSocketReplica()
        await replica.start()
        try:
            await gateway.route(replica, websocket=True)
            url = f"http://127.0.0.1:{gateway.port}/models/m/ws"
            headers = {"traceparent": PARENT}
            async with aiohttp.ClientSession(headers=headers) as session, session.ws_connect(url) as channel:
                await channel.send_str("hello")
                assert (await channel.receive()).data == "hello"
        finally:
            await replica.stop()

        spans = await spans_of(collector, least=2)
        assert of_gateway(spans).attributes["http.response.status_code"] == 101
        assert tries(spans)[0].attributes["http.response.status_code"] == 101

    async def test_of_one_that_a_shadow_copies(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async with ScriptedReplica() as live, ScriptedReplica() as copied:
            versions = {
                "1": VersionRoute((Endpoint("r0", "127.0.0.1", live.port),)),
                "2": VersionRoute((Endpoint("r1", "127.0.0.1", copied.port),)),
            }
            await gateway.table(m=ModelRoute(versions, {"1": 100}, shadow=Shadow("2")))
            answer = await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}", body=b"{}")
            await until(lambda: copied.calls, "the copy came")

            spans = await spans_of(collector, least=2)
            assert answer.status == 200
            assert [span.attributes["modelfleet.replica"] for span in tries(spans)] == ["r0"]
            assert copied.calls[0].field("x-modelfleet-trace") == []
            assert copied.calls[0].field("traceparent")[0][3:35] == TRACE

    async def test_of_a_body_that_is_streamed(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async with ScriptedReplica() as replica:
            await gateway.route(replica)
            answer = await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}", body=bytes(3 << 20))

        spans = await spans_of(collector, least=2)
        assert answer.status == 200
        assert of_gateway(spans).attributes["http.request.body.size"] == 3 << 20

    async def test_of_a_stream_of_grpc(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async with ScriptedReplica(oip.serve) as replica:
            await gateway.route(replica)
            client = oip.OipClient(gateway.grpc_port)
            try:
                stream = client.stream(iter([oip.request()]), metadata=[("traceparent", PARENT)])
                assert len([message async for message in stream]) == 2
            finally:
                await client.close()

        spans = await spans_of(collector, least=2)
        assert of_gateway(spans).name == "inference.GRPCInferenceService/ModelStreamInfer"
        assert tries(spans)[0].parent_id == of_gateway(spans).span_id

    async def test_of_a_client_that_left(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async def silent(call: Call) -> None:
            await call.left.wait()

        async with ScriptedReplica(silent) as replica:
            await gateway.route(replica)
            client = await gateway.connect()
            client.request("/v2/models/m/infer", f"traceparent: {PARENT}")
            await until(lambda: replica.calls)
            client.leave()
            spans = await spans_of(collector, least=2)

        assert of_gateway(spans).attributes["http.response.status_code"] == 499
        assert not of_gateway(spans).is_error

    async def test_of_an_answer_that_breaks_off(self, gateway: GatewayUnderTest, collector: Collector) -> None:
        async def breaks(call: Call) -> None:
            await call.completed.wait()
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            call.close()

        async with ScriptedReplica(breaks) as replica:
            await gateway.route(replica)
            client = await gateway.connect()
            client.request("/v2/models/m/infer", f"traceparent: {PARENT}")
            await client.closed()
            spans = await spans_of(collector, least=2)

        assert of_gateway(spans).attributes["http.response.status_code"] == 502
        assert (of_gateway(spans).is_error, tries(spans)[0].is_error) == (True, True)

    async def test_with_a_tracestate_that_no_reader_takes(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, collector: Collector, tmp_path: Path
    ) -> None:
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}", "tracestate: ===,\xff,a=b=c")

        assert len(await spans_of(collector, least=2)) == 2
        assert "not exported" not in (tmp_path / "gateway.log").read_text()


class TestSampling:
    async def test_follows_the_sender_and_takes_its_share_of_the_others(
        self, start_gateway: StartGateway, replica: ScriptedReplica, collector: Collector
    ) -> None:
        gateway = await start_gateway(tracing=Tracing(collector.url, sample=1))
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/infer", f"traceparent: 00-{'a' * 32}-{SENDER}-00")
        await gateway.ask()

        made = replica.calls[1].field("traceparent")[0]
        spans = await spans_of(collector, made[3:35], 2)
        assert {span.trace_id for span in collector.spans} == {made[3:35]}
        assert of_gateway(spans).parent_id == ""
        assert replica.calls[0].field("traceparent") == [f"00-{'a' * 32}-{SENDER}-00"]

    async def test_of_no_share_begins_none(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, collector: Collector
    ) -> None:
        await gateway.route(replica)
        for _ in range(50):
            await gateway.ask()
        await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}")

        await spans_of(collector, least=2)
        assert {span.trace_id for span in collector.spans} == {TRACE}

    @pytest.mark.parametrize(
        "bad",
        [
            "x",
            f"00-{TRACE.upper()}-{SENDER}-01",
            f"ff-{TRACE}-{SENDER}-01",
            f"00-{'0' * 32}-{SENDER}-01",
            f"00-{TRACE}-{'0' * 16}-01",
            f"00-{TRACE}-{SENDER}-01-more",
            f"00-{TRACE}-{SENDER}",
            f"{PARENT}, {PARENT}",
            f"00-{TRACE}-{SENDER}-zz",
        ],
    )
    async def test_a_traceparent_that_cannot_be_read_begins_a_new_trace_without_its_tracestate(
        self, start_gateway: StartGateway, replica: ScriptedReplica, collector: Collector, bad: str
    ) -> None:
        gateway = await start_gateway(tracing=Tracing(collector.url, sample=1))
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/infer", f"traceparent: {bad}", "tracestate: a=b")

        (call,) = replica.calls
        made = call.field("traceparent")[0]
        assert call.field("tracestate") == []
        assert made[3:35] != TRACE
        assert (await spans_of(collector, made[3:35], 2))[0].tracestate == ""

    async def test_a_client_cannot_ask_a_replica_for_what_is_the_gateways(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/infer", "x-modelfleet-trace: 1", "X_Modelfleet_Trace: 1")
        await gateway.ask("/v2/models/m/infer", "x-modelfleet-trace: 7", f"traceparent: {PARENT}")

        assert [call.field("x-modelfleet-trace") for call in replica.calls] == [[], ["1"]]
        assert [call.field("x_modelfleet_trace") for call in replica.calls] == [[], []]


class TestCollector:
    async def test_that_answers_nothing_holds_up_neither_requests_nor_the_end(
        self, start_gateway: StartGateway, replica: ScriptedReplica, collector: Collector
    ) -> None:
        collector.wait.clear()
        gateway = await start_gateway(tracing=Tracing(collector.url, sample=1, queue_spans=64, timeout_s=30))
        await gateway.route(replica)
        client = await gateway.connect()

        for _ in range(200):
            assert (await client.ask()).status == 200

        await until(lambda: collector.headers, "the collector was asked")
        for _ in range(100):
            assert (await client.ask()).status == 200
        assert dropped(await metrics(gateway), "queue_full") > 0
        client.leave()
        began = time.monotonic()
        await gateway.close()
        assert time.monotonic() - began < 3

    @pytest.mark.parametrize("status", [400, 500])
    async def test_that_refuses_is_counted_and_named_once(
        self, start_gateway: StartGateway, replica: ScriptedReplica, collector: Collector, tmp_path: Path, status: int
    ) -> None:
        collector.status = status
        gateway = await start_gateway(tracing=Tracing(collector.url, sample=1))
        await gateway.route(replica)

        for _ in range(3):
            assert (await gateway.ask()).status == 200

        outbox = gateway.gateway.outbox
        assert outbox is not None
        await until(lambda: outbox.counts["not_exported"], "spans were given up")
        assert dropped(await metrics(gateway), "not_exported") > 0
        events = [json.loads(line) for line in (tmp_path / "gateway.log").read_text().splitlines()]
        (said,) = [event for event in events if event["event"] == "traces not exported"]
        assert said["endpoint"] == f"{collector.url}/v1/traces"

    async def test_gets_the_headers_of_a_file_and_a_new_token_when_it_changes(
        self, start_gateway: StartGateway, replica: ScriptedReplica, collector: Collector, tmp_path: Path
    ) -> None:
        file = tmp_path / "headers"
        file.write_text("# of the collector\nAuthorization: Bearer old\n")
        gateway = await start_gateway(tracing=Tracing(collector.url, sample=1, headers_file=str(file)))
        await gateway.route(replica)

        await gateway.ask()
        await until(lambda: collector.headers)
        file.write_text("authorization: Bearer new\n")
        await gateway.ask()
        await until(lambda: len(collector.headers) > 1)

        assert [sent["authorization"] for sent in collector.headers[:2]] == ["Bearer old", "Bearer new"]
        assert set(collector.paths) == {"/v1/traces"}
        assert "Bearer" not in (tmp_path / "gateway.log").read_text()


async def metrics(gateway: GatewayUnderTest) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{gateway.metrics_port}/metrics")).text


def dropped(page: str, outcome: str) -> int:
    line = next(
        line for line in page.splitlines() if line.startswith(f'modelfleet_trace_spans_total{{outcome="{outcome}"')
    )
    return int(line.split()[-1])


class TestLogOfTheModel:
    async def test_has_the_ids_of_the_request(
        self, gateway: GatewayUnderTest, model: Replica, collector: Collector
    ) -> None:
        await gateway.route(model)

        answer = await gateway.ask(
            "/v2/models/m/infer", f"traceparent: {PARENT}", "x-request-id: r-7", body=json.dumps(x(7.0)).encode()
        )

        assert answer.status == 200
        events = model.events()
        printed = next(event for event in events if event["event"] == "seven printed")
        logged = next(event for event in events if event["event"] == "seven logged")
        for event in (printed, logged):
            assert event.items() >= {"request_id": "r-7", "trace_id": TRACE}.items()
        assert logged["level"] == "warning"
