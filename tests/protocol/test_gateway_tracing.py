"""What a request leaves behind: the trace it belongs to, and its line in the access log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.fakes.gateway import GatewayUnderTest
from tests.fakes.scripted_replica import Call, ScriptedReplica

from .conftest import StartGateway

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def flush(gateway: GatewayUnderTest) -> None:
    assert gateway.gateway.access_log is not None
    gateway.gateway.access_log.flush()


class TestTraceparent:
    async def test_of_the_client_is_passed_on(self, gateway: GatewayUnderTest, replica: ScriptedReplica) -> None:
        await gateway.route(replica)

        await gateway.ask("/v2/models/m/infer", f"traceparent: {PARENT}", "tracestate: a=b")

        assert (replica.calls[0].field("traceparent"), replica.calls[0].field("tracestate")) == ([PARENT], ["a=b"])

    @pytest.mark.parametrize(
        "bad", ["", "x", PARENT.upper(), "ff" + PARENT[2:], "00-" + "0" * 32 + PARENT[35:], PARENT + "x"]
    )
    async def test_is_made_when_there_is_no_valid_one(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica, bad: str
    ) -> None:
        await gateway.route(replica)
        client = await gateway.connect()

        for _ in range(2):
            await client.ask("/v2/models/m/infer", *([f"traceparent: {bad}"] if bad else []))

        made = [call.field("traceparent")[0] for call in replica.calls]
        assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", value) for value in made)
        assert made[0] != made[1]


class TestAccessLog:
    async def test_has_a_line_for_each_request_without_its_secrets(
        self, start_gateway: StartGateway, tmp_path: Path
    ) -> None:
        async def busy(call: Call) -> None:
            await call.completed.wait()
            call.answer(b"answer")

        path = tmp_path / "access.log"
        async with ScriptedReplica(busy) as replica, ScriptedReplica() as gone:
            await gone.stop()
            gateway = await start_gateway(access_log=str(path))
            await gateway.route(replica)
            await gateway.ask(
                "/v2/models/m/infer?key=secret", "authorization: Bearer secret", "x-request-id: r1", body=b"secret"
            )
            await gateway.ask("/v2/models/none/infer", "x-request-id: r2")
            await gateway.ask("/v2/models/m/infer", "x-request-id: r3", "transfer-encoding: gzip", method="PUT")
            flush(gateway)

        text = path.read_text()
        good, unknown, broken = (json.loads(line) for line in text.splitlines())
        assert "secret" not in text
        assert good.items() >= {
            "request_id": "r1", "client": "127.0.0.1", "model": "m", "version": "1", "replica": "r0", "status": 200,
            "body_bytes": 6, "answer_bytes": 6, "retries": 0, "method": "POST", "path": "/v2/models/m/infer",
        }.items()  # fmt: skip
        assert good["total_ms"] >= good["model_ms"] > 0
        assert unknown.items() >= {"request_id": "r2", "status": 404, "code": "MODEL_NOT_FOUND"}.items()
        assert broken.items() >= {"status": 501, "code": "NOT_SUPPORTED"}.items()

    async def test_counts_retries_and_names_the_replica_that_answered(
        self, start_gateway: StartGateway, tmp_path: Path
    ) -> None:
        path = tmp_path / "access.log"
        async with ScriptedReplica() as gone, ScriptedReplica() as good:
            await gone.stop()
            gateway = await start_gateway(access_log=str(path))
            await gateway.route(gone, good)
            for _ in range(8):
                await gateway.ask()
            flush(gateway)

        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert {line["replica"] for line in lines} == {"r1"}
        assert sum(line["retries"] for line in lines) >= 1
