"""Asks a server with kserve's own client, in an environment of that client's, and prints what it got as JSON.

`python kserve_client.py URL ADDRESS`, ADDRESS being gRPC's: run by tests/integration/test_kserve_client.py, which knows what has to come.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]
DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


def tensor(name: str, values: Any, datatype: str, *, is_binary: bool) -> Any:
    made = InferInput(name=name, shape=list(values.shape), datatype=datatype)
    made.set_data_from_numpy(values, binary_data=is_binary)
    return made


async def predict(client: Any, url: str, *, is_binary: bool) -> Any:
    outputs = [RequestedOutput(name, {"binary_data": is_binary}) for name in ("predict", "predict_proba")]
    request = InferRequest(
        model_name="iris",
        infer_inputs=[tensor("x", np.array(ROWS), "FP64", is_binary=is_binary)],
        request_id="7",
        parameters={"k": 1},
        request_outputs=outputs,
    )
    answer = await client.infer(url, request, model_name="iris")
    return [answer.id, *(answer.get_output_by_name(each.name).as_numpy().tolist() for each in outputs)]


async def echoes(client: Any, url: str) -> list[str]:
    """The datatypes that came back as they were sent, as binary data."""
    same = []
    for datatype, dtype in DATATYPES.items():
        bits = np.random.default_rng(0).integers(0, 2 if datatype == "BOOL" else 256, 48, np.uint8)
        values = bits.view(dtype).reshape(2, 3, -1)
        request = InferRequest(
            model_name="echo",
            infer_inputs=[tensor("x", values, datatype, is_binary=True)],
            parameters={"binary_data_output": True},
        )
        got = (await client.infer(url, request, model_name="echo")).get_output_by_name("x")
        if got.datatype == datatype and got.as_numpy().tobytes() == values.tobytes():
            same.append(datatype)
    return same


async def strings(client: Any, url: str) -> Any:
    values = np.array(["", "é", "text"], dtype=object)
    request = InferRequest(
        model_name="echo",
        infer_inputs=[tensor("x", values, "BYTES", is_binary=True)],
        parameters={"binary_data_output": True},
    )
    got = (await client.infer(url, request, model_name="echo")).get_output_by_name("x")
    return got.as_numpy().tolist()


async def refusal(asked: Awaitable[Any]) -> str:
    try:
        await asked
    except httpx.HTTPStatusError as exc:
        return str(exc)
    return "answered"


async def over_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        answers = {}
        for is_raw in (False, True):
            values = tensor("x", np.array(ROWS), "FP64", is_binary=is_raw)
            answer = await client.infer(InferRequest(model_name="iris", infer_inputs=[values], request_id="7"))
            outputs = {each.name: each.as_numpy() for each in answer.outputs}
            labels = [each.decode() if isinstance(each, bytes) else each for each in outputs["predict"].tolist()]
            answers["raw" if is_raw else "typed"] = [answer.id, labels]
        try:
            await client.infer(InferRequest(model_name="nobody", infer_inputs=[values]))
        except grpc.RpcError as exc:
            answers["refused"] = f"{exc.code().name}: {exc.details()}"
        ready = [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready("iris")]
        return {**answers, "ready": ready}


async def main(url: str, address: str) -> dict[str, Any]:
    wrong = InferRequest(model_name="iris", infer_inputs=[tensor("x", np.zeros((1, 3)), "FP64", is_binary=True)])
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        said = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model ready": await client.is_model_ready(url, "iris"),
            "no model ready": await client.is_model_ready(url, "nobody"),
            "json": await predict(client, url, is_binary=False),
            "binary": await predict(client, url, is_binary=True),
            "echoed": await echoes(client, url),
            "strings": await strings(client, url),
            "refused": await refusal(client.infer(url, wrong, model_name="iris")),
        }
    said["grpc"] = await over_grpc(address)
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        return {**said, "v1": await client.infer(url, {"instances": ROWS}, model_name="iris")}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
