"""Clients that we did not write, as people use them."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import httpx
import numpy as np
import requests
from tritonclient.http import InferenceServerClient, InferInput

from tests.fakes.gateway import GatewayUnderTest
from tests.fakes.scripted_replica import Call, ScriptedReplica

OUTPUT = {"name": "y", "datatype": "INT64", "shape": [1], "data": [7]}


async def model(call: Call) -> None:
    """Answers as the Open Inference Protocol says."""
    await call.completed.wait()
    if call.target.endswith(b"/ready"):
        call.answer()
    elif call.method == b"GET":
        call.answer(json.dumps({"name": "m", "versions": ["1"], "platform": "x", "inputs": [], "outputs": []}).encode())
    else:
        call.answer(json.dumps({"model_name": "m", "outputs": [OUTPUT]}).encode())


class TestTritonClient:
    async def test_asks_for_health_metadata_and_a_prediction(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        replica.script = model
        await gateway.route(replica)

        def run() -> tuple[bool, bool, bool, str, list[int]]:
            client = InferenceServerClient(f"127.0.0.1:{gateway.port}")
            tensor = InferInput("x", [1, 1], "FP64")
            tensor.set_data_from_numpy(np.array([[1.0]]), binary_data=False)
            answer = client.infer("m", [tensor], model_version="1")
            client.close()
            fresh = InferenceServerClient(f"127.0.0.1:{gateway.port}")
            try:
                return (
                    fresh.is_server_live(), fresh.is_server_ready(), fresh.is_model_ready("m"),
                    fresh.get_model_metadata("m")["name"], answer.as_numpy("y").tolist(),
                )  # fmt: skip
            finally:
                fresh.close()

        assert await asyncio.to_thread(run) == (True, True, True, "m", [7])


class TestPythonClients:
    async def test_of_requests_reuse_their_connection(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        await gateway.route(replica)

        def run() -> list[bytes]:
            with requests.Session() as session:
                session.trust_env = False
                url = f"http://127.0.0.1:{gateway.port}/models/m/x"
                return [session.post(url, data=b"tensor").content for _ in range(3)]

        assert await asyncio.to_thread(run) == [b"tensor"] * 3

    async def test_of_httpx_and_aiohttp_send_chunks_and_read_them(
        self, gateway: GatewayUnderTest, replica: ScriptedReplica
    ) -> None:
        async def pieces() -> object:
            for piece in (b"ten", b"sor"):
                yield piece

        await gateway.route(replica)
        url = f"http://127.0.0.1:{gateway.port}/models/m/x"

        async with httpx.AsyncClient(trust_env=False) as client:
            first = await client.post(url, content=pieces())  # type: ignore[arg-type]
        async with aiohttp.ClientSession() as session, session.post(url, data=pieces()) as second:
            assert (first.content, await second.read()) == (b"tensor", b"tensor")
