"""MLflow's signatures as metadata, and values as its types want them: needs no MLflow. test_mlflow.py has models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker_image.server.backends.mlflow_schema import as_tensor, cast, matrix, specs

NUMBERS = [{"type": "double", "name": "a", "required": True}, {"type": "long", "name": "b", "required": True}]


def tensor(*shape: int, dtype: str = "float32", **more: Any) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}, **more}


class TestSpecs:
    @pytest.mark.parametrize(
        ("kind", "datatype"),
        [
            ("boolean", "BOOL"),
            ("integer", "INT32"),
            ("long", "INT64"),
            ("float", "FP32"),
            ("double", "FP64"),
            ("string", "BYTES"),
            ("binary", "BYTES"),
            ("datetime", "BYTES"),
            ("array", "BYTES"),
        ],
    )
    def test_a_column_is_an_input_with_a_row_for_each_value(self, kind: str, datatype: str) -> None:
        (spec,) = specs([{"type": kind, "name": "a"}])

        assert (spec.name, spec.datatype, spec.shape) == ("a", datatype, (-1,))

    def test_numbers_of_any_width_are_taken_for_numbers(self) -> None:
        real, whole = specs(NUMBERS)

        assert real.takes("INT64")
        assert whole.takes("INT8")
        assert not whole.takes("FP32")

    def test_columns_that_need_not_be_there_are_apart(self) -> None:
        schema = [*NUMBERS, {"type": "string", "name": "c", "required": False}]

        assert [spec.name for spec in specs(schema)] == ["a", "b"]
        assert [spec.name for spec in specs(schema, required=False)] == ["c"]

    def test_a_tensor_keeps_its_type_and_shape(self) -> None:
        named, unnamed = specs([tensor(-1, 4, name="t"), tensor(-1, dtype="str")])

        assert (named.name, named.datatype, named.shape) == ("t", "FP32", (-1, 4))
        assert (unnamed.name, unnamed.datatype) == ("x", "BYTES")

    def test_columns_of_numbers_may_come_as_one_grid(self) -> None:
        grid = matrix(NUMBERS)

        assert grid is not None
        assert grid.shape == (-1, 2)
        assert matrix([*NUMBERS, {"type": "string", "name": "c"}]) is None
        assert matrix([tensor(-1, 4)]) is None


class TestCast:
    def test_numbers_become_what_the_column_is(self) -> None:
        assert cast({"type": "double", "name": "a"}, np.array([1, 2])).dtype == np.float64
        assert cast({"type": "integer", "name": "a"}, np.array([1, 2])).dtype == np.int32

    def test_text_moments_and_json_become_objects(self) -> None:
        strings = np.array(["a", b"b", None], dtype=object)

        assert cast({"type": "string"}, strings).tolist() == ["a", "b", None]
        assert cast({"type": "binary"}, strings).tolist() == [b"a", b"b", None]
        moments = cast({"type": "datetime"}, np.array(["2026-01-02T03:04"], dtype=object))
        assert moments.tolist() == [np.datetime64("2026-01-02T03:04")]
        assert cast({"type": "array"}, np.array(['[1, {"a": 2}]'], dtype=object)).tolist() == [[1, {"a": 2}]]

    @pytest.mark.parametrize(
        ("kind", "values", "said"),
        [
            ("integer", np.array([2**40]), "column 'a' holds a number beyond -2147483648..2147483647"),
            ("datetime", np.array(["soon"], dtype=object), "column 'a' holds a value that is no datetime"),
            ("array", np.array(["[1"], dtype=object), "column 'a' holds a value that is no JSON of 'array'"),
        ],
    )
    def test_what_does_not_fit_is_named(self, kind: str, values: Any, said: str) -> None:
        with pytest.raises(ValueError, match="column") as failed:
            cast({"type": kind, "name": "a"}, values)

        assert said in str(failed.value)


class TestAsTensor:
    @pytest.mark.parametrize(
        ("answer", "values"),
        [
            ([1, 2], [1, 2]),
            (np.array([1.5, 2], dtype=object), [1.5, 2.0]),
            (np.array(["a", b"b"], dtype=object), ["a", b"b"]),
            (np.array(["a", None, {"k": 1}], dtype=object), ["a", "null", '{"k": 1}']),
            (np.array(["2026-01-02"], dtype="datetime64[D]"), ["2026-01-02"]),
        ],
    )
    def test_gives_numbers_or_strings(self, answer: Any, values: list[Any]) -> None:
        tensor = as_tensor(answer)

        assert tensor.tolist() == values
        assert tensor.dtype.kind in "ifOSU"
