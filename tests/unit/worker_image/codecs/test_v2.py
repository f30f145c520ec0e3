"""Open Inference Protocol, JSON and binary: what it reads, what it refuses and in which words, what it writes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker_image.server.bfloat16 import BF16, narrow, widen
from worker_image.server.codecs import v2
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NUMPY_TYPES, Signature, TensorSpec, datatype_of


def body(data: Any, *, shape: Any = None, datatype: str = "FP64", **fields: Any) -> bytes:
    shape = list(np.shape(data)) if shape is None else shape
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **fields}).encode()


JSON = v2.Decoded({}, (), None)


def refused(raw: bytes) -> str:
    with pytest.raises(RequestError) as failed:
        v2.decode(raw)
    assert failed.value.status == 400
    return failed.value.sentence


class TestDecode:
    def test_lets_clients_say_how_they_made_the_tensors(self) -> None:
        """As MLServer's clients do with a DataFrame."""
        column = {
            "name": "x",
            "shape": [2, 1],
            "datatype": "FP64",
            "data": [1, 2],
            "parameters": {"content_type": "np"},
        }
        raw = json.dumps({"parameters": {"content_type": "pd"}, "inputs": [column]}).encode()

        assert v2.decode(raw).inputs["x"].tolist() == [[1.0], [2.0]]

    def test_takes_flat_and_nested_data_alike(self) -> None:
        flat = v2.decode(body([1, 2, 3, 4], shape=[2, 2])).inputs["x"]
        nested = v2.decode(body([[1, 2], [3, 4]])).inputs["x"]

        assert flat.tolist() == nested.tolist() == [[1.0, 2.0], [3.0, 4.0]]

    def test_keeps_the_id_and_the_outputs_asked_for(self) -> None:
        request = v2.decode(body([1.0], id="42", outputs=[{"name": "b"}, {"name": "a"}]))

        assert (request.id, request.outputs) == ("42", ("b", "a"))

    def test_carries_nan_and_infinity_tokens_as_numbers(self) -> None:
        tensor = v2.decode(body([1.0, float("nan"), float("-inf")])).inputs["x"]

        assert np.isnan(tensor[1])
        assert tensor[2] == -np.inf

    def test_keeps_infinities_that_were_sent_apart_from_numbers_that_are_too_large(self) -> None:
        tensor = v2.decode(body([1.0, float("inf")], datatype="FP16")).inputs["x"]

        assert tensor.tolist() == [1.0, np.inf]

    def test_reads_bf16_as_the_nearest_number_that_it_has(self) -> None:
        tensor = v2.decode(body([1.0, 0.1], datatype="BF16")).inputs["x"]

        assert tensor.dtype == BF16
        assert widen(tensor).tolist() == [1.0, 0.10009765625]

    def test_keeps_parameters_and_gives_those_that_are_not_the_protocols_to_the_model(self) -> None:
        sent = {"k": 2, "sequence_id": 1, "priority": 0, "timeout": 5, "binary_data_output": False}

        request = v2.decode(body([1.0], parameters=sent))

        assert request.parameters == sent
        assert v2.of_the_model(request.parameters) == {"k": 2}

    def test_reads_strings_and_base64_as_text_and_bytes(self) -> None:
        tensor = v2.decode(body(["é", {"b64": "AP8="}], shape=[2], datatype="BYTES")).inputs["x"]

        assert tensor.tolist() == ["é", b"\x00\xff"]

    @pytest.mark.parametrize(("datatype", "values"), [("FP64", [1.5, None]), ("BYTES", ["null", None])])
    def test_reads_nulls_as_missing_and_says_where_they_are(self, datatype: str, values: list[Any]) -> None:
        decoded = v2.decode(body(values, shape=[2], datatype=datatype))

        assert decoded.missing == ("x",)
        assert decoded.inputs["x"][0] == values[0]
        assert np.isnan(decoded.inputs["x"][1]) if datatype == "FP64" else decoded.inputs["x"][1] is None

    def test_takes_no_word_for_a_null(self) -> None:
        assert v2.decode(body(["null", "a"], shape=[2], datatype="BYTES")).missing == ()

    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            (b"", "body: empty"),
            (b"{", "truncated"),
            (b'{"inputs": [}', "byte 12"),
            (b"[" * 100_000, "Expected `object`, got `array`"),
            (b'{"inputs":' + b"[" * 100_000, "body: Expected `object`, got `array`"),
            (b"[]", "Expected `object`, got `array`"),
            (b"{}", "missing required field `inputs`"),
            (body([1.0], id=7), "Expected `str | null`, got `int` - at `$.id`"),
            (body(["a"]), "input 'x': Expected `float`, got `str` - at `$[0]`; datatype FP64 takes numbers only"),
            (body([True]), "Expected `float`, got `bool`"),
            (body([None], shape=[1], datatype="INT32"), "Expected `int`, got `null`"),
            (body([None], shape=[1], datatype="BOOL"), "Expected `bool`, got `null`"),
            (body([None, "a"], shape=[2]), "Expected `float | null`, got `str`"),
            (body([1.5], datatype="INT32"), "Expected `int`, got `float`"),
            (body([1], datatype="BOOL"), "datatype BOOL takes true and false only"),
            (body([300], datatype="UINT8"), "300 out of bounds for uint8"),
            (body([1e39], datatype="FP32"), "out of the range of FP32"),
            (body([1.0], datatype="FP128"), "datatype 'FP128'; it is one of BOOL"),
            (body([1.0, 2.0], shape=[3]), "shape [3] means 3 values, `data` has 2 values"),
            (body([1.0], shape=[10**9, 10**9]), "no tensor is that large"),
            (body([], shape=[2**70, 0]), "no tensor is that large"),
            (body([1.0], shape=[-1]), "-1 stands in metadata only"),
            (body([[1.0], [2.0, 3.0]], shape=[3]), "lists have different lengths"),
            (body([["a"], ["b", "c"]], shape=[3], datatype="BYTES"), "lists have different lengths"),
            (body([{"b64": "?"}], shape=[1], datatype="BYTES"), "is not base64"),
            (body([{"b64": "é"}], shape=[1], datatype="BYTES"), "is not base64"),
            (body([float("nan"), 1.0], id="\ud83d"), "surrogates not allowed; JSON is UTF-8"),
            (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64"}]}', "input 'x': no `data`"),
            (
                b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}}]}',
                "binary_data_size without the request field inference-header-content-length",
            ),
            (body([1.0], shape=[1] * 70), "at most 32 dimensions"),
            (body([1.0], shape=[-1, -1]), "-1 stands in metadata only"),
            (body([1.0], shape=[0, 1 << 62, 1 << 62]), "no tensor is that large"),
            (body([1e39, float("nan")], datatype="FP32"), "out of the range of FP32"),
            (body([3.4e38], datatype="BF16"), "out of the range of BF16"),
            (body([float("nan")]).replace(b"NaN", b"NaN,1e400"), "1e400 is out of the range of FP64"),
            (
                body([1.0], parameters={"binary_data_output": 1}),
                "parameters: binary_data_output 1; it is true or false",
            ),
            (
                body([1.0], outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]),
                "output 'y': binary_data 'yes'",
            ),
            (body([1.0], outputs=[{"name": "y", "parameters": {"classification": 3}}]), "output 'y': classification"),
            (body([1.0], outputs=[{"name": "y", "parameters": {"shared_memory_region": "r"}}]), "share no memory"),
            (
                b'{"inputs":[' + b",".join([b'{"name":"x","shape":[1],"datatype":"FP64","data":[1]}'] * 2) + b"]}",
                "sent twice",
            ),
            (body([float("nan"), "a"], shape=[2]), "Expected `float`, got `str`"),
        ],
    )
    def test_refuses_what_is_wrong_and_says_where(self, raw: bytes, words: str) -> None:
        assert words in refused(raw)

    @pytest.mark.parametrize(
        "raw",
        [
            b'{"inputs":[{"name":"\xff","datatype":"BYTES","shape":[1],"data":["x"]}]}',
            b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"data":["\xff"]}]}',
            b'{"id":"\xff","inputs":[]}',
        ],
    )
    def test_refuses_other_bytes_than_utf_8(self, raw: bytes) -> None:
        assert "UTF-8" in refused(raw)

    def test_refuses_a_tensor_nested_too_deeply(self) -> None:
        deep = b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","data":' + b"[" * 200 + b"1" + b"]" * 200 + b"}]}"

        assert "nested" in refused(deep)

    @given(st.binary(max_size=200))
    def test_any_bytes_end_in_a_request_or_in_our_own_error(self, raw: bytes) -> None:
        with suppress(RequestError):
            v2.decode(raw)


def binary(head: dict[str, Any], *tensors: bytes, length: int | None = None) -> tuple[memoryview, bytes]:
    """A body with binary tensors, and what its header field says."""
    text = json.dumps(head).encode()
    return memoryview(text + b"".join(tensors)), b"%d" % (len(text) if length is None else length)


def entry(size: Any, *, datatype: str = "FP32", shape: Any = (2,), name: str = "x", **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}, **more}


class TestDecodeBinary:
    def test_reads_binary_tensors_in_order_between_json_ones(self) -> None:
        inputs = [
            entry(4, datatype="INT16", name="a"),
            {"name": "b", "datatype": "FP64", "shape": [1], "data": [0.5]},
            entry(6, datatype="BYTES", shape=[1], name="c"),
        ]

        request = v2.decode_binary(*binary({"inputs": inputs, "id": "7"}, b"\x01\0\x02\0", b"\x02\0\0\0hi"))

        assert {name: tensor.tolist() for name, tensor in request.inputs.items()} == {
            "a": [1, 2],
            "b": [0.5],
            "c": ["hi"],
        }
        assert request.id == "7"

    def test_carries_nan_and_infinity(self) -> None:
        numbers = np.array([np.nan, -np.inf], np.float32)

        request = v2.decode_binary(*binary({"inputs": [entry(8)]}, numbers.tobytes()))

        assert request.inputs["x"].tobytes() == numbers.tobytes()

    @pytest.mark.parametrize(
        ("raw", "words"),
        [
            (binary({"inputs": [entry(8)]}, b"1234"), "binary_data_size 8, but 4 bytes are left of the 4"),
            (binary({"inputs": [entry(8)]}, b"1" * 9), "1 bytes after its last tensor"),
            (binary({"inputs": [entry(4)]}, b"1234"), "4 bytes of data; datatype FP32 and shape [2] mean 8"),
            (binary({"inputs": [entry("8")]}, b"1" * 8), "binary_data_size '8'; it is the tensor's count of bytes"),
            (binary({"inputs": [entry(True)]}, b"1"), "binary_data_size True"),
            (binary({"inputs": [entry(-1)]}, b""), "binary_data_size -1"),
            (binary({"inputs": [entry(8, data=[1, 2])]}, b"1" * 8), "both `data` and binary_data_size"),
            (binary({"inputs": [entry(None)]}, b"1" * 8), "neither `data` nor binary_data_size"),
            (binary({"inputs": []}, b"1"), "1 bytes after its last tensor"),
            (binary({"inputs": [entry(8)]}, b"1" * 8, length=1000), "'1000'; the body has"),
            (binary({"inputs": [entry(8)]}, b"1" * 8, length=0), "a tensor without its JSON is not read"),
            (binary({"inputs": [entry(8)]}, b"1" * 8, length=20), "truncated"),
            ((memoryview(b"{}"), b"-1"), "'-1'; it is a whole number of bytes"),
            ((memoryview(b"{}"), b"9" * 5000), "it is a whole number of bytes"),
            ((memoryview(b"{}"), b"2"), "missing required field `inputs`"),
            (binary({"inputs": [{**entry(8), "parameters": {"shared_memory_region": "r"}}]}), "share no memory"),
        ],
    )
    def test_refuses_what_does_not_agree_and_says_where(self, raw: tuple[memoryview, bytes], words: str) -> None:
        with pytest.raises(RequestError) as failed:
            v2.decode_binary(*raw)

        assert failed.value.status == 400
        assert words in failed.value.sentence

    @given(st.binary(max_size=300), st.integers(0, 300))
    def test_any_bytes_end_in_a_request_or_in_our_own_error(self, raw: bytes, length: int) -> None:
        with suppress(RequestError):
            v2.decode_binary(memoryview(raw), b"%d" % length)


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "x", "\ud83d", "FP32"]),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["b64", "name", "x"]), children),
    max_leaves=5,
)
shapes = st.lists(st.sampled_from([-1, 0, 1, 2, 1 << 40, 1 << 63, 1 << 70]), max_size=3)
entries = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y"]), "datatype": st.sampled_from([*NUMPY_TYPES, "FP128"]), "shape": shapes | junk},
    optional={
        "data": junk,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(0, 9) | junk}) | junk,
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(entries, max_size=2) | junk}, optional={"id": junk, "outputs": junk, "parameters": junk}
)


@given(requests, st.binary(max_size=9))
def test_any_request_ends_in_tensors_that_can_be_answered_or_in_our_own_error(request: Any, tail: bytes) -> None:
    text = json.dumps(request).encode()
    for read in (lambda: v2.decode(text), lambda: v2.decode_binary(*binary(request, tail))):
        with suppress(RequestError):
            decoded = read()
            v2.encode("m", "1", decoded, decoded.inputs)


numeric = [dtype for name, dtype in NUMPY_TYPES.items() if name not in ("BYTES", "BF16")]


@given(st.data(), st.sampled_from(numeric))
def test_a_tensor_comes_back_bit_for_bit(data: st.DataObject, dtype: np.dtype[Any]) -> None:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    shapes = hnp.array_shapes(max_dims=3, max_side=4)
    tensor = data.draw(hnp.arrays(dtype, shapes, elements=hnp.from_dtype(dtype, **(finite or {}))))

    written = v2.encode("m", "1", JSON, {"y": tensor}).body
    output = json.loads(written)["outputs"][0]
    read = v2.decode(json.dumps({"inputs": [output]}).encode()).inputs["y"]

    assert output["datatype"] == datatype_of(dtype)
    assert read.dtype == tensor.dtype
    assert read.shape == tensor.shape
    assert read.tobytes() == tensor.tobytes()


class TestEncode:
    def test_names_model_version_id_and_shape(self) -> None:
        answer = json.loads(v2.encode("iris", "2", v2.Decoded({}, (), "7"), {"predict": np.array(["a", "b"])}).body)

        assert answer == {
            "model_name": "iris",
            "model_version": "2",
            "id": "7",
            "outputs": [{"name": "predict", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}],
        }

    def test_refuses_to_turn_nan_into_null(self) -> None:
        with pytest.raises(RequestError) as failed:
            v2.encode("m", "1", JSON, {"y": np.array([1.0, np.nan])})

        assert failed.value.status == 422
        assert "output 'y': the model answered nan at [1]" in failed.value.sentence

    def test_writes_bf16_as_its_numbers(self) -> None:
        answer = json.loads(v2.encode("m", "1", JSON, {"y": narrow(np.array([0.1]))}).body)

        assert answer["outputs"] == [{"name": "y", "datatype": "BF16", "shape": [1], "data": [0.10009765625]}]

    @pytest.mark.parametrize(
        ("asked", "are_binary"),
        [
            ({}, [False, False]),
            ({"parameters": {"binary_data_output": True}}, [True, True]),
            ({"outputs": [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b"}]}, [True, False]),
            (
                {
                    "parameters": {"binary_data_output": True},
                    "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
                },
                [True, False],
            ),
        ],
    )
    def test_writes_each_output_as_it_is_asked_for(self, asked: dict[str, Any], are_binary: list[bool]) -> None:
        outputs = {"a": np.array([1.0, np.nan], np.float32) if are_binary[0] else np.array([1.0]), "b": np.array([5])}

        reply = v2.encode("m", "1", v2.decode(body([1.0], **asked)), outputs)

        written = json.loads(reply.body)["outputs"]
        sizes = [output.get("parameters", {}).get("binary_data_size") for output in written]
        assert ["data" not in output for output in written] == are_binary
        assert sizes == [8 if is_binary else None for is_binary in are_binary]
        assert b"".join(reply.parts) == b"".join(
            tensor.tobytes() for tensor, is_binary in zip(outputs.values(), are_binary, strict=True) if is_binary
        )
        length = dict(reply.fields).get(b"inference-header-content-length")
        assert length == (b"%d" % len(reply.body) if any(are_binary) else None)
        assert reply.content_type == (b"application/octet-stream" if any(are_binary) else b"application/json")


class TestWantedOutputs:
    signature = Signature("p", (), (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "FP64", (-1,))), ("a",))

    def test_gives_the_default_ones_when_none_are_named(self) -> None:
        assert v2.wanted_outputs(self.signature, ()) == ("a",)

    def test_refuses_an_unknown_one_and_names_those_that_exist(self) -> None:
        with pytest.raises(RequestError, match="it gives 'a', 'b'"):
            v2.wanted_outputs(self.signature, ("c",))
