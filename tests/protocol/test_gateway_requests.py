"""What a client asks and what a replica gets: paths, fields, ids, and the gateway's own answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.contract import Endpoint, ModelRoute, Shadow, VersionRoute
from tests.fakes.gateway import GatewayUnderTest, request
from tests.fakes.scripted_replica import Call, ScriptedReplica


class TestRouting:
    @pytest.mark.parametrize(
        ("asked", "got"),
        [
            ("/v2/models/m/infer?a=%20b", b"/v2/models/m/infer?a=%20b"),
            ("/v2/models/m/versions/1/infer", b"/v2/models/m/infer"),
            ("/v1/models/m:predict", b"/v1/models/m:predict"),
            ("/v1/models/m/labels/stable:predict", b"/v1/models/m:predict"),
            ("/models/m/chat/completions", b"/models/m/chat/completions"),
            ("/models/m@1/x", b"/models/m/x"),
        ],
    )
    async def test_takes_version_and_label_out_of_the_path(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, asked: str, got: bytes
    ) -> None:
        route = VersionRoute((Endpoint("r", "127.0.0.1", replica.port),))
        await gateway.table(m=ModelRoute({"1": route}, {"1": 1}, {"stable": "1"}))

        answer = await gateway.ask(asked, body=b"tensor")

        assert (answer.status, answer.body, replica.calls[0].target) == (200, b"tensor", got)

    async def test_pins_by_field_and_names_the_version_that_answered(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as one, ScriptedReplica() as two:
            versions = {
                str(n): VersionRoute((Endpoint(f"r{n}", "127.0.0.1", r.port),)) for n, r in ((1, one), (2, two))
            }
            await gateway.table(m=ModelRoute(versions, {"1": 1}))

            answers = [
                await gateway.ask(),
                await gateway.ask("/v2/models/m/infer", "x-model-version: 2"),
            ]

        assert [answer.field("x-model-version") for answer in answers] == ["1", "2"]
        assert (len(one.calls), len(two.calls)) == (1, 1)

    async def test_splits_unpinned_requests_exactly_by_weight(self, gateway: GatewayUnderTest) -> None:
        async with ScriptedReplica() as one, ScriptedReplica() as two:
            versions = {
                str(n): VersionRoute((Endpoint(f"r{n}", "127.0.0.1", r.port),)) for n, r in ((1, one), (2, two))
            }
            await gateway.table(m=ModelRoute(versions, {"1": 90, "2": 10}))
            client = await gateway.connect()

            for _ in range(50):
                await client.ask()

        assert (len(one.calls), len(two.calls)) == (45, 5)


class TestFields:
    async def test_reach_the_replica_without_what_belongs_to_one_hop(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)

        await gateway.ask(
            "/v2/models/m/infer", "X-A: 1", "Connection: X-Mine", "X-Mine: 2", "TE: trailers", "Forwarded: y"
        )

        (call,) = replica.calls
        assert (call.field("x-a"), call.field("forwarded"), call.field("host")) == (["1"], ["y"], ["gateway"])
        assert call.field("x-forwarded-for") == ["127.0.0.1"]
        assert not call.field("connection") + call.field("x-mine") + call.field("te")

    async def test_carry_the_clients_request_id_both_ways(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)

        answer = await gateway.ask("/v2/models/m/infer", "x-request-id: abc-1")

        assert (answer.field("x-request-id"), replica.calls[0].field("x-request-id")) == ("abc-1", ["abc-1"])

    @pytest.mark.parametrize("bad", ["", "a b", "x" * 129, 'a"b', "é"])
    async def test_get_a_new_request_id_for_one_that_is_not_sane(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, bad: str
    ) -> None:
        await gateway.route(replica)

        answer = await gateway.ask("/v2/models/m/infer", f"x-request-id: {bad}")

        assert answer.field("x-request-id") not in ("", bad)

    async def test_give_every_request_another_id(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        ids = {(await client.ask()).field("x-request-id") for _ in range(20)}

        assert len(ids) == 20

    async def test_pass_on_what_is_left_of_the_time(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/infer", "x-request-timeout-ms: 2000")

        (left,) = replica.calls[0].field("x-request-timeout-ms")
        assert 1000 < int(left) <= 2000

    async def test_of_the_answer_come_back_with_timings(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def teapot(call: Call) -> None:
            call.answer(b"short", b"418 Teapot", b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"Keep-Alive: timeout=1")

        replica.script = teapot
        await gateway.route(replica)

        answer = await gateway.ask()

        assert (answer.status, answer.body) == (418, b"short")
        assert [value for name, value in answer.fields if name == "set-cookie"] == ["a=1", "b=2"]
        assert answer.field("server-timing").startswith("queue;dur=")
        assert answer.field("keep-alive") == ""


class TestErrors:
    @pytest.mark.parametrize(
        ("target", "status", "code"),
        [
            ("/v2/models/none/infer", 404, "MODEL_NOT_FOUND"),
            ("/v2/models/m/versions/9/infer", 404, "VERSION_NOT_FOUND"),
            ("/v1/models/m/labels/none:predict", 404, "VERSION_NOT_FOUND"),
            ("/nothing", 404, "NOT_FOUND"),
            ("/models/m/../x", 400, "BAD_REQUEST"),
        ],
    )
    async def test_are_json_with_code_and_request_id_and_keep_the_connection(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, target: str, status: int, code: str
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        answer = await client.ask(target, "x-request-id: my-id", body=b"tensor")

        assert (answer.status, answer.code, answer.json["request_id"]) == (status, code, "my-id")
        assert (await client.ask()).status == 200

    async def test_name_a_timeout_that_is_no_number(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)

        answer = await gateway.ask("/v2/models/m/infer", "x-request-timeout-ms: soon")

        assert (answer.status, "'soon'" in answer.json["error"]) == (400, True)

    async def test_refuse_a_websocket_clearly(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)

        answer = await gateway.ask("/models/m/x", "connection: upgrade", "upgrade: websocket", method="GET")

        assert (answer.status, answer.code) == (501, "NOT_SUPPORTED")

    async def test_of_a_head_request_have_no_body(self, gateway: GatewayUnderTest) -> None:
        client = await gateway.connect()
        client.send(request("/v2/models/none", method="HEAD") + request("/v2/health/live", method="GET"))

        refused, live = await client.answer(is_head=True), await client.answer()

        assert (refused.status, live.status) == (503, 200)

    @pytest.mark.parametrize("line", ["expect: tea", "x: a\nb", "a b"])
    async def test_of_a_head_request_that_cannot_be_read_have_no_body(
        self, gateway: GatewayUnderTest, line: str
    ) -> None:
        """A body would be the next answer to whoever reads it as HEAD's."""
        client = await gateway.connect()
        client.request("/v2/models/m", line, method="HEAD")

        raw = await client.closed()

        assert raw.startswith(b"HTTP/1.1 4")
        assert raw.endswith(b"\r\n\r\n")


class TestOwnPaths:
    async def test_describe_the_server(self, gateway: GatewayUnderTest) -> None:
        answer = await gateway.ask("/v2", method="GET")

        assert answer.json["name"] == "modelfleet-gateway"
        assert set(answer.json) == {"name", "version", "extensions"}

    async def test_are_live_at_once_and_ready_with_a_table(self, gateway: GatewayUnderTest) -> None:
        statuses = [(await gateway.ask(f"/v2/health/{what}", method="GET")).status for what in ("live", "ready")]
        await gateway.table()

        assert statuses == [200, 503]
        assert (await gateway.ask("/v2/health/ready", method="GET")).status == 200

    async def test_pass_a_models_readiness_to_its_replica(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)

        assert (await gateway.ask("/v2/models/m/ready", method="GET")).status == 200
        assert replica.calls[0].target == b"/v2/models/m/ready"

    async def test_say_at_once_that_a_model_without_replicas_is_not_ready(self, gateway: GatewayUnderTest) -> None:
        await gateway.route(state="starting")

        answer = await gateway.ask("/v2/models/m/ready", method="GET")

        assert (answer.status, answer.code) == (503, "NOT_READY")
        assert "starting" in answer.json["error"]


class TestPrivatePort:
    async def test_shows_metrics_of_what_was_served(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)
        await gateway.ask()
        await gateway.ask("/v2/models/none/infer")

        text = (await gateway.admin("/metrics")).body.decode()

        assert 'modelfleet_requests_total{model="m",version="1",code="200"} 1' in text
        assert 'modelfleet_requests_total{model="",version="",code="404"} 1' in text
        assert 'modelfleet_request_seconds_count{model="m",version="1"} 1' in text

    async def test_reports_for_the_control_plane(self, gateway: GatewayUnderTest) -> None:
        await gateway.table()

        report = (await gateway.admin("/report")).json

        assert (report["tag"], report["in_flight"], report["draining"]) == ("test:1", {}, False)

    async def test_answers_health_and_state_and_nothing_else(self, gateway: GatewayUnderTest) -> None:
        assert (await gateway.admin("/healthz")).json == {"status": "ok"}
        assert (await gateway.admin("/debug/state")).json["connections"] == 0
        assert (await gateway.admin("/v2/models/m/infer")).status == 404

    async def test_every_metric_is_documented(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        """Names, kinds and labels are a contract: docs/BEHAVIOUR.md has them all."""
        documented = (Path(__file__).parents[2] / "docs" / "BEHAVIOUR.md").read_text()
        rows = [row for row in documented.splitlines() if row.startswith("| `modelfleet_")]
        live, copied = (VersionRoute((Endpoint(name, "127.0.0.1", replica.port),)) for name in "ab")
        await gateway.table(m=ModelRoute({"1": live, "2": copied}, {"1": 1}, shadow=Shadow("2")))
        await gateway.ask()

        text = (await gateway.admin("/metrics")).body.decode()

        kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE "))
        assert {"modelfleet_ejections_total", "modelfleet_shadow_total"} <= kinds.keys()
        assert {name: kind for name, kind in kinds.items() if not _row_of(name, kind, rows)} == {}

    @pytest.mark.parametrize("path", ["/metrics", "/report", "/debug/state"])
    async def test_is_not_reached_through_the_public_one(self, gateway: GatewayUnderTest, path: str) -> None:
        assert (await gateway.ask(path, method="GET")).status == 404


def _row_of(name: str, kind: str, rows: list[str]) -> bool:
    return any(f"`{name}`" in row and f"| {kind} |" in row for row in rows)
