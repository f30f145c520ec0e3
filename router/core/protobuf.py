"""Protocol Buffers' wire format, as much of it as the gateway needs: the short fields of a message that it passes on
unread, and the few small messages that it writes itself.

Reads the top level alone, and skips what it does not look for by its length, so that a tensor of megabytes costs
nothing. It accepts no more than a real parser does: what it refuses is broken or of no use (groups, which proto3 does
not have). Pure. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from router.core.errors import ProtocolError, malformed

# An inference request has one or two for each tensor; each costs 0.3 µs, whatever is in it.
MOST_FIELDS: Final = 10_000

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_FIXED: Final = {_FIXED64: 8, _FIXED32: 4}

Value = bytes | bytearray | int


# A name is no longer than this; longer fields are told apart by nothing.
_SHORT_BYTES: Final = 8_192
_SKIPPED: Final = b"\xff"  # no UTF-8, so that it cannot pass for a text


def fields(message: bytes | bytearray, longest: int = _SHORT_BYTES) -> Iterator[tuple[int, Value]]:
    """The number and value of each field, in their order; one of more than `longest` bytes is left out of its value.
    Raises `ProtocolError`."""
    at, end, count = 0, len(message), 0
    while at < end:
        count += 1
        if count > MOST_FIELDS:
            raise malformed(f"the message has more than {MOST_FIELDS} fields; send fewer")
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise _broken(f"field number {number} is not allowed")
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        size = _FIXED.get(kind)
        if size is None:
            if kind != _BYTES:
                raise _broken(f"field {number} is of wire type {kind}")
            size, at = _varint(message, at)
        if at + size > end:
            raise _broken(f"field {number} is longer than the message")
        yield number, message[at : at + size] if kind == _BYTES and size <= longest else _SKIPPED
        at += size


def texts(message: bytes | bytearray, most: int) -> list[str]:
    """The strings in fields 1 to `most`, "" where there is none. Of several in one field the last one counts, as the
    format demands: a reader of the first would serve another model than the replica thinks. Raises `ProtocolError`."""
    found: list[Value] = [b""] * most
    for number, value in fields(message):
        if number <= most and not isinstance(value, int):
            found[number - 1] = value
    return [_decode(value, number) for number, value in enumerate(found, 1)]


def text(number: int, value: str) -> bytes:
    """A field that holds a string; like all of proto3's it is left out when it is empty."""
    return message(number, value.encode()) if value else b""


def message(number: int, value: bytes) -> bytes:
    """A field that holds a message, also when it is empty."""
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(value)) + value


def integer(number: int, value: int) -> bytes:
    """A field that holds a number, an enum's or a boolean."""
    return _to_varint(number << 3 | _VARINT) + _to_varint(value) if value else b""


def integers(number: int, values: list[int]) -> bytes:
    """A repeated int64, packed."""
    return message(number, b"".join(map(_to_varint, values))) if values else b""


def _varint(message: bytes | bytearray, at: int) -> tuple[int, int]:
    number = shift = 0
    for byte in message[at : at + 10]:
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise _broken("a number is cut off or too long")


def _to_varint(number: int) -> bytes:
    if 0 <= number < 0x80:
        return bytes((number,))
    number &= (1 << 64) - 1  # negative ones are written as 64 bits
    coded = bytearray()
    while number >= 0x80:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    coded.append(number)
    return bytes(coded)


def _decode(value: Value, number: int) -> str:
    assert not isinstance(value, int)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _broken(f"field {number} is no text of at most {_SHORT_BYTES} bytes") from None


def _broken(what: str) -> ProtocolError:
    return malformed(f"not the message that this method takes: {what}; send it as the protocol's .proto file says")
