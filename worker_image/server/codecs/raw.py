"""Tensors as the bytes that the Open Inference Protocol calls raw: row-major, little-endian, no padding.

BYTES are each preceded by their length in four bytes, BOOL are bytes of 0 and 1. Numbers are views into what was
received and what the model answered: nothing is copied that lies well already. Used by the binary extension of REST
and by gRPC alike; where the bytes stand in a message is theirs to know.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from worker_image.server.bfloat16 import BF16
from worker_image.server.errors import RequestError, bad_request
from worker_image.server.tensors import NUMPY_TYPES, Tensor, datatype_of

# As numpy's own limit, and well below that of its 64-bit sizes.
MOST_DIMENSIONS = 32
_MOST_ELEMENTS = 1 << 56
_LENGTH = struct.Struct("<I")


def read(content: memoryview, datatype: str, shape: Sequence[int], where: str) -> Tensor:
    """A tensor that lies in `content`, which must be of the very size that type and shape say. It is as writable as
    `content` is; BYTES that are UTF-8 become `str`.
    """
    count = elements(shape, where)
    if datatype not in NUMPY_TYPES:
        raise unknown_datatype(datatype, where)
    if datatype == "BYTES":
        return _objects(_strings(content, count, where), shape)
    dtype = _wire_type(datatype)
    if len(content) != count * dtype.itemsize:
        raise bad_request(
            f"{where}: {len(content)} bytes of data; datatype {datatype} and shape {list(shape)} mean "
            f"{count * dtype.itemsize}; make them agree"
        )
    if datatype == "BOOL" and count and np.frombuffer(content, np.uint8).max() > 1:
        raise bad_request(f"{where}: a byte above 1; datatype BOOL is 0 or 1 in a byte each; correct it")
    tensor: Tensor = np.ndarray(tuple(shape), dtype, content)
    # Frameworks take it that numbers lie where the processor wants them.
    return tensor if tensor.flags.aligned else tensor.copy()


def write(tensor: Tensor) -> memoryview:
    """`tensor` as bytes: its own memory where that is in order."""
    datatype = datatype_of(tensor.dtype)
    if datatype == "BYTES":
        return memoryview(b"".join(_with_lengths(tensor)))
    ordered = np.asarray(tensor, _wire_type(datatype), order="C")
    return ordered.reshape(-1).view(np.uint8).data


def strings(values: Sequence[memoryview]) -> Tensor:
    """A tensor of one dimension, of strings that came one by one."""
    return _objects([_text_or_bytes(value) for value in values], (len(values),))


def encoded(tensor: Tensor) -> Iterator[bytes]:
    """The strings of a tensor, one by one. Raises `TypeError` for what is none."""
    for value in tensor.ravel().tolist():
        content = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        if not isinstance(content, bytes):
            raise TypeError(f"a {type(value).__name__} among the strings of a BYTES tensor")
        yield content


def elements(shape: Sequence[int], where: str) -> int:
    """How many elements `shape` means; refuses what is no shape of a request."""
    if any(length < 0 for length in shape):
        raise bad_request(
            f"{where}: shape {list(shape)}; a request says real lengths; -1 stands in metadata only; send the count"
        )
    if len(shape) > MOST_DIMENSIONS or math.prod(length or 1 for length in shape) > _MOST_ELEMENTS:
        raise bad_request(
            f"{where}: shape {list(shape)[:MOST_DIMENSIONS]}; no tensor is that large; "
            f"at most {MOST_DIMENSIONS} dimensions and 2^56 elements are read; send fewer"
        )
    return math.prod(shape)


def unknown_datatype(datatype: str, where: str) -> RequestError:
    return bad_request(f"{where}: datatype {datatype!r}; it is one of {', '.join(NUMPY_TYPES)}; send one of these")


def _wire_type(datatype: str) -> np.dtype[Any]:
    return BF16 if datatype == "BF16" else NUMPY_TYPES[datatype].newbyteorder("<")


def _strings(content: memoryview, count: int, where: str) -> list[str | bytes]:
    values: list[str | bytes] = []
    place, end = 0, len(content)
    for index in range(count):
        start = place + _LENGTH.size
        place = start + _LENGTH.unpack_from(content, place)[0] if start <= end else end + 1
        if place > end:
            raise bad_request(
                f"{where}: element {index} of {count} is cut off after {end} bytes; BYTES are a length in four "
                "little-endian bytes and then as many bytes each; send all of them"
            )
        values.append(_text_or_bytes(content[start:place]))
    if place != end:
        raise bad_request(
            f"{where}: {end} bytes of data, {place} of them in the {count} elements of its shape; make them agree"
        )
    return values


def _text_or_bytes(content: memoryview) -> str | bytes:
    """Models take text as `str`, however it came; what is no UTF-8 is no text."""
    try:
        return str(content, "utf-8")
    except UnicodeDecodeError:
        return bytes(content)


def _objects(values: list[str | bytes], shape: Sequence[int]) -> Tensor:
    tensor = np.empty(len(values), dtype=object)
    tensor[:] = values
    return tensor.reshape(tuple(shape))


def _with_lengths(tensor: Tensor) -> Iterator[bytes]:
    for content in encoded(tensor):
        yield _LENGTH.pack(len(content))
        yield content
