"""A model of somebody's own behind the real gateway: its streams, its WebSockets and its own paths, end to end.

What the fast tests of either side cannot show: that an event which the model gives is at the client at once, and that
a client that leaves or does not read is felt by the generator behind both.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from tests.fakes import models
from tests.fakes.gateway import GatewayUnderTest, until
from tests.fakes.replica import Replica, ready_replica

SOURCE = """
import pathlib, time

class Model:
    inputs = [{"name": "x", "datatype": "FP64", "shape": [-1]}]

    def load(self, path):
        self.go = pathlib.Path(path).parent / "go"

    def predict(self, inputs):
        return inputs["x"] * 2

    def explain(self, inputs):
        return inputs["x"] + 1

    def predict_stream(self, inputs, parameters):
        try:
            for number in range(int(inputs["x"][0])):
                while number == parameters.get("waits_at") and not self.go.exists():
                    time.sleep(0.005)
                print("making", number)
                yield {"n": [number], "pad": ["x" * parameters.get("pad", 0)]}
        finally:
            print("closed")

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"].upper()})
        return
    if scope["type"] == "http":
        body = (scope["method"] + " " + scope["path"]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-from", b"app")]})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Replica]:
    with ready_replica(models.python(tmp_path / "m", SOURCE), backend="python", model="m") as running:
        yield running


def asked(count: int, **parameters: Any) -> dict[str, Any]:
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [count]}
    return {"inputs": [tensor], "parameters": parameters}


async def events_of(answer: httpx.Response) -> AsyncIterator[Any]:
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


class TestStreams:
    @pytest.mark.parametrize("path", ["", "/versions/1"])
    async def test_reach_the_client_event_by_event(
        self, gateway: GatewayUnderTest, model: Replica, tmp_path: Path, path: str
    ) -> None:
        await gateway.route(model)
        url = f"http://127.0.0.1:{gateway.port}/v2/models/m{path}/infer_stream"
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("POST", url, json=asked(3, waits_at=1)) as answer,
        ):
            events = events_of(answer)
            first = await anext(events)
            assert gateway.in_flight == 1
            (tmp_path / "go").touch()
            others = [event async for event in events]

        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-model-version"] == "1"
        assert first["outputs"][0]["data"] == [0]
        assert [event["outputs"][0]["data"] for event in others[:-1]] == [[1], [2]]
        assert others[-1] == {}

    async def test_come_as_chunks_of_one_event_each(self, gateway: GatewayUnderTest, model: Replica) -> None:
        await gateway.route(model)
        client = await gateway.connect()

        client.request("/v2/models/m/infer_stream", body=json.dumps(asked(2, waits_at=1)).encode())
        assert (await client.head()).field("transfer-encoding") == "chunked"
        chunk = await client.chunk()

        assert chunk.startswith(b"data: {")
        assert chunk.endswith(b"}\n\n")

    async def test_end_when_the_client_leaves(self, gateway: GatewayUnderTest, model: Replica) -> None:
        await gateway.route(model)
        client = await gateway.connect()
        client.request("/v2/models/m/infer_stream", body=json.dumps(asked(10**9, pad=1000)).encode())
        await client.head()
        await client.chunk()

        client.leave()

        await until(lambda: "closed" in model.log, "the generator is closed")
        await until(lambda: gateway.in_flight == 0)
        assert (await gateway.ask("/v2/models/m/infer", body=json.dumps(asked(4)).encode())).status == 200

    async def test_pause_while_the_client_does_not_read(self, gateway: GatewayUnderTest, model: Replica) -> None:
        await gateway.route(model)
        client = await gateway.connect()
        client.writer.transport.pause_reading()
        client.request("/v2/models/m/infer_stream", body=json.dumps(asked(10**6, pad=200_000)).encode())

        made = -1
        while made != model.log.count("making") or made < 1:  # until nothing moves any more
            made = model.log.count("making")
            await asyncio.sleep(0.5)
        assert made < 500, "answers were made that nobody reads"

        client.writer.transport.resume_reading()
        await until(lambda: model.log.count("making") > made, "it goes on")

    async def test_end_at_the_deadline_with_a_sentence(self, gateway: GatewayUnderTest, model: Replica) -> None:
        await gateway.route(model)

        answer = await gateway.ask(
            "/v2/models/m/infer_stream", "x-request-timeout-ms: 800", body=json.dumps(asked(3, waits_at=1)).encode()
        )

        assert answer.status == 200
        last = json.loads(answer.body.rstrip().rpartition(b"data: ")[2])
        assert last["code"] == "DEADLINE"
        assert answer.body.count(b"event: error") == 1

    async def test_and_predictions_are_served_at_once(
        self, gateway: GatewayUnderTest, model: Replica, tmp_path: Path
    ) -> None:
        await gateway.route(model)
        url = f"http://127.0.0.1:{gateway.port}/v2/models/m"
        async with httpx.AsyncClient(timeout=30) as client:
            request = {"json": asked(2, waits_at=1)}
            async with (
                client.stream("POST", f"{url}/infer_stream", **request) as one,
                client.stream("POST", f"{url}/infer_stream", **request) as two,
            ):
                firsts = [await anext(events_of(stream)) for stream in (one, two)]
                answer = await client.post(f"{url}/infer", json=asked(4))
                (tmp_path / "go").touch()

        assert [first["outputs"][0]["data"] for first in firsts] == [[0], [0]]
        assert answer.json()["outputs"][0]["data"] == [8.0]


class TestOtherPaths:
    async def test_explanations_go_the_way_of_predictions(self, gateway: GatewayUnderTest, model: Replica) -> None:
        await gateway.route(model)
        rows = json.dumps({"instances": [1.0, 2.0]}).encode()

        answers = [await gateway.ask(f"/v1/models/m{path}:explain", body=rows) for path in ("", "/versions/1")]

        assert [answer.json for answer in answers] == [{"explanations": [2.0, 3.0]}] * 2
        assert (await gateway.ask("/v2/models/m/explain", body=json.dumps(asked(1)).encode())).status == 200

    async def test_an_app_gets_its_own_paths(self, gateway: GatewayUnderTest, model: Replica) -> None:
        await gateway.route(model)

        plain = await gateway.ask("/models/m/a/b", method="DELETE")
        pinned = await gateway.ask("/models/m@1/a/b", method="GET")

        assert (plain.body, plain.field("x-from")) == (b"DELETE /models/m/a/b", "app")
        assert pinned.body == b"GET /models/m/a/b"

    async def test_an_app_has_websockets_where_the_version_says_so(
        self, gateway: GatewayUnderTest, model: Replica
    ) -> None:
        await gateway.route(model, websocket=True)
        url = f"http://127.0.0.1:{gateway.port}/models/m/ws"
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as channel:
            await channel.send_str("hello")
            assert await channel.receive_str() == "HELLO"
        await until(lambda: gateway.in_flight == 0)

        await gateway.route(model)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url)
        assert refused.value.status == 501
