"""Open Inference Protocol JSON: what it reads, what it refuses and in which words, what it writes."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker_image.server.codecs import v2
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NUMPY_TYPES, Signature, TensorSpec, datatype_of


def body(data: Any, *, shape: Any = None, datatype: str = "FP64", **fields: Any) -> bytes:
    shape = list(np.shape(data)) if shape is None else shape
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "data": data}
    return json.dumps({"inputs": [tensor], **fields}).encode()


def refused(raw: bytes) -> str:
    with pytest.raises(RequestError) as failed:
        v2.decode(raw)
    assert failed.value.status == 400
    return failed.value.sentence


class TestDecode:
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

    def test_reads_strings_and_base64_as_text_and_bytes(self) -> None:
        tensor = v2.decode(body(["é", {"b64": "AP8="}], shape=[2], datatype="BYTES")).inputs["x"]

        assert tensor.tolist() == ["é", b"\x00\xff"]

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
            (body([None], shape=[1]), "Expected `float`, got `null`"),
            (body([1.5], datatype="INT32"), "Expected `int`, got `float`"),
            (body([1], datatype="BOOL"), "datatype BOOL takes true and false only"),
            (body([300], datatype="UINT8"), "300 out of bounds for uint8"),
            (body([1e39], datatype="FP32"), "out of the range of FP32"),
            (body([1.0], datatype="FP128"), "datatype 'FP128'; it is one of BOOL"),
            (body([1.0, 2.0], shape=[3]), "shape [3] means 3 values, `data` has 2 values"),
            (body([1.0], shape=[10**9, 10**9]), "`data` has 1 values"),
            (body([1.0], shape=[-1]), "-1 stands in metadata only"),
            (body([[1.0], [2.0, 3.0]], shape=[3]), "lists have different lengths"),
            (body([["a"], ["b", "c"]], shape=[3], datatype="BYTES"), "lists have different lengths"),
            (body([{"b64": "?"}], shape=[1], datatype="BYTES"), "is not base64"),
            (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64"}]}', "input 'x': no `data`"),
            (
                b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP64","parameters":{"binary_data_size":8}}]}',
                "binary data",
            ),
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


numeric = [dtype for name, dtype in NUMPY_TYPES.items() if name != "BYTES"]


@given(st.data(), st.sampled_from(numeric))
def test_a_tensor_comes_back_bit_for_bit(data: st.DataObject, dtype: np.dtype[Any]) -> None:
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else None
    shapes = hnp.array_shapes(max_dims=3, max_side=4)
    tensor = data.draw(hnp.arrays(dtype, shapes, elements=hnp.from_dtype(dtype, **(finite or {}))))

    written = v2.encode("m", "1", None, {"y": tensor})
    output = json.loads(written)["outputs"][0]
    read = v2.decode(json.dumps({"inputs": [output]}).encode()).inputs["y"]

    assert output["datatype"] == datatype_of(dtype)
    assert read.dtype == tensor.dtype
    assert read.shape == tensor.shape
    assert read.tobytes() == tensor.tobytes()


class TestEncode:
    def test_names_model_version_id_and_shape(self) -> None:
        answer = json.loads(v2.encode("iris", "2", "7", {"predict": np.array(["a", "b"])}))

        assert answer == {
            "model_name": "iris",
            "model_version": "2",
            "id": "7",
            "outputs": [{"name": "predict", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]}],
        }

    def test_refuses_to_turn_nan_into_null(self) -> None:
        with pytest.raises(RequestError) as failed:
            v2.encode("m", "1", None, {"y": np.array([1.0, np.nan])})

        assert failed.value.status == 422
        assert "output 'y': the model answered nan at [1]" in failed.value.sentence


class TestWantedOutputs:
    signature = Signature("p", (), (TensorSpec("a", "FP64", (-1,)), TensorSpec("b", "FP64", (-1,))), ("a",))

    def test_gives_the_default_ones_when_none_are_named(self) -> None:
        assert v2.wanted_outputs(self.signature, ()) == ("a",)

    def test_refuses_an_unknown_one_and_names_those_that_exist(self) -> None:
        with pytest.raises(RequestError, match="it gives 'a', 'b'"):
            v2.wanted_outputs(self.signature, ("c",))
