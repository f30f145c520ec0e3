"""What the try-it form of the web console makes of what a person types."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.orchestrator.console.node import answers

pytestmark = pytest.mark.npm


def tensor(shape: list[int], text: str) -> dict[str, Any]:
    """The tensor of one input named x, or the error."""
    given = {"name": "x", "datatype": "FP64", "shape": shape}
    [found] = answers("tensors.js", "requestOf", [[given], [text]])
    if isinstance(found, dict):
        return found
    [made] = json.loads(found)["inputs"]
    return dict(made)


@pytest.mark.parametrize(
    ("shape", "text", "expected", "data"),
    [
        ([-1], "[1, 2, 3]", [3], [1, 2, 3]),
        ([-1, 4], "[5.1, 3.5, 1.4, 0.2]", [1, 4], [5.1, 3.5, 1.4, 0.2]),
        ([-1, 2], "[1, 2, 3, 4]", [2, 2], [1, 2, 3, 4]),
        ([-1, 2], "[[1, 2], [3, 4]]", [2, 2], [1, 2, 3, 4]),
        ([-1, -1], "[[1, 2, 3], [4, 5, 6]]", [2, 3], [1, 2, 3, 4, 5, 6]),
        ([-1, -1], "[1, 2, 3]", [3, 1], [1, 2, 3]),
        ([2, 2], "[1, 2, 3, 4]", [2, 2], [1, 2, 3, 4]),
        ([-1], "7", [1], [7]),
        ([-1], '["a text", "another"]', [2], ["a text", "another"]),
        ([-1], "[]", [0], []),
        ([-1], "[null]", [1], [None]),
    ],
)
def test_values_fill_the_shape_of_the_metadata(
    shape: list[int], text: str, expected: list[int], data: list[object]
) -> None:
    assert tensor(shape, text) == {"name": "x", "shape": expected, "datatype": "FP64", "data": data}


@pytest.mark.parametrize(
    ("shape", "text", "sentence"),
    [
        ([-1, 4], "[1, 2, 3]", "x: 3 values; its shape [-1,4] takes a multiple of 4"),
        ([2], "[1]", "x: its shape is [1]; the model takes [2], where -1 is any length"),
        ([2, 2], "[1, 2, 3]", "x: 3 values; its shape [2,2] takes 4"),
        ([-1, 2], "[[1, 2], [3]]", "x: its rows have different lengths; write as many values in each"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(shape: list[int], text: str, sentence: str) -> None:
    assert tensor(shape, text) == {"error": sentence}


def test_what_is_no_json_is_refused_with_an_example() -> None:
    error = tensor([-1], "[1, 2")["error"]

    assert error.startswith("x: this is not JSON (")
    assert error.endswith("write a list, such as [1, 2]")
