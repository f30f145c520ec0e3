"""`/v2/repository/index`: every model and version that the caller may know of, and whether it can answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import Any

import pytest

from router.contract import ApiKey, Endpoint, ModelRoute, RateLimit, Table, VersionRoute
from tests.fakes.gateway import GatewayUnderTest, request

from .conftest import StartGateway

PATH = "/v2/repository/index"
READY = VersionRoute((Endpoint("r", "127.0.0.1", 1),))
MODELS = {
    "b": ModelRoute({"1": READY, "2": VersionRoute(state="loading: 3.2 s")}, {"1": 1}),
    "a": ModelRoute({"1": VersionRoute(state="failed: no memory")}, {}),
    "c": ModelRoute({"x": VersionRoute()}, {}),
}
B1 = {"name": "b", "version": "1", "state": "READY", "reason": ""}
ALL = [
    {"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "failed: no memory"},
    B1,
    {"name": "b", "version": "2", "state": "LOADING", "reason": "loading: 3.2 s"},
    {"name": "c", "version": "x", "state": "UNAVAILABLE", "reason": "no replica is running"},
]


def key(text: str, **settings: Any) -> ApiKey:
    return ApiKey(hashlib.sha256(text.encode()).hexdigest(), **settings)


class TestIndex:
    @pytest.mark.parametrize(
        ("method", "body", "rows"),
        [
            ("GET", b"", ALL),
            ("POST", b"", ALL),
            ("POST", b"{}", ALL),
            ("POST", b'{"ready": false}', ALL),
            ("POST", b'{"ready": true}', [B1]),
        ],
    )
    async def test_names_every_version_with_its_state(
        self, gateway: GatewayUnderTest, method: str, body: bytes, rows: Any
    ) -> None:
        await gateway.table(**MODELS)

        answer = await gateway.ask(PATH, method=method, body=body)

        assert (answer.status, answer.json) == (200, rows)

    async def test_waits_for_a_body_that_comes_after_its_head_and_goes_on(self, gateway: GatewayUnderTest) -> None:
        await gateway.table(**MODELS)
        client = await gateway.connect()
        whole = request(PATH, "expect: 100-continue", body=b'{"ready": true}')

        client.send(whole[:-15])
        assert (await client.head()).status == 100
        client.send(whole[-15:-5])
        await asyncio.sleep(0)
        client.send(whole[-5:])

        assert (await client.answer()).json == [B1]
        assert (await client.ask(PATH, method="GET")).json == ALL

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"{", "Expecting property name"),
            (b"[]", "body: '[]'; the body of /v2/repository/index is"),
            (b'{"ready": 1}', "ready: 1; the body of"),
            (b"[" * 4000, "the body of"),
            (b"\xff", "the body of"),
        ],
    )
    async def test_refuses_another_body_in_words(self, gateway: GatewayUnderTest, body: bytes, words: str) -> None:
        await gateway.table(**MODELS)

        answer = await gateway.ask(PATH, body=body)

        assert (answer.status, answer.code) == (400, "BAD_REQUEST")
        assert words in answer.json["error"]

    @pytest.mark.parametrize("framing", ["content-length: 5000", "transfer-encoding: chunked"])
    async def test_does_not_read_a_long_body_or_one_of_unknown_length(
        self, gateway: GatewayUnderTest, framing: str
    ) -> None:
        await gateway.table(**MODELS)
        client = await gateway.connect()

        client.send(f"POST {PATH} HTTP/1.1\r\nhost: g\r\n{framing}\r\n\r\n".encode())

        answer = await client.answer()
        assert (answer.status, answer.code) == (413, "TOO_LARGE")

    async def test_is_not_there_before_the_first_table(self, gateway: GatewayUnderTest) -> None:
        assert (await gateway.ask(PATH)).status == 503

    async def test_of_ten_thousand_models_takes_no_long_pause(self, gateway: GatewayUnderTest) -> None:
        await gateway.table(**{f"model-{number}": ModelRoute({"1": READY}, {"1": 1}) for number in range(10_000)})
        await gateway.ask(PATH)

        started = time.process_time()
        answer = await gateway.ask(PATH)

        assert len(answer.json) == 10_000
        # 20 ms here, of which the test's own reading is a third.
        assert time.process_time() - started < 0.5


class TestKeys:
    async def test_show_the_models_that_they_may_ask_and_no_others(self, start_gateway: StartGateway) -> None:
        gateway = await start_gateway(auth="required")
        keys = {"k": key("k", models=("b", "nobody")), "all": key("all")}
        await gateway.gateway.apply(Table("e", 1, "c", MODELS, keys))

        nobody = await gateway.ask(PATH)
        one = await gateway.ask(PATH, "x-api-key: k")
        every = await gateway.ask(PATH, "authorization: Bearer all")

        assert (nobody.status, nobody.code) == (401, "UNAUTHENTICATED")
        assert one.json == ALL[1:3]
        assert every.json == ALL

    async def test_stop_working_on_an_open_connection(self, start_gateway: StartGateway) -> None:
        gateway = await start_gateway(auth="required")
        await gateway.gateway.apply(Table("e", 1, "c", MODELS, {"k": key("k")}))
        client = await gateway.connect()
        assert (await client.ask(PATH, "x-api-key: k")).status == 200

        await gateway.gateway.apply(Table("e", 2, "c", MODELS, {"other": key("other")}))

        assert (await client.ask(PATH, "x-api-key: k")).status == 401

    async def test_are_held_to_their_limits_and_their_end(self, start_gateway: StartGateway) -> None:
        gateway = await start_gateway(auth="required")
        keys = {"slow": key("slow", rate_limit=RateLimit(0.001, 1)), "old": key("old", expires_at=1.0)}
        await gateway.gateway.apply(Table("e", 1, "c", MODELS, keys))

        first, second = [await gateway.ask(PATH, "x-api-key: slow") for _ in range(2)]
        old = await gateway.ask(PATH, "x-api-key: old")

        assert (first.status, second.status, second.code) == (200, 429, "RATE_LIMITED")
        assert (old.status, json.loads(old.body)["error"].partition(";")[0]) == (401, "the API key has expired")

    async def test_hide_nothing_where_they_are_not_required(self, gateway: GatewayUnderTest) -> None:
        await gateway.gateway.apply(Table("e", 1, "c", MODELS, {"k": key("k", models=("b",))}))

        assert (await gateway.ask(PATH, "x-api-key: k")).json == ALL
