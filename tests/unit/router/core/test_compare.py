"""What is equal, and where two answers differ."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.compare import DIFFERENT, EQUAL, FAILED, STEP, Answer, Verdict, compare


def run(steps: Generator[None, None, Verdict]) -> tuple[Verdict, int]:
    """The verdict, and how often it let others go first."""
    pauses = 0
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value, pauses
        pauses += 1


def verdict(live: object, shadow: object, tolerance: float = 0.0) -> Verdict:
    bodies = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in (live, shadow))
    return run(compare(*(Answer(200, (), body) for body in bodies), tolerance))[0]


def binary(datatype: str, form: str, *values: float, **more: Any) -> Answer:
    data = struct.pack(f"<{len(values)}{form}", *values)
    output = {"name": "y", "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"model_name": "m", "outputs": [output], **more}).encode()
    return Answer(200, (b"Inference-Header-Content-Length: %d" % len(head),), head + data)


class TestStatus:
    @pytest.mark.parametrize(
        ("live", "shadow", "result"),
        [
            (200, 200, DIFFERENT),
            (200, 201, DIFFERENT),
            (200, 400, DIFFERENT),
            (200, 500, FAILED),
            (400, 503, FAILED),
            (500, 200, DIFFERENT),
            (400, 422, EQUAL),
            (500, 503, EQUAL),
        ],
    )
    def test_is_compared_by_class_and_bodies_only_of_2xx(self, live: int, shadow: int, result: str) -> None:
        assert run(compare(Answer(live, (), b"a"), Answer(shadow, (), b"b"), 0.0))[0].result == result


class TestJson:
    @pytest.mark.parametrize(
        ("live", "shadow", "tolerance"),
        [
            ({"a": 1, "b": [2]}, {"b": [2], "a": 1}, 0.0),
            ({"a": 1}, {"a": 1.0}, 0.0),
            ({"model_version": "1", "id": "x", "y": 1}, {"model_version": "2", "id": "z", "y": 1}, 0.0),
            ({"id": "x", "y": 1}, {"y": 1}, 0.0),
            ([1.0, 2.0], [1.0009, 2.0], 0.001),
            ([10**400], [10**400], 0.5),
            (b'{"a": 1}', b'{ "a" : 1 }', 0.0),
        ],
    )
    def test_is_equal_by_value(self, live: object, shadow: object, tolerance: float) -> None:
        assert verdict(live, shadow, tolerance) == Verdict(EQUAL)

    @pytest.mark.parametrize(
        ("live", "shadow", "tolerance", "where"),
        [
            ({"outputs": [{"data": [1, 2]}]}, {"outputs": [{"data": [1, 3]}]}, 0.0, "outputs[0].data[1]: 2 is not 3"),
            ({"a": [1]}, {"a": [1, 2]}, 0.0, "a: 1 elements are not 2"),
            ({"a": 1}, {"b": 1}, 0.0, "the answer: 'a', 'b' is in one of them only"),
            ({"y": {"id": 1}}, {"y": {"id": 2}}, 0.0, "y.id: 1 is not 2"),
            ([1.0], [1.002], 0.001, "[0]: 1.0 is not 1.002"),
            ([True], [1], 0.5, "[0]: True is not 1"),
            (["1"], [1], 0.5, "[0]: '1' is not 1"),
            ([None], [0], 0.5, "[0]: None is not 0"),
            ([10**400], [1.5], 0.5, None),
            ({"a": []}, {"a": {}}, 0.0, "a: [] is not {}"),
            (b"not json", b"nor this", 0.0, "the bodies are not JSON, and their bytes differ"),
            (b"[" * 100_000, b"[" * 99_999, 0.0, "the bodies are not JSON, and their bytes differ"),
        ],
    )
    def test_says_where_values_differ(self, live: object, shadow: object, tolerance: float, where: str | None) -> None:
        found = verdict(live, shadow, tolerance)

        assert found.result == DIFFERENT
        assert where is None or found.difference == where

    _values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )

    @given(_values, _values)
    def test_agrees_with_plain_equality(self, one: Any, other: Any) -> None:
        one, other = {"x": one}, {"x": other}

        assert verdict(one, copy.deepcopy(one)).result == EQUAL
        assert (verdict(one, other).result == EQUAL) == (_strict(one) == _strict(other))
        assert verdict(one, other).result == verdict(other, one).result

    def test_lets_others_go_first_often(self) -> None:
        long = [float(number) for number in range(20 * STEP)]
        answers = (Answer(200, (), json.dumps(each).encode()) for each in ({"a": long}, {"a": [*long[:-1], -1.0]}))

        found, pauses = run(compare(*answers, 0.0))

        assert (found.result, pauses >= 20) == (DIFFERENT, True)


def _strict(value: Any) -> Any:
    """JSON's own types kept apart, for Python says that True is 1."""
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_strict(each) for each in value]
    return (isinstance(value, bool), value)


class TestBinaryTensors:
    @pytest.mark.parametrize(
        ("datatype", "form", "value", "near", "far"),
        [
            ("FP64", "d", 1.0, 1.0005, 1.1),
            ("FP32", "f", 1.0, 1.0005, 1.1),
            ("FP16", "e", 1.0, 1.001, 1.5),
            ("INT32", "i", 10_000, 10_001, 11_000),
            ("UINT8", "B", 200, 200, 201),
            ("BOOL", "?", True, True, False),
            ("BF16", "H", 0x3F80, 0x3F80, 0x3FC0),
        ],
    )
    def test_are_compared_by_value(self, datatype: str, form: str, value: float, near: float, far: float) -> None:
        live = binary(datatype, form, value, value)

        assert run(compare(live, binary(datatype, form, value, near), 0.001))[0] == Verdict(EQUAL)
        found = run(compare(live, binary(datatype, form, value, far), 0.001))[0]
        assert (found.result, found.difference.startswith("outputs 'y': [1]: ")) == (DIFFERENT, True)

    def test_are_equal_where_only_the_header_names_another_version(self) -> None:
        live = binary("FP32", "f", 1.0, model_version="1")
        shadow = binary("FP32", "f", 1.0, model_version="22")

        assert run(compare(live, shadow, 0.0))[0] == Verdict(EQUAL)

    def test_are_equal_where_both_say_nan(self) -> None:
        live, shadow = (binary("FP32", "f", float("nan"), zero) for zero in (0.0, -0.0))

        assert run(compare(live, shadow, 0.0))[0] == Verdict(EQUAL)

    @pytest.mark.parametrize(
        ("shadow", "where"),
        [
            (binary("FP32", "f", 1.0, 2.0), "outputs[0].parameters.binary_data_size: 4 is not 8"),
            (Answer(200, (), b'{"model_name": "m"}'), "the answer: 'outputs' is in one of them only"),
            (binary("FP32", "f", 1.0)._replace(body=binary("FP32", "f", 1.0).body + b"x"), "behind the tensors"),
        ],
    )
    def test_say_where_shapes_differ(self, shadow: Answer, where: str) -> None:
        found = run(compare(binary("FP32", "f", 1.0), shadow, 0.0))[0]

        assert (found.result, where in found.difference) == (DIFFERENT, True)

    def test_compare_bytes_that_have_no_numbers(self) -> None:
        live, shadow = (binary("BYTES", "B", 1, 0, 0, 0, letter) for letter in b"ab")

        found = run(compare(live, shadow, 0.5))[0]
        assert found == Verdict(DIFFERENT, "outputs 'y': the bytes of a tensor of BYTES differ")

    @given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 80), st.integers(0, 80))
    def test_never_fail_on_garbage(self, one: bytes, other: bytes, at: int, of: int) -> None:
        answers = (
            Answer(200, (b"inference-header-content-length: %d" % length,), body)
            for body, length in ((one, at), (other, of))
        )

        assert run(compare(*answers, 0.1))[0].result in (EQUAL, DIFFERENT)
