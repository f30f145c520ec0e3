from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from worker_image.server.codecs import wire
from worker_image.server.errors import RequestError

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)


def packed(field: str, values: list[int]) -> memoryview:
    """By a real writer: the bytes of the one packed field."""
    message = service_pb2.InferTensorContents(**{field: values}).SerializeToString()
    if not message:
        return memoryview(b"")
    ((_, _, value),) = wire.fields(memoryview(message))
    assert isinstance(value, memoryview)
    return value


class TestVarints:
    @given(st.lists(UINT64, max_size=50) | st.lists(st.integers(0, 200), max_size=50))
    def test_are_read_and_written_as_a_real_one_does(self, values: list[int]) -> None:
        data = packed("uint64_contents", values)

        assert wire.varints(data).tolist() == values
        assert wire.pack_varints(np.array(values, np.uint64)) == bytes(data)

    @given(st.lists(INT64, max_size=50))
    def test_of_negative_numbers_have_64_bits(self, values: list[int]) -> None:
        data = packed("int64_contents", values)

        assert wire.varints(data).view(np.int64).tolist() == values
        assert wire.pack_varints(np.array(values, np.int64)) == bytes(data)

    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"\x80", "a number is cut off"),
            (b"\x01\x80", "a number is cut off"),
            (b"\x80" * 10 + b"\1", "more than 64"),
        ],
    )
    def test_that_are_none_are_refused(self, data: bytes, what: str) -> None:
        with pytest.raises(RequestError, match=what):
            wire.varints(memoryview(data))


class TestFields:
    @pytest.mark.parametrize(
        ("data", "what"),
        [
            (b"\x0a\x05ab", "a field is longer than its message"),
            (b"\x0b", "wire type 3 is not proto3's"),
            (b"\x80" * 11, "a number is cut off or too long"),
            (b"\x09\x00", "a field is longer than its message"),
        ],
    )
    def test_that_are_broken_are_refused(self, data: bytes, what: str) -> None:
        with pytest.raises(RequestError, match=what):
            list(wire.fields(memoryview(data)))

    @given(st.binary(max_size=50))
    def test_raise_nothing_else(self, data: bytes) -> None:
        try:
            for _, kind, value in wire.fields(memoryview(data)):
                assert isinstance(value, int) == (kind == wire.VARINT)
        except RequestError as exc:
            assert exc.status == 400  # noqa: PT017 - it need not be raised
