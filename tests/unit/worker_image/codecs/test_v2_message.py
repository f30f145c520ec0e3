"""Messages against those of tritonclient, which are the published ones: nothing here is read or written by us alone."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from worker_image.server.bfloat16 import BF16
from worker_image.server.codecs import v2_message
from worker_image.server.codecs.call import Reply
from worker_image.server.codecs.v2_message import MessageStream, Request
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NUMPY_TYPES, Tensor, Tensors

TYPED = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)
STRINGS = st.lists(st.text(max_size=5) | st.binary(max_size=5), min_size=1, max_size=6)


def message(*inputs: tuple[str, str, list[int]], raw: list[bytes] | None = None, **fields: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name="m", **fields)
    for name, datatype, shape in inputs:
        request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.extend(raw or [])
    return request


def decode(request: Any) -> Request:
    return v2_message.decode(memoryview(bytearray(request.SerializeToString())))


def answer(reply: Reply) -> Any:
    assert reply.content_type == b"application/x-protobuf"
    return service_pb2.ModelInferResponse.FromString(b"".join((reply.body, *reply.parts)))


def encode(request: Request, **outputs: Tensor) -> Any:
    return answer(v2_message.encode("m", "1", request, outputs))


@st.composite
def numbers(draw: st.DrawFn, datatypes: tuple[str, ...] = tuple(sorted(set(NUMPY_TYPES) - {"BYTES", "BF16"}))) -> Any:
    datatype = draw(st.sampled_from(datatypes))
    return datatype, draw(hnp.arrays(NUMPY_TYPES[datatype], SHAPES))


class TestRaw:
    @given(st.lists(numbers(), min_size=1, max_size=3))
    def test_tensors_come_and_go_bit_by_bit(self, tensors: list[tuple[str, Tensor]]) -> None:
        inputs = [(str(at), datatype, list(tensor.shape)) for at, (datatype, tensor) in enumerate(tensors)]
        request = decode(message(*inputs, raw=[tensor.tobytes() for _, tensor in tensors]))

        response = encode(request, **request.decoded.inputs)

        read = list(request.decoded.inputs.values())
        assert [(each.dtype, each.shape, each.tobytes()) for each in read] == [
            (tensor.dtype, tensor.shape, tensor.tobytes()) for _, tensor in tensors
        ]
        assert [(each.name, each.datatype, list(each.shape)) for each in response.outputs] == inputs
        assert list(response.raw_output_contents) == [tensor.tobytes() for _, tensor in tensors]

    def test_bf16_is_carried_as_it_is(self) -> None:
        request = decode(message(("x", "BF16", [2]), raw=[b"\x80\x3f\x00\x40"]))

        assert request.decoded.inputs["x"].dtype == BF16
        assert encode(request, y=request.decoded.inputs["x"]).raw_output_contents[0] == b"\x80\x3f\x00\x40"

    @given(STRINGS)
    def test_strings_are_those_of_tritonclient(self, values: list[str | bytes]) -> None:
        content = serialize_byte_tensor(np.array(values, object)).item()
        request = decode(message(("x", "BYTES", [len(values)]), raw=[content]))

        response = encode(request, y=request.decoded.inputs["x"])

        sent = [value.encode() if isinstance(value, str) else value for value in values]
        assert deserialize_bytes_tensor(response.raw_output_contents[0]).tolist() == sent
        assert all(isinstance(value, str) or not _is_text(value) for value in request.decoded.inputs["x"])

    def test_tensors_may_be_written_to(self) -> None:
        request = decode(message(("x", "FP32", [2]), raw=[struct.pack("<2f", 1, 2)]))

        request.decoded.inputs["x"][0] = 5

        assert request.decoded.inputs["x"].tolist() == [5, 2]

    def test_a_large_answer_is_not_joined(self) -> None:
        request = decode(message(("x", "FP32", [1]), raw=[b"\0" * 4]))
        tensor = np.zeros(100_000, np.float32)

        reply = v2_message.encode("m", "1", request, {"y": tensor})

        assert any(np.shares_memory(np.frombuffer(part, np.uint8), tensor) for part in reply.parts)
        assert len(answer(reply).raw_output_contents[0]) == tensor.nbytes


class TestTyped:
    @given(numbers(tuple(TYPED)))
    def test_contents_come_and_go(self, tensor: tuple[str, Tensor]) -> None:
        datatype, values = tensor
        request = message(("x", datatype, list(values.shape)))
        getattr(request.inputs[0].contents, TYPED[datatype]).extend(values.ravel().tolist())

        read = decode(request)
        response = encode(read, y=values)

        assert (read.is_raw, read.decoded.inputs["x"].dtype) == (False, values.dtype)
        np.testing.assert_array_equal(read.decoded.inputs["x"], values)
        assert response.raw_output_contents == []
        given_back = np.array(getattr(response.outputs[0].contents, TYPED[datatype]), values.dtype)
        np.testing.assert_array_equal(given_back.reshape(values.shape), values)

    @given(STRINGS)
    def test_strings_too(self, values: list[str | bytes]) -> None:
        sent = [value.encode() if isinstance(value, str) else value for value in values]
        request = message(("x", "BYTES", [len(sent)]))
        request.inputs[0].contents.bytes_contents.extend(sent)

        read = decode(request)

        assert list(encode(read, y=read.decoded.inputs["x"]).outputs[0].contents.bytes_contents) == sent

    @given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5))
    def test_numbers_one_by_one_are_the_same_as_packed(self, values: list[float]) -> None:
        """An old writer does not pack, and one message in two pieces is one."""
        contents = b"".join(b"\x35" + struct.pack("<f", value) for value in values)
        tensor = b"\x0a\x01x\x12\x04FP32\x1a\x01" + bytes([len(values)]) + b"\x2a" + bytes([len(contents)]) + contents
        body = b"\x2a" + bytes([len(tensor)]) + tensor

        read = v2_message.decode(memoryview(bytearray(body)))

        assert read.decoded.inputs["x"].tolist() == values

    @pytest.mark.parametrize(
        ("field", "datatype", "number"), [("int_contents", "INT8", -129), ("uint_contents", "UINT16", 65_536)]
    )
    def test_a_number_out_of_range_is_refused(self, field: str, datatype: str, number: int) -> None:
        request = message(("x", datatype, [1]))
        getattr(request.inputs[0].contents, field).append(number)

        with pytest.raises(RequestError, match=f"input 'x': a number is out of the range of {datatype}"):
            decode(request)

    def test_an_answer_of_half_precision_goes_raw(self) -> None:
        request = message(("x", "FP32", [1]))
        request.inputs[0].contents.fp32_contents.append(1.0)

        response = encode(decode(request), y=np.ones(2, np.float16), z=np.ones(1, np.float32))

        assert [len(each) for each in response.raw_output_contents] == [4, 4]


class TestRequest:
    def test_says_what_is_wanted(self) -> None:
        request = message(("x", "FP32", [1]), raw=[b"\0" * 4], id="7")
        request.outputs.add(name="y")
        for name, value in {"a": True, "b": -3, "c": "text"}.items():
            kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
            setattr(request.parameters[name], kind, value)
        request.parameters["d"].double_param = 0.5
        request.parameters["e"].uint64_param = 2**63

        decoded = decode(request).decoded

        assert (decoded.id, decoded.outputs) == ("7", ("y",))
        assert decoded.parameters == {"a": True, "b": -3, "c": "text", "d": 0.5, "e": 2**63}
        assert encode(decode(request), y=np.ones(1, np.float32)).id == "7"

    @pytest.mark.parametrize(
        ("request_", "what"),
        [
            (message(("x", "FP32", [2]), raw=[b"\0" * 4]), "input 'x': 4 bytes of data; datatype FP32 and shape"),
            (message(("x", "FP32", [-1]), raw=[b"\0" * 4]), "input 'x': shape \\[-1\\]; a request says real lengths"),
            (message(("x", "FP99", [1]), raw=[b"\0" * 4]), "input 'x': datatype 'FP99'; it is one of BOOL, "),
            (message(("x", "FP32", [1])), "input 'x': 0 values in its contents; shape \\[1\\] means 1"),
            (message(("x", "FP16", [1])), "input 'x': datatype FP16 has no typed contents"),
            (message(("x", "FP32", [1]), ("x", "FP32", [1]), raw=[b"\0" * 4] * 2), "input 'x': sent twice"),
            (message(("x", "FP32", [1]), ("y", "FP32", [1]), raw=[b"\0" * 4]), "raw_input_contents: 1 for 2 inputs"),
            (message(("x", "BOOL", [1]), raw=[b"\2"]), "input 'x': a byte above 1"),
        ],
    )
    def test_that_does_not_agree_with_itself_is_refused(self, request_: Any, what: str) -> None:
        with pytest.raises(RequestError, match=what):
            decode(request_)

    def test_with_contents_of_another_type_is_refused(self) -> None:
        request = message(("x", "FP32", [1]))
        request.inputs[0].contents.fp64_contents.append(1.0)

        with pytest.raises(RequestError, match="fp64_contents; values of datatype FP32 are fp32_contents"):
            decode(request)

    def test_with_both_forms_is_refused(self) -> None:
        request = message(("x", "FP32", [1]), raw=[b"\0" * 4])
        request.inputs[0].contents.fp32_contents.append(1.0)

        with pytest.raises(RequestError, match="contents and raw_input_contents; a tensor comes once"):
            decode(request)

    @pytest.mark.parametrize("place", ["inputs", "outputs"])
    def test_that_means_shared_memory_is_refused(self, place: str) -> None:
        request = message(("x", "FP32", [1]), raw=[b"\0" * 4])
        tensor = request.inputs[0] if place == "inputs" else request.outputs.add(name="y")
        tensor.parameters["shared_memory_region"].string_param = "r"

        with pytest.raises(RequestError, match="shared_memory_region; client and server share no memory"):
            decode(request)

    @given(st.binary(max_size=80))
    def test_raises_nothing_but_its_own_error(self, data: bytes) -> None:
        body = memoryview(bytearray(data))
        try:
            v2_message.decode(body)
        except RequestError as exc:
            assert exc.status == 400  # noqa: PT017 - it need not be raised
        assert v2_message.objects_in(body) >= 0


class TestObjectsIn:
    def test_counts_what_grows_when_it_is_read(self) -> None:
        numbers = message(("x", "FP32", [1000]), raw=[b"\0" * 4000])
        strings = message(("x", "BYTES", [1000]), raw=[b"\0" * 4000])
        varints = message(("x", "INT64", [1000]))
        varints.inputs[0].contents.int64_contents.extend([1] * 1000)

        counts = [v2_message.objects_in(memoryview(each.SerializeToString())) for each in (numbers, strings, varints)]

        assert counts == [0, 1000, 1000]


class Answers:
    """Two answers, then the end or a failure."""

    def __init__(self, *answers: Tensors) -> None:
        self._answers = list(answers)
        self.is_closed = False

    def __aiter__(self) -> AsyncIterator[Tensors]:
        return self

    async def __anext__(self) -> Tensors:
        if not self._answers:
            raise StopAsyncIteration
        return self._answers.pop(0)

    async def aclose(self) -> None:
        self.is_closed = True


class TestStreams:
    @pytest.mark.parametrize("tells_end", [False, True])
    async def test_are_messages_each_behind_its_length(self, tells_end: bool) -> None:
        sent = message(("x", "FP32", [1]), raw=[b"\0" * 4], id="7")
        sent.parameters["triton_enable_empty_final_response"].bool_param = tells_end
        stream = MessageStream(
            Answers({"y": np.ones(1, np.float32)}, {"y": np.zeros(1, np.float32)}), "m", "1", decode(sent)
        )

        await stream.begin()
        read = framed(b"".join([each async for each in stream]))

        finals = [each.infer_response.parameters["triton_final_response"].bool_param for each in read]
        assert finals == ([False, False, True] if tells_end else [False, False])
        assert [len(each.infer_response.outputs) for each in read][:2] == [1, 1]
        assert {each.infer_response.id for each in read} == {"7"}

    async def test_tell_what_went_wrong(self) -> None:
        stream = MessageStream(Answers(), "m", "1", decode(message(("x", "FP32", [1]), raw=[b"\0" * 4], id="7")))

        (last,) = framed(stream.last_words(b'{"error":"why","code":"MODEL_FAILED","request_id":"1"}'))

        assert (last.error_message, last.infer_response.id) == ("why", "7")

    def test_of_one_say_that_it_is_the_last(self) -> None:
        request = decode(message(("x", "FP32", [1]), raw=[b"\0" * 4]))

        reply = v2_message.encode_stream_of_one("m", "1", request, {"y": np.ones(1, np.float32)})

        (only,) = framed(b"".join((reply.body, *reply.parts)))
        assert only.infer_response.parameters["triton_final_response"].bool_param is True
        assert reply.content_type == b"application/x-protobuf-stream"


def framed(data: bytes) -> list[Any]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(service_pb2.ModelStreamInferResponse.FromString(data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
