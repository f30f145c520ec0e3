"""Protocol Buffers' wire format: the fields of a message as they lie in it, and numbers by the array.

A message is read without being copied, and packed numbers without a loop: a message of Python objects, one for each
number, would cost fifty times its length. Owns no message; those of the Open Inference Protocol are `v2_message.py`'s.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from worker_image.server.errors import RequestError, bad_request

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_MOST_VARINT_BYTES = 10

Numbers = np.ndarray[Any, np.dtype[np.uint64]]
Value = memoryview | int


def fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Number, wire type and value of each field: a number for VARINT, else the bytes."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, kind, value
            continue
        size = _FIXED.get(kind)
        if size is None:
            if kind != BYTES:
                raise broken(f"wire type {kind} is not proto3's")
            size, at = _varint(message, at)
        if at + size > end:
            raise broken("a field is longer than its message")
        yield tag >> 3, kind, message[at : at + size]
        at += size


def text(value: Value, what: str) -> str:
    try:
        return str(_bytes(value, what), "utf-8")
    except UnicodeDecodeError:
        raise broken(f"{what} is no UTF-8") from None


def message(value: Value, what: str) -> memoryview:
    return _bytes(value, what)


def varints(packed: memoryview) -> Numbers:
    """The numbers of a packed field: each is the low seven bits of its bytes, of which all but the last are above
    127."""
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if len(ends) == len(data):
        return data.astype(np.uint64)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise broken("a number is cut off")
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts + 1
    if lengths.max() > _MOST_VARINT_BYTES:
        raise broken("a number has more than 64 bits")
    places = np.arange(len(data)) - np.repeat(starts, lengths)
    parts = (data & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.add.reduceat(parts, starts)


def pack_varints(numbers: np.ndarray[Any, Any]) -> bytes:
    """The other way. Negative numbers are written as the 64 bits that they are."""
    values = numbers.astype(np.int64).view(np.uint64) if numbers.dtype.kind == "i" else numbers.astype(np.uint64)
    if not len(values) or values.max() < 0x80:
        return values.astype(np.uint8).tobytes()
    groups = values[:, None] >> np.arange(0, 7 * _MOST_VARINT_BYTES, 7, dtype=np.uint64)
    is_there = groups > 0
    is_there[:, 0] = True
    has_next = np.zeros_like(is_there)
    has_next[:, :-1] = is_there[:, 1:]
    coded = (groups & np.uint64(0x7F)).astype(np.uint8) | (has_next.astype(np.uint8) << 7)
    return coded[is_there].tobytes()


def field(number: int, value: bytes) -> bytes:
    """A field of bytes, also when they are none."""
    return head(number, len(value)) + value


def head(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of a field."""
    return _to_varint(number << 3 | BYTES) + _to_varint(size)


def text_field(number: int, value: str) -> bytes:
    """Left out when it is empty, as proto3 has it."""
    return field(number, value.encode()) if value else b""


def integer_field(number: int, value: int) -> bytes:
    return _to_varint(number << 3 | VARINT) + _to_varint(value)


def integers_field(number: int, values: Sequence[int]) -> bytes:
    """Of numbers that are not negative."""
    return field(number, b"".join(map(_to_varint, values))) if values else b""


def broken(what: str) -> RequestError:
    return bad_request(f"body: not the message that this method takes: {what}; send it as the .proto file says")


def _bytes(value: Value, what: str) -> memoryview:
    if isinstance(value, int):
        raise broken(f"{what} is a number")
    return value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = shift = 0
    for byte in message[at : at + _MOST_VARINT_BYTES]:
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise broken("a number is cut off or too long")


def _to_varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    coded = bytearray()
    while number >= 0x80:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    coded.append(number)
    return bytes(coded)
