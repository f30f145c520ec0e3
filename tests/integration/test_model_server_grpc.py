"""gRPC as clients speak it, through a real gateway to real model servers: tritonclient, sync, asyncio and streaming."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http as triton_http
from google.protobuf.unknown_fields import UnknownFieldSet
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from tests.fakes import models
from tests.fakes.replica import free_port, ready_replica
from tests.fakes.serving import gateway

ECHO = """
class Model:
    def load(self, path): ...
    def predict(self, inputs): return inputs
"""
COUNT = """
import numpy as np

class Model:
    inputs = [{"name": "n", "datatype": "INT64", "shape": [-1]}]
    outputs = [{"name": "i", "datatype": "INT64", "shape": [-1]}]

    def load(self, path): ...

    def predict_stream(self, inputs):
        for i in range(int(inputs["n"][0])):
            if i == 3:
                raise ValueError("three is too many")
            yield {"i": np.array([i])}
"""
DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


class Addresses(NamedTuple):
    grpc: str
    http: str


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Of a gateway before three models."""
    directory, port = tmp_path_factory.mktemp("grpc"), free_port()
    with (
        ready_replica(models.iris(directory / "iris", named_classes=True)) as iris,
        ready_replica(models.python(directory / "echo", ECHO), backend="python", model="echo") as echo,
        ready_replica(models.python(directory / "count", COUNT), backend="python", model="count") as count,
        gateway(directory, iris, echo, count, grpc_port=port) as url,
    ):
        yield Addresses(f"127.0.0.1:{port}", url.removeprefix("http://"))


@pytest.fixture
def client(addresses: Addresses) -> Iterator[Any]:
    with triton.InferenceServerClient(addresses.grpc) as client:
        yield client


@pytest.fixture
def stub(addresses: Addresses) -> Iterator[Any]:
    """The published service, for what tritonclient does not send."""
    with grpc.insecure_channel(addresses.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def tensor(name: str, values: Any, datatype: str) -> Any:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def rows(count: int = 5) -> Any:
    return np.random.default_rng(0).uniform(0, 8, (count, 4))


def bits(datatype: str, shape: tuple[int, ...] = (2, 3, 4)) -> Any:
    dtype = np.dtype(DATATYPES[datatype])
    size = int(np.prod(shape)) * dtype.itemsize
    return (
        np.random.default_rng(0)
        .integers(0, 2 if datatype == "BOOL" else 256, size, np.uint8)
        .view(dtype)
        .reshape(shape)
    )


class TestTritonClient:
    def test_reads_health_and_metadata(self, client: Any) -> None:
        metadata = client.get_model_metadata("iris")

        assert (client.is_server_live(), client.is_server_ready()) == (True, True)
        assert (client.is_model_ready("iris"), client.is_model_ready("iris", "1")) == (True, True)
        assert client.get_server_metadata().name == "modelfleet-gateway"
        assert (metadata.name, list(metadata.versions), metadata.platform) == (
            "iris", ["1"], "sklearn_LogisticRegression",
        )  # fmt: skip
        assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [("x", "FP64", [-1, 4])]

    def test_lists_all_models(self, client: Any) -> None:
        index = client.get_model_repository_index()

        assert [(each.name, each.version, each.state) for each in index.models] == [
            (name, "1", "READY") for name in ("count", "echo", "iris")
        ]

    def test_predicts_what_the_model_itself_predicts(self, client: Any) -> None:
        wanted = [triton.InferRequestedOutput(name) for name in ("predict", "predict_proba")]

        answer = client.infer("iris", [tensor("x", rows(), "FP64")], outputs=wanted, request_id="7")

        direct = models.iris_estimator(named_classes=True)
        assert answer.get_response().id == "7"
        assert [each.decode() for each in answer.as_numpy("predict")] == direct.predict(rows()).tolist()
        np.testing.assert_array_equal(answer.as_numpy("predict_proba"), direct.predict_proba(rows()))

    def test_predicts_for_parameters_that_the_model_does_not_take(self, client: Any) -> None:
        answer = client.infer(
            "iris", [tensor("x", rows(1), "FP64")], model_version="1", sequence_id=7, sequence_start=True, priority=1,
            timeout=1_000_000, parameters={"threshold": 0.5},
        )  # fmt: skip

        assert answer.as_numpy("predict").shape == (1,)

    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_carries_every_datatype_as_rest_does_in_binary(
        self, addresses: Addresses, client: Any, datatype: str
    ) -> None:
        values = bits(datatype)
        other = triton_http.InferInput("x", list(values.shape), datatype)
        other.set_data_from_numpy(values, binary_data=True)

        ours = client.infer("echo", [tensor("x", values, datatype)]).as_numpy("x")
        with triton_http.InferenceServerClient(addresses.http) as http:
            theirs = http.infer("echo", [other], outputs=[triton_http.InferRequestedOutput("x", binary_data=True)])

        assert ours.tobytes() == theirs.as_numpy("x").tobytes() == values.tobytes()
        assert (ours.dtype, ours.shape) == (values.dtype, values.shape)

    def test_carries_strings_and_bf16(self, client: Any) -> None:
        strings = np.array(["", "é", b"\xff\x00"], dtype=object)
        halves = np.array([1.0, -2.5, 3.0], ml_dtypes.bfloat16)

        echoed = client.infer("echo", [tensor("x", strings, "BYTES")]).as_numpy("x").tolist()
        wide = client.infer("echo", [tensor("x", halves, "BF16")])

        assert echoed == [b"", "é".encode(), b"\xff\x00"]
        # A model computes with FP32, and one that does not say otherwise gives it back.
        assert wide.get_response().outputs[0].datatype == "FP32"
        assert wide.as_numpy("x").tolist() == [1.0, -2.5, 3.0]

    @pytest.mark.parametrize("count", [100_000, 2_000_000])
    def test_carries_large_tensors(self, client: Any, count: int) -> None:
        values = np.random.default_rng(0).random(count, np.float32)

        echoed = client.infer("echo", [tensor("x", values, "FP32")]).as_numpy("x")

        assert echoed.tobytes() == values.tobytes()

    @pytest.mark.parametrize(
        ("model", "values", "said"),
        [
            ("nobody", rows(), "[StatusCode.NOT_FOUND] model 'nobody' is not served here; models: count, echo, iris"),
            (
                "iris",
                np.zeros((1, 3)),
                "[StatusCode.INVALID_ARGUMENT] input 'x': shape [1, 3]; the model wants [-1, 4]",
            ),
            ("count", np.zeros(1, np.int64), "[StatusCode."),
        ],
    )
    def test_is_told_what_is_wrong(self, client: Any, model: str, values: Any, said: str) -> None:
        with pytest.raises(InferenceServerException) as caught:
            client.infer(model, [tensor("x", values, "INT64" if values.dtype == np.int64 else "FP64")])

        assert str(caught.value).startswith(said)

    async def test_works_with_asyncio(self, addresses: Addresses) -> None:
        async with triton_aio.InferenceServerClient(addresses.grpc) as client:
            answers = [await client.infer("echo", [tensor("x", np.arange(n), "INT64")]) for n in range(1, 5)]

        assert [answer.as_numpy("x").tolist() for answer in answers] == [list(range(n)) for n in range(1, 5)]


class TestTypedContents:
    @pytest.mark.parametrize(
        ("datatype", "field", "values"),
        [
            ("INT32", "int_contents", [1, -2, 3]), ("UINT64", "uint64_contents", [2**63]), ("BOOL", "bool_contents", [True]),
            ("FP64", "fp64_contents", [0.5, -1.5]), ("BYTES", "bytes_contents", [b"a", b"\xff"]),
        ],
    )  # fmt: skip
    def test_are_answered_in_kind(self, stub: Any, datatype: str, field: str, values: list[Any]) -> None:
        request = service_pb2.ModelInferRequest(model_name="echo")
        tensor = request.inputs.add(name="x", datatype=datatype, shape=[len(values)])
        getattr(tensor.contents, field).extend(values)

        answer = stub.ModelInfer(request)

        assert list(getattr(answer.outputs[0].contents, field)) == values
        assert answer.raw_output_contents == []


class TestStream:
    def test_of_a_model_that_does_not_stream_is_one_answer_for_each_request(self, client: Any) -> None:
        answers = self.streamed(client, [("echo", tensor("x", np.array([n]), "INT64")) for n in range(20)])

        assert [answer.as_numpy("x").tolist() for answer, _ in answers] == [[n] for n in range(20)]
        assert answers[0][0].get_response().parameters["triton_final_response"].bool_param is True

    def test_of_a_model_that_streams_is_what_it_yields(self, client: Any) -> None:
        answers = self.streamed(client, [("count", tensor("n", np.array([2]), "INT64"))] * 2)

        assert [answer.as_numpy("i").tolist() for answer, _ in answers] == [[0], [1], [0], [1]]

    def test_tells_the_end_to_who_asks_for_it(self, client: Any) -> None:
        answers = self.streamed(
            client, [("count", tensor("n", np.array([2]), "INT64"))], enable_empty_final_response=True
        )

        finals = [answer.get_response().parameters["triton_final_response"].bool_param for answer, _ in answers]
        assert finals == [False, False, True]

    def test_goes_on_after_what_failed(self, client: Any) -> None:
        wrong = tensor("x", np.zeros(1), "FP64")

        answers = self.streamed(
            client, [("count", tensor("n", np.array([9]), "INT64")), ("iris", wrong), ("echo", wrong)], is_numbered=True
        )

        said = [(answer.get_response().id if answer else "", str(error or "")) for answer, error in answers]
        assert [number for number, error in said if not error] == ["0", "0", "0", "2"]
        assert [error.split(";")[0] for _, error in said if error] == [
            "the model refused the input: ValueError: three is too many",
            "input 'x': shape [1]",
        ]

    @staticmethod
    def streamed(client: Any, requests: list[Any], *, is_numbered: bool = False, **options: Any) -> list[Any]:
        """Answer and error of each message, in order."""
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number, (model, each) in enumerate(requests):
            client.async_stream_infer(model, [each], request_id=str(number) if is_numbered else "", **options)
        client.stop_stream()
        return list(answers.queue)


def test_every_method_of_the_published_service_that_we_serve_is_its_own(stub: Any) -> None:
    """Held to the published descriptors: names, and the messages that each takes and gives."""
    service = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    asked = {
        "ServerLive": {}, "ServerReady": {}, "ServerMetadata": {}, "RepositoryIndex": {},
        "ModelReady": {"name": "iris"}, "ModelMetadata": {"name": "iris"},
    }  # fmt: skip

    for name, fields in asked.items():
        method = service.methods_by_name[name]
        answer = getattr(stub, name)(getattr(service_pb2, method.input_type.name)(**fields))
        assert len(UnknownFieldSet(answer)) == 0
        assert type(answer).__name__ == method.output_type.name
