"""API keys, rate limits and fair share, as clients and replicas see them."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from router.contract import ApiKey, Endpoint, ModelRoute, RateLimit, Table, VersionRoute
from tests.fakes.gateway import Client, GatewayUnderTest, request, until
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway

KEY = "mf_0123456789-the-key-of-this-test"
OTHER = "mf_another"
PATHS = [
    ("POST", "/v2/models/m/infer"),
    ("GET", "/v2/models/m"),
    ("GET", "/v2/models/m/ready"),
    ("POST", "/v1/models/m:predict"),
    ("GET", "/models/m/anything"),
    ("GET", "/nothing/here"),
]


def api_key(text: str = KEY, **settings: object) -> ApiKey:
    return ApiKey(hashlib.sha256(text.encode()).hexdigest(), **settings)  # type: ignore[arg-type]


def bearer(text: str = KEY) -> str:
    return f"authorization: Bearer {text}"


class Keys:
    """A gateway that serves models `m` and `n` by one replica, with keys."""

    def __init__(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        self.gateway = gateway
        self.replica = replica
        self.revision = 0

    async def hold(self, model_limit: RateLimit | None = None, **keys: ApiKey) -> None:
        await self.serve({}, model_limit, **keys)

    async def serve(self, settings: dict[str, object], model_limit: RateLimit | None = None, **keys: ApiKey) -> None:
        self.revision += 1
        models = {
            name: ModelRoute(
                {"1": VersionRoute((Endpoint(f"r{name}", "127.0.0.1", self.replica.port),), **settings)},  # type: ignore[arg-type]
                {"1": 1},
                rate_limit=model_limit,
            )
            for name in ("m", "n")
        }
        await self.gateway.gateway.apply(Table("keys", self.revision, "c", models, keys))


@pytest.fixture
async def locked(start_gateway: StartGateway, replica: ScriptedReplica) -> Keys:
    """`auth: required`."""
    return Keys(await start_gateway(auth="required"), replica)


@pytest.fixture
async def unlocked(start_gateway: StartGateway, replica: ScriptedReplica) -> Keys:
    """`auth: off`."""
    return Keys(await start_gateway(), replica)


class TestWhoMayAsk:
    @pytest.mark.parametrize(("method", "path"), PATHS)
    @pytest.mark.parametrize(
        "line",
        [
            "x-nothing: 1",
            "authorization: Bearer wrong-key-of-somebody",
            "authorization: Basic d3Jvbmcta2V5",
            "authorization: Bearer",
            "x-api-key: wrong-key-of-somebody",
        ],
    )
    async def test_nobody_without_a_key(self, locked: Keys, method: str, path: str, line: str) -> None:
        await locked.hold(k=api_key())

        answer = await locked.gateway.ask(path, line, method=method)

        assert (answer.status, answer.code, answer.field("www-authenticate")) == (401, "UNAUTHENTICATED", "Bearer")
        assert "wrong-key" not in answer.raw.decode() + answer.body.decode()
        assert "d3Jvbmcta2V5" not in answer.body.decode()
        assert locked.replica.calls == []

    @pytest.mark.parametrize(("method", "path"), PATHS[:-1])
    @pytest.mark.parametrize("line", [bearer(), f"authorization: bearer {KEY}", f"X-Api-Key: {KEY}"])
    async def test_who_has_a_key(self, locked: Keys, method: str, path: str, line: str) -> None:
        await locked.hold(k=api_key())

        assert (await locked.gateway.ask(path, line, method=method)).status == 200

    @pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready"])
    async def test_anybody_for_the_gateways_own_health(self, locked: Keys, path: str) -> None:
        await locked.hold(k=api_key())

        assert (await locked.gateway.ask(path, method="GET")).status == 200

    async def test_nobody_before_the_first_table(self, locked: Keys) -> None:
        assert (await locked.gateway.ask("/v2/models/m/infer", bearer())).status == 401

    async def test_a_revoked_key_no_more_from_the_next_request_on(self, locked: Keys) -> None:
        await locked.hold(k=api_key(), other=api_key(OTHER))
        client = await locked.gateway.connect()
        assert (await client.ask("/v2/models/m/infer", bearer())).status == 200

        await locked.hold(other=api_key(OTHER))

        assert (await client.ask("/v2/models/m/infer", bearer())).status == 401
        await locked.hold(k=api_key(), other=api_key(OTHER))
        assert (await client.ask("/v2/models/m/infer", bearer())).status == 200

    async def test_an_expired_key_no_more_without_any_table(self, locked: Keys) -> None:
        expires_at = time.time() + 0.3
        await locked.hold(k=api_key(expires_at=expires_at))
        client = await locked.gateway.connect()
        assert (await client.ask("/v2/models/m/infer", bearer())).status == 200

        await until(lambda: time.time() >= expires_at)
        answer = await client.ask("/v2/models/m/infer", bearer())

        assert (answer.status, "expired" in answer.json["error"]) == (401, True)

    async def test_a_refused_small_request_keeps_its_connection(self, locked: Keys) -> None:
        await locked.hold(k=api_key())
        client = await locked.gateway.connect()

        client.send(request("/v2/models/m/infer", length=5))
        client.send(b"hello" + request("/v2/models/m/infer", bearer(), body=b"again"))

        assert (await client.answer()).status == 401
        assert (await client.answer()).body == b"again"

    @pytest.mark.parametrize("framing", ["content-length: 900000", "transfer-encoding: chunked"])
    async def test_a_strangers_large_body_is_refused_before_it_comes(self, locked: Keys, framing: str) -> None:
        await locked.hold(k=api_key())
        client = await locked.gateway.connect()

        client.send(f"POST /v2/models/m/infer HTTP/1.1\r\nhost: g\r\n{framing}\r\n\r\n".encode())

        answer = await client.answer()
        assert (answer.status, answer.field("connection")) == (401, "close")

    async def test_a_stranger_is_told_no_before_100_continue(self, locked: Keys) -> None:
        await locked.hold(k=api_key())
        client = await locked.gateway.connect()

        client.send(request("/v2/models/m/infer", "expect: 100-continue", length=5))

        assert (await client.head()).status == 401


class TestScope:
    async def test_a_key_asks_for_its_models_alone(self, locked: Keys) -> None:
        await locked.hold(k=api_key(models=("m",)))

        assert (await locked.gateway.ask("/v2/models/m/infer", bearer())).status == 200
        assert (await locked.gateway.ask("/v2/models/n/infer", bearer())).status == 403

    async def test_tells_nobody_which_models_there_are(self, locked: Keys) -> None:
        await locked.hold(k=api_key(models=("m", "gone")))

        there = await locked.gateway.ask("/v2/models/n/infer", bearer())
        absent = await locked.gateway.ask("/v2/models/x/infer", bearer())

        assert there.code == absent.code == "FORBIDDEN"
        assert there.json["error"].replace("'n'", "'x'") == absent.json["error"]

    async def test_names_only_models_that_the_key_may_ask_for(self, locked: Keys) -> None:
        await locked.hold(k=api_key(models=("m", "gone")))

        answer = await locked.gateway.ask("/v2/models/gone/infer", bearer())

        assert (answer.status, answer.code) == (404, "MODEL_NOT_FOUND")
        assert answer.json["error"].endswith("models: m")


class TestTheKeyItself:
    @pytest.mark.parametrize("line", [bearer(), f"x-api-key: {KEY}"])
    async def test_reaches_no_replica(self, locked: Keys, line: str) -> None:
        await locked.hold(k=api_key())

        await locked.gateway.ask("/v2/models/m/infer", line, "x-mine: 1")

        (call,) = locked.replica.calls
        assert KEY not in str(call.fields)
        assert call.field("x-mine") == ["1"]
        assert call.field("authorization") == call.field("x-api-key") == []

    async def test_is_in_no_log_and_no_metric(
        self, start_gateway: StartGateway, replica: ScriptedReplica, tmp_path: Path
    ) -> None:
        log = tmp_path / "access.log"
        locked = Keys(await start_gateway(access_log=str(log), auth="required"), replica)
        await locked.hold(k=api_key())

        await locked.gateway.ask("/v2/models/m/infer", bearer())
        await locked.gateway.ask("/v2/models/m/infer", bearer("wrong-key"))
        metrics = (await locked.gateway.admin("/metrics")).body.decode()
        state = (await locked.gateway.admin("/debug/state")).body.decode()
        locked.gateway.gateway.access_log.flush()  # type: ignore[union-attr]

        written = log.read_text()
        assert [json.loads(line).get("key") for line in written.splitlines()] == ["k", None]
        for told in (written, metrics, state):
            assert KEY not in told
            assert "wrong-key" not in told
        assert 'modelfleet_key_requests_total{key="k",code="2xx"} 1' in metrics
        assert 'modelfleet_requests_total{model="",version="",code="401"} 1' in metrics


class TestWhereKeysAreOptional:
    async def test_a_credential_of_the_models_passes(self, unlocked: Keys) -> None:
        await unlocked.hold(k=api_key())

        assert (await unlocked.gateway.ask("/v2/models/m/infer", bearer("the-models"))).status == 200

        assert unlocked.replica.calls[0].field("authorization") == ["Bearer the-models"]

    async def test_a_key_of_ours_still_reaches_no_replica(self, unlocked: Keys) -> None:
        await unlocked.hold()
        client = await unlocked.gateway.connect()
        await client.ask("/v2/models/m/infer", bearer())
        await unlocked.hold(k=api_key())

        await unlocked.gateway.ask("/v2/models/m/infer", bearer())

        assert unlocked.replica.calls[1].field("authorization") == []

    async def test_a_keys_limits_hold_and_its_models_do_not_matter(self, unlocked: Keys) -> None:
        await unlocked.hold(k=api_key(models=("m",), rate_limit=RateLimit(0.01, 1)))

        answers = [(await unlocked.gateway.ask("/v2/models/n/infer", bearer())).status for _ in range(2)]

        assert answers == [200, 429]


class TestRateLimits:
    async def test_of_a_key_are_told_with_the_time_to_come_again(self, locked: Keys) -> None:
        await locked.hold(k=api_key(rate_limit=RateLimit(0.25, 2)), other=api_key(OTHER))

        answers = [await locked.gateway.ask("/v2/models/m/infer", bearer()) for _ in range(3)]

        assert [answer.status for answer in answers] == [200, 200, 429]
        assert (answers[2].code, answers[2].field("retry-after")) == ("RATE_LIMITED", "4")
        assert "key 'k': more than 0.25 requests/s (with a burst of 2)" in answers[2].json["error"]
        assert (await locked.gateway.ask("/v2/models/m/infer", bearer(OTHER))).status == 200

    async def test_of_a_model_hold_for_all_without_keys_too(self, unlocked: Keys) -> None:
        await unlocked.hold(RateLimit(0.01, 1))

        answers = [await unlocked.gateway.ask(f"/v2/models/{name}/infer") for name in ("m", "m", "n")]

        assert [answer.status for answer in answers] == [200, 429, 200]
        assert "model 'm'" in answers[1].json["error"]

    async def test_are_counted(self, unlocked: Keys) -> None:
        await unlocked.hold(RateLimit(0.01, 1))
        for _ in range(3):
            await unlocked.gateway.ask("/v2/models/m/infer")

        metrics = (await unlocked.gateway.admin("/metrics")).body.decode()

        assert 'modelfleet_shed_total{model="m",version="",reason="rate_limited"} 2' in metrics

    async def test_are_not_refilled_by_a_table(self, locked: Keys) -> None:
        limited = api_key(rate_limit=RateLimit(0.01, 1))
        await locked.hold(RateLimit(0.01, 2), k=limited)
        assert (await locked.gateway.ask("/v2/models/m/infer", bearer())).status == 200

        await locked.hold(RateLimit(0.01, 2), k=limited, other=api_key(OTHER))

        assert (await locked.gateway.ask("/v2/models/m/infer", bearer())).status == 429
        statuses = [(await locked.gateway.ask("/v2/models/m/infer", bearer(OTHER))).status for _ in range(2)]
        assert statuses == [200, 429]

    async def test_keep_the_connection(self, locked: Keys) -> None:
        await locked.hold(k=api_key(rate_limit=RateLimit(0.01, 1)))
        client = await locked.gateway.connect()

        statuses = [(await client.ask("/v2/models/m/infer", bearer())).status for _ in range(3)]

        assert statuses == [200, 429, 429]


class Gate:
    """A script that holds every request until the test lets it go."""

    def __init__(self) -> None:
        self.held: list[Call] = []

    async def __call__(self, call: Call) -> None:
        await call.completed.wait()
        self.held.append(call)

    def let_go(self) -> bytes:
        call = self.held.pop(0)
        call.answer(call.body)
        return call.body


class TestConcurrency:
    async def send(self, locked: Keys, key: str, body: str = "") -> Client:
        client = await locked.gateway.connect()
        before = locked.gateway.in_flight + locked.gateway.queued
        client.request("/v2/models/m/infer", bearer(key), body=body.encode())
        await until(lambda: locked.gateway.in_flight + locked.gateway.queued == before + 1)
        return client

    async def test_counts_what_is_in_flight_and_queued(self, locked: Keys) -> None:
        gate = locked.replica.script = Gate()
        await locked.serve({"concurrency": 1}, k=api_key(concurrency=2), other=api_key(OTHER))
        one = await self.send(locked, KEY)
        two = await self.send(locked, KEY)

        refused = await locked.gateway.ask("/v2/models/m/infer", bearer())

        assert (refused.status, refused.code, refused.field("retry-after")) == (429, "RATE_LIMITED", "1")
        await self.send(locked, OTHER)
        for client in (one, two):
            await until(lambda: gate.held)
            gate.let_go()
            assert (await client.answer()).status == 200
        await until(lambda: gate.held)
        gate.let_go()

    async def test_gives_the_place_back_whatever_becomes_of_the_request(self, locked: Keys) -> None:
        gate = locked.replica.script = Gate()
        await locked.serve({"concurrency": 1}, k=api_key(concurrency=1))
        (caller,) = locked.gateway.gateway.keyring.callers.values()
        leaving = await self.send(locked, KEY)
        assert caller.under_way == 1

        leaving.leave()
        await until(lambda: caller.under_way == 0)
        await until(lambda: gate.held)
        gate.let_go()

        unfinished = await locked.gateway.connect()
        head = f"POST /v2/models/m/infer HTTP/1.1\r\nhost: g\r\n{bearer()}\r\ntransfer-encoding: chunked\r\n\r\n"
        unfinished.send(head.encode())
        await until(lambda: caller.under_way == 1)
        unfinished.leave()
        await until(lambda: caller.under_way == 0)

        timed = await locked.gateway.ask("/v2/models/m/infer", bearer(), "x-request-timeout-ms: 50")
        assert (timed.status, caller.under_way) == (504, 0)
        await until(lambda: gate.held)
        gate.let_go()

    async def test_shares_slots_between_keys_by_turns(self, locked: Keys) -> None:
        gate = locked.replica.script = Gate()
        await locked.serve({"concurrency": 1}, k=api_key(), other=api_key(OTHER))
        for name in ("a0", "a1", "a2", "a3"):
            await self.send(locked, KEY, name)
        await self.send(locked, OTHER, "b0")

        served = []
        for _ in range(5):
            await until(lambda: gate.held)
            served.append(gate.let_go())

        assert served == [b"a0", b"a1", b"b0", b"a2", b"a3"]

    async def test_lets_the_greediest_key_give_way_when_the_queue_is_full(self, locked: Keys) -> None:
        gate = locked.replica.script = Gate()
        await locked.serve({"concurrency": 1, "queue_max": 3}, k=api_key(), other=api_key(OTHER))
        clients = [await self.send(locked, KEY, str(n)) for n in range(4)]

        modest = await locked.gateway.connect()
        modest.request("/v2/models/m/infer", bearer(OTHER), body=b"b")

        refused = await clients[3].answer()
        assert (refused.status, refused.code, "gave way" in refused.json["error"]) == (503, "OVERLOADED", True)
        served = []
        for _ in range(4):
            await until(lambda: gate.held)
            served.append(gate.let_go())
        assert served == [b"0", b"1", b"b", b"2"]
