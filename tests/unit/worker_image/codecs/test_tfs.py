"""TensorFlow Serving's REST forms, after the examples of its documentation."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker_image.server.codecs import tfs
from worker_image.server.errors import RequestError
from worker_image.server.tensors import Signature, TensorSpec, fit

PREDICT = TensorSpec("predict", "FP64", (-1,))
MATRIX = TensorSpec("x", "FP64", (-1, 3))
ONE = Signature("p", (MATRIX,), (PREDICT, TensorSpec("scores", "FP64", (-1, 2))), ("predict",), MATRIX)
TWO = Signature(
    "p", (TensorSpec("tag", "BYTES", (-1,)), TensorSpec("sensor", "FP32", (-1, 2))), (PREDICT,), ("predict",)
)
ANY = Signature("p", (), ())
TABLE = Signature(
    "p", (TensorSpec("city", "BYTES", (-1,), missing=True), TensorSpec("age", "FP64", (-1,), missing=True)), (PREDICT,)
)


def predict(body: Any, signature: Signature = ONE) -> tfs.Predict:
    return tfs.decode_predict(json.dumps(body).encode(), signature)


def refused(body: Any, signature: Signature = ONE) -> str:
    with pytest.raises(RequestError) as failed:
        predict(body, signature)
    assert failed.value.status == 400
    return failed.value.sentence


class TestPredict:
    @pytest.mark.parametrize(
        "raw", [b'{"instances":["\xff"]}', b'{"inputs":{"x\xff":[1]}}', b'{"instances":[{"x":"\xff"}]}']
    )
    def test_refuses_other_bytes_than_utf_8(self, raw: bytes) -> None:
        with pytest.raises(RequestError) as failed:
            tfs.decode_predict(raw, ANY)

        assert (failed.value.status, "UTF-8" in failed.value.sentence) == (400, True)

    def test_reads_rows_of_one_input(self) -> None:
        request = predict({"instances": [[1, 2, 3], [4, 5, 6]]})

        assert request.is_row
        assert request.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6]]

    def test_reads_rows_of_named_inputs(self) -> None:
        request = predict({"instances": [{"tag": "foo", "sensor": [1, 2]}, {"tag": "bar", "sensor": [3, 4]}]}, TWO)

        assert request.inputs["tag"].tolist() == ["foo", "bar"]
        assert request.inputs["sensor"].dtype == np.float32

    def test_reads_the_rows_of_a_table_in_the_order_of_its_columns(self) -> None:
        inputs = predict({"instances": [["rome", 3], ["oslo", 4.5]]}, TABLE).inputs

        assert inputs["city"].tolist() == ["rome", "oslo"]
        assert inputs["age"].tolist() == [3.0, 4.5]

    def test_reads_nulls_where_values_may_be_missing(self) -> None:
        inputs = predict({"instances": [{"city": None, "age": 3}, {"city": "oslo", "age": None}]}, TABLE).inputs

        assert inputs["city"].tolist() == [None, "oslo"]
        assert np.isnan(inputs["age"]).tolist() == [False, True]

    def test_reads_columns(self) -> None:
        request = predict({"inputs": {"tag": ["foo"], "sensor": [[1, 2]]}}, TWO)

        assert not request.is_row
        assert request.inputs["sensor"].tolist() == [[1, 2]]
        assert predict({"inputs": [[1, 2, 3]]}).inputs["x"].tolist() == [[1, 2, 3]]

    def test_reads_base64_rows_as_bytes(self) -> None:
        signature = Signature("p", (TensorSpec("image", "BYTES", (-1,)),), (PREDICT,), ("predict",))

        request = predict({"instances": [{"b64": "aGk="}, {"b64": "AP8="}]}, signature)

        assert request.inputs["image"].tolist() == [b"hi", b"\x00\xff"]

    def test_reads_nan_and_infinity_tokens_as_documented(self) -> None:
        tensor = tfs.decode_predict(b'{"instances": [[1.0, NaN, -Infinity]]}', ONE).inputs["x"]

        assert np.isnan(tensor[0, 1])
        assert tensor[0, 2] == -np.inf

    def test_takes_what_comes_for_a_model_that_names_no_inputs(self) -> None:
        assert predict({"instances": [1, 2.5]}, ANY).inputs["input"].tolist() == [1.0, 2.5]
        assert predict({"instances": ["a"]}, ANY).inputs["input"].tolist() == ["a"]
        assert predict({"inputs": {"a": [[1, 2]]}}, ANY).inputs["a"].dtype == np.int64

    def test_a_signature_name_selects_an_output(self) -> None:
        assert predict({"signature_name": "scores", "instances": [[1, 2, 3]]}).outputs == ("scores",)
        assert predict({"signature_name": "serving_default", "instances": [[1, 2, 3]]}).outputs == ("predict",)

    @pytest.mark.parametrize(
        ("body", "signature", "words"),
        [
            ({}, ONE, "neither `instances` (rows) nor `inputs`"),
            ({"instances": [], "inputs": []}, ONE, "both `instances`"),
            (
                {"instances": [[1, 2, 3]], "signature_name": "x"},
                ONE,
                "the model has 'serving_default', 'predict', 'scores'",
            ),
            ({"instances": [[1, 2, float("nan")]], "signature_name": {}}, ONE, "signature_name: {}; it is a string"),
            ({"instances": [{"x": [1, 2, 3]}, [1, 2, 3]]}, ONE, "objects and bare values are mixed"),
            ({"instances": [[1, 2], [3]]}, ONE, "lists have different lengths"),
            ({"instances": ["a"]}, ONE, "Expected `float`, got `str`"),
            (
                {"instances": [{"tag": "a", "sensor": [1, 2]}, {"tag": "b"}]},
                TWO,
                "instances[1]: 'sensor' is not in every row",
            ),
            ({"instances": [[1, 2]]}, TWO, "the model has several inputs ('tag', 'sensor')"),
            (
                {"instances": [["rome", 1], ["oslo"]]},
                TABLE,
                "instances[1]: 1 values; a row has one for each of 'city', 'age'",
            ),
            ({"instances": [["rome", 1], 3]}, TABLE, "instances[1]: no list"),
            ({"instances": [["rome", "old"]]}, TABLE, "instances[*].age: Expected `float | null`, got `str`"),
            ({"instances": [[1, None, 3]]}, ONE, "got `null`"),
        ],
    )
    def test_refuses_what_is_wrong_and_says_where(self, body: Any, signature: Signature, words: str) -> None:
        assert words in refused(body, signature)


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(["", "x", "é", "\ud83d"]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(["b64", "x", "tag", "sensor"]), children)
    ),
    max_leaves=6,
)
bodies = st.dictionaries(st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), junk)


@given(bodies, st.sampled_from([ONE, TWO, ANY]))
def test_any_body_ends_in_tensors_that_can_be_answered_or_in_our_own_error(body: Any, signature: Signature) -> None:
    raw = json.dumps(body).encode()
    with suppress(RequestError):
        request = tfs.decode_predict(raw, signature)
        tfs.encode_predict(request.inputs, is_row=request.is_row)
    with suppress(RequestError):
        fit(signature, tfs.decode_examples(raw, signature))


class TestEncodePredict:
    def test_leaves_the_name_of_a_single_output_out(self) -> None:
        outputs = {"predict": np.array([1.5, 2.5])}

        assert json.loads(tfs.encode_predict(outputs, is_row=True)) == {"predictions": [1.5, 2.5]}
        assert json.loads(tfs.encode_predict(outputs, is_row=False)) == {"outputs": [1.5, 2.5]}

    def test_names_several_outputs_in_each_row(self) -> None:
        outputs = {"a": np.array([1, 2]), "b": np.array([[0.5], [0.25]])}

        assert json.loads(tfs.encode_predict(outputs, is_row=True)) == {
            "predictions": [{"a": 1, "b": [0.5]}, {"a": 2, "b": [0.25]}]
        }

    def test_writes_nan_and_infinity_as_tokens(self) -> None:
        written = tfs.encode_predict({"y": np.array([np.nan, np.inf])}, is_row=True)

        assert written == b'{"predictions":[NaN,Infinity]}'

    def test_writes_bytes_as_base64(self) -> None:
        written = tfs.encode_predict({"y": np.array([b"\x00\xff"], dtype=object)}, is_row=True)

        assert json.loads(written) == {"predictions": [{"b64": "AP8="}]}


class TestClassifyAndRegress:
    signature = Signature("p", (MATRIX,), (PREDICT,), ("predict",), MATRIX, scores="scores", labels=("no", "yes"))

    def test_joins_the_context_to_every_example(self) -> None:
        body = {"context": {"sensor": [1, 2]}, "examples": [{"tag": "a"}, {"tag": "b"}]}

        inputs = tfs.decode_examples(json.dumps(body).encode(), TWO)

        assert inputs["tag"].tolist() == ["a", "b"]
        assert inputs["sensor"].tolist() == [[1, 2], [1, 2]]

    def test_refuses_a_feature_in_both_places(self) -> None:
        body = {"context": {"tag": "a"}, "examples": [{"tag": "b"}]}

        with pytest.raises(RequestError, match="'tag' stands in `context` too"):
            tfs.decode_examples(json.dumps(body).encode(), TWO)

    def test_answers_pairs_of_label_and_score(self) -> None:
        written = tfs.encode_classify(self.signature, np.array([[0.25, 0.75]]))

        assert json.loads(written) == {"results": [[["no", 0.25], ["yes", 0.75]]]}

    def test_answers_plain_numbers_for_regress(self) -> None:
        assert json.loads(tfs.encode_regress(np.array([[1.5], [2.5]]))) == {"results": [1.5, 2.5]}


class TestPages:
    def test_status_has_the_documented_form(self) -> None:
        assert tfs.status("2", is_ready=True, problem="") == {
            "model_version_status": [
                {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ]
        }
        assert tfs.status("2", is_ready=False, problem="")["model_version_status"][0]["state"] == "LOADING"

    def test_metadata_names_tensorflow_types_and_shapes(self) -> None:
        page = tfs.metadata("iris", "1", ONE)

        definition = page["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert definition["inputs"]["x"]["dtype"] == "DT_DOUBLE"
        assert [dim["size"] for dim in definition["inputs"]["x"]["tensor_shape"]["dim"]] == ["-1", "3"]
