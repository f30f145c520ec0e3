"""What fits a model, and the sentence for what does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from worker_image.server.errors import RequestError
from worker_image.server.tensors import NUMBERS, Signature, Tensors, TensorSpec, datatype_of, fit, with_roles

MATRIX = TensorSpec("x", "FP64", (-1, 4), accepts=NUMBERS, finite=True)
SKLEARN = Signature("p", (MATRIX,), (), (), MATRIX)
STRICT = Signature("p", (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "BYTES", (-1,))), ())


NAMED = Signature("p", (TensorSpec("a", "FP64", (-1,), missing=True),), (), matrix=TensorSpec("x", "FP64", (-1, 1)))
MARGIN = Signature("p", (MATRIX,), (), matrix=MATRIX, optional=(TensorSpec("margin", "FP64", (-1,)),))


def refused(signature: Signature, inputs: Tensors, missing: Sequence[str] = ()) -> str:
    with pytest.raises(RequestError) as failed:
        fit(signature, inputs, missing)
    assert failed.value.status == 400
    return failed.value.sentence


class TestRoles:
    scores = TensorSpec("scores", "FP32", (-1, 2), labels=("no", "yes"))
    number = TensorSpec("y", "FP32", (-1, 1))
    label = TensorSpec("label", "INT64", (-1,))

    def roles(self, *outputs: TensorSpec, default: tuple[str, ...] = ()) -> tuple[str | None, str | None]:
        names = default or tuple(spec.name for spec in outputs)
        found = with_roles(Signature("p", (), outputs, names))
        return found.scores, found.value

    def test_an_output_with_labels_is_of_scores(self) -> None:
        assert self.roles(self.label, self.scores) == ("scores", None)

    def test_one_number_a_row_is_a_value(self) -> None:
        assert self.roles(self.number) == (None, "y")
        assert self.roles(self.number, self.label, default=("y",)) == (None, "y")

    @pytest.mark.parametrize("outputs", [(), (label,), (number, label), (TensorSpec("y", "FP32", (-1, 2)),)])
    def test_anything_else_is_neither(self, outputs: tuple[TensorSpec, ...]) -> None:
        assert self.roles(*outputs) == (None, None)


class TestFit:
    def test_lets_a_model_with_one_nameless_matrix_be_asked_by_any_name(self) -> None:
        assert list(fit(SKLEARN, {"input-0": np.zeros((2, 4))})) == ["x"]

    def test_keeps_the_datatype_that_was_sent(self) -> None:
        assert fit(SKLEARN, {"x": np.zeros((1, 4), np.float32)})["x"].dtype == np.float32

    def test_takes_a_column_of_one_as_the_column(self) -> None:
        signature = Signature("p", (TensorSpec("text", "BYTES", (-1,)),), ())

        assert fit(signature, {"text": np.array([["a"], ["b"]], object)})["text"].tolist() == ["a", "b"]

    def test_takes_one_named_column_by_its_name_and_as_a_matrix(self) -> None:
        assert list(fit(NAMED, {"a": np.zeros(3)})) == ["a"]
        assert list(fit(NAMED, {"whatever": np.zeros((3, 1))})) == ["x"]

    def test_takes_an_optional_input_beside_the_others_and_without_it(self) -> None:
        assert list(fit(MARGIN, {"y": np.zeros((2, 4))})) == ["x"]
        assert list(fit(MARGIN, {"margin": np.zeros(2), "y": np.zeros((2, 4))})) == ["x", "margin"]
        assert "rows differ" in refused(MARGIN, {"margin": np.zeros(3), "y": np.zeros((2, 4))})
        assert "none sent" in refused(MARGIN, {"margin": np.zeros(3)})

    def test_takes_nulls_only_where_values_may_be_missing(self) -> None:
        assert list(fit(NAMED, {"a": np.array([np.nan])}, ["a"])) == ["a"]
        assert "input 'x': a value is null; this model takes none" in refused(NAMED, {"x": np.zeros((1, 1))}, ["x"])
        assert "input 'q': a value is null" in refused(Signature("p", (), ()), {"q": np.zeros(1)}, ["q"])

    @pytest.mark.parametrize(
        ("signature", "inputs", "words"),
        [
            (SKLEARN, {}, "inputs: none sent; the model takes 'x' (FP64 [-1, 4])"),
            (SKLEARN, {"x": np.zeros(4)}, "one row alone is sent as shape [1, 4]"),
            (SKLEARN, {"x": np.zeros((2, 3))}, "each row has 4 numbers (-1 is any count of rows), 3 were sent"),
            (SKLEARN, {"x": np.zeros((0, 4))}, "holds no row"),
            (SKLEARN, {"x": np.array([["a"] * 4], object)}, "datatype BYTES; the model wants BF16 or BOOL or FP16"),
            (SKLEARN, {"x": np.array([[1, 2, np.nan, 4]])}, "nan at [0, 2]; this model takes finite numbers only"),
            (SKLEARN, {"x": np.array([[1, 2, 3, np.inf]])}, "inf at [0, 3]"),
            (STRICT, {"a": np.zeros((1, 2), np.float32)}, "input 'b': missing"),
            (STRICT, {"a": np.zeros((1, 2)), "b": np.array(["q"], object)}, "datatype FP64; the model wants FP32"),
            (STRICT, {"a": np.zeros((1, 2), np.float32), "c": np.zeros(1)}, "input 'c': the model has no such input"),
            (
                STRICT,
                {"a": np.zeros((2, 2), np.float32), "b": np.array(["q"], object)},
                "rows differ ('a' 2, 'b' 1)",
            ),
        ],
    )
    def test_says_what_was_sent_and_what_the_model_wants(
        self, signature: Signature, inputs: Tensors, words: str
    ) -> None:
        assert words in refused(signature, inputs)


class TestDatatypeOf:
    @pytest.mark.parametrize(
        ("dtype", "name"),
        [(">f4", "FP32"), ("<i2", "INT16"), ("?", "BOOL"), ("U3", "BYTES"), ("S3", "BYTES"), ("O", "BYTES")],
    )
    def test_gives_the_protocols_name(self, dtype: Any, name: str) -> None:
        assert datatype_of(np.dtype(dtype)) == name

    def test_refuses_what_the_protocol_cannot_name(self) -> None:
        with pytest.raises(TypeError, match="complex128"):
            datatype_of(np.dtype("complex128"))
