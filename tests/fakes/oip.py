"""The Open Inference Protocol over gRPC, on both sides of a gateway: clients, and a replica's script.

Messages are tritonclient's own, so that what is sent and read here is not of our making.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import InferInput, service_pb2
from tritonclient.grpc import aio as triton

from tests.fakes.scripted_replica import Call

SERVICE = "/inference.GRPCInferenceService/"
METADATA = (
    b'{"name":"m","versions":["1"],"platform":"test","inputs":[{"name":"x","datatype":"FP32","shape":[-1,2]}],'
    b'"outputs":[{"name":"y","datatype":"FP32","shape":[-1]}],"parameters":{"batching":{"max_size":1}}}'
)
# Each channel its own connection: by default one process shares them.
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


async def serve(call: Call) -> None:
    """A replica that gives each input back as an output of the same name, twice in a stream."""
    await call.completed.wait()
    if call.method == b"GET":
        call.answer(METADATA, b"200 OK", b"content-type: application/json")
        return
    answer = echoed(call.body)
    if call.target.endswith(b"/infer_stream"):
        message = framed(service_pb2.ModelStreamInferResponse(infer_response=answer))
        call.answer(message * 2, b"200 OK", b"content-type: application/x-protobuf-stream")
    else:
        call.answer(answer.SerializeToString(), b"200 OK", b"content-type: application/x-protobuf")


def echoed(body: bytes) -> Any:
    request = service_pb2.ModelInferRequest.FromString(body)
    answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
    for sent in request.inputs:
        answer.outputs.add(name=sent.name, datatype=sent.datatype, shape=sent.shape)
    answer.raw_output_contents.extend(request.raw_input_contents)
    return answer


def framed(message: Any) -> bytes:
    data = message.SerializeToString()
    return len(data).to_bytes(4, "big") + data


def rows(count: int = 1) -> InferInput:
    tensor = InferInput("x", [count, 2], "FP32")
    tensor.set_data_from_numpy(np.arange(2 * count, dtype=np.float32).reshape(count, 2))
    return tensor


def request(model: str = "m", count: int = 1, **fields: Any) -> Any:
    message = service_pb2.ModelInferRequest(model_name=model, **fields)
    message.inputs.add(name="x", datatype="FP32", shape=[count, 2])
    message.raw_input_contents.append(np.arange(2 * count, dtype=np.float32).tobytes())
    return message


class OipClient:
    """One connection to a gateway's gRPC port, by bytes and by tritonclient."""

    def __init__(self, port: int | None, channel: grpc.aio.Channel | None = None) -> None:
        self.channel = channel or grpc.aio.insecure_channel(f"127.0.0.1:{port}", OPTIONS)
        self._streams: list[Any] = []
        self.triton = triton.InferenceServerClient(f"127.0.0.1:{port}", channel_args=OPTIONS)

    async def ask(self, method: str = "ModelInfer", message: Any = None, **options: Any) -> Any:
        """The answer's message; raises `grpc.aio.AioRpcError`."""
        answer, _ = await self.ask_with_trailers(method, message, **options)
        return answer

    async def ask_with_trailers(
        self, method: str = "ModelInfer", message: Any = None, **options: Any
    ) -> tuple[Any, dict[str, str]]:
        call = self._method(method)(request() if message is None else message, **{"timeout": 20, **options})
        answer = await call
        return answer, {str(name): str(value) for name, value in await call.trailing_metadata()}

    async def refusal(self, method: str = "ModelInfer", message: Any = None, **options: Any) -> grpc.aio.AioRpcError:
        try:
            await self.ask(method, message, **options)
        except grpc.aio.AioRpcError as error:
            return error.with_traceback(None)  # whose frames keep the call, and so its connection
        raise AssertionError("it was answered")

    def stream(self, requests: Any = None, **options: Any) -> Any:
        """ModelStreamInfer; without `requests` the caller writes them."""
        open_stream = self.channel.stream_stream(
            SERVICE + "ModelStreamInfer", _bytes, service_pb2.ModelStreamInferResponse.FromString
        )
        self._streams.append(open_stream(requests, **options))
        return self._streams[-1]

    async def close(self) -> None:
        while self._streams:  # who keeps one keeps its connection open
            self._streams.pop().cancel()
        await self.channel.close()
        await self.triton.close()

    def _method(self, name: str) -> Callable[..., Any]:
        path = name if name.startswith("/") else SERVICE + name
        kind = getattr(service_pb2, f"{path.rpartition('/')[2]}Response", None)
        return self.channel.unary_unary(path, _bytes, kind.FromString if kind is not None else bytes)


def _bytes(message: Any) -> bytes:
    return message if isinstance(message, bytes) else bytes(message.SerializeToString())
