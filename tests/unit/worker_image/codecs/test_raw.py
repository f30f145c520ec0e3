"""Tensors as bytes: every datatype, bit for bit, without a copy where there need be none."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from worker_image.server.bfloat16 import BF16
from worker_image.server.codecs import raw
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NUMPY_TYPES, datatype_of

NUMERIC = [dtype for name, dtype in NUMPY_TYPES.items() if name not in ("BYTES", "BF16")]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def refused(content: bytes, datatype: str, shape: list[int]) -> str:
    with pytest.raises(RequestError) as failed:
        raw.read(memoryview(content), datatype, shape, "input 'x'")
    assert failed.value.status == 400
    return failed.value.sentence


@given(st.data(), st.sampled_from(NUMERIC))
def test_numbers_come_back_bit_for_bit(data: st.DataObject, dtype: np.dtype[Any]) -> None:
    tensor = data.draw(hnp.arrays(dtype, SHAPES))

    read = raw.read(raw.write(tensor), datatype_of(dtype), tensor.shape, "x")

    assert (read.dtype, read.shape, read.tobytes()) == (tensor.dtype, tensor.shape, tensor.tobytes())


@given(hnp.arrays(np.uint16, SHAPES))
def test_bf16_comes_back_bit_for_bit(bits: Any) -> None:
    tensor = np.asarray(bits).view(BF16)

    read = raw.read(raw.write(tensor), "BF16", tensor.shape, "x")

    assert (read.dtype, read.shape, read.tobytes()) == (BF16, tensor.shape, tensor.tobytes())


@given(st.lists(st.text() | st.binary()))
def test_strings_come_back_as_text_where_they_are_utf_8(values: list[str | bytes]) -> None:
    tensor = np.empty(len(values), dtype=object)
    tensor[:] = values

    read = raw.read(raw.write(tensor), "BYTES", [len(values)], "x").tolist()

    for sent, got in zip(values, read, strict=True):
        content = sent if isinstance(sent, bytes) else sent.encode()
        assert got == content or got.encode() == content
        assert isinstance(got, str) or not is_utf_8(content)


def is_utf_8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


class TestRead:
    def test_copies_nothing_and_may_be_written_to_as_the_memory_may(self) -> None:
        memory = np.zeros(16, np.uint8)

        tensor = raw.read(memory.data, "FP32", [4], "x")
        tensor[0] = 1.0

        assert memory[:4].tobytes() == struct.pack("<f", 1.0)

    def test_numbers_at_an_odd_address_are_moved_to_an_even_one(self) -> None:
        memory = memoryview(b"x" + struct.pack("<2d", 1.0, 2.0))[1:]

        tensor = raw.read(memory, "FP64", [2], "x")

        assert tensor.flags.aligned
        assert tensor.tolist() == [1.0, 2.0]

    @pytest.mark.parametrize(
        ("content", "datatype", "shape", "words"),
        [
            (b"1234567", "FP32", [2], "7 bytes of data; datatype FP32 and shape [2] mean 8"),
            (b"123456789", "FP32", [2], "9 bytes of data; datatype FP32 and shape [2] mean 8"),
            (b"", "FP32", [1], "0 bytes of data; datatype FP32 and shape [1] mean 4"),
            (b"1234", "BF16", [1], "4 bytes of data; datatype BF16 and shape [1] mean 2"),
            (b"1", "FLOAT", [1], "datatype 'FLOAT'; it is one of BOOL"),
            (b"\x01\x02", "BOOL", [2], "a byte above 1; datatype BOOL is 0 or 1"),
            (b"1234", "FP32", [-1], "-1 stands in metadata only"),
            (b"", "FP32", [0, 1 << 62, 1 << 62], "no tensor is that large"),
            (b"", "BYTES", [1 << 60], "no tensor is that large"),
            (b"1", "UINT8", [1] * 40, "at most 32 dimensions"),
            (b"", "BYTES", [1], "element 0 of 1 is cut off after 0 bytes"),
            (b"\x01\0\0", "BYTES", [1], "element 0 of 1 is cut off after 3 bytes"),
            (b"\x01\0\0\0a\x05\0\0\0b", "BYTES", [2], "element 1 of 2 is cut off after 10 bytes"),
            (b"\xff\xff\xff\xff", "BYTES", [1], "element 0 of 1 is cut off"),
            (b"\x01\0\0\0ab", "BYTES", [1], "6 bytes of data, 5 of them in the 1 elements"),
        ],
    )
    def test_refuses_what_does_not_agree(self, content: bytes, datatype: str, shape: list[int], words: str) -> None:
        assert words in refused(content, datatype, shape)


class TestWrite:
    def test_gives_the_memory_of_the_tensor_itself(self) -> None:
        tensor = np.arange(4.0)

        assert raw.write(tensor).obj.base is tensor  # type: ignore[attr-defined]  # numpy's, not any object's

    @pytest.mark.parametrize("tensor", [np.arange(6.0).reshape(2, 3).T, np.array([1, 256], ">i2")])
    def test_puts_other_layouts_in_order(self, tensor: Any) -> None:
        read = raw.read(raw.write(tensor), datatype_of(tensor.dtype), tensor.shape, "x")

        assert read.tolist() == tensor.tolist()

    @pytest.mark.parametrize(
        "tensor", [np.array(["a", "é"]), np.array([b"a", "é".encode()]), np.array(["a", "é"], object)]
    )
    def test_takes_strings_of_every_numpy_kind(self, tensor: Any) -> None:
        assert bytes(raw.write(tensor)) == b"\x01\0\0\0a\x02\0\0\0\xc3\xa9"

    def test_does_not_take_numbers_for_strings(self) -> None:
        with pytest.raises(TypeError, match="a int among the strings"):
            raw.write(np.array(["a", 5], object))
