"""HPACK (RFC 7541): the compressed header fields of HTTP/2, read strictly and written plainly.

`Decoder` is one connection's: it holds the table that the client fills. Bounded in what it keeps and in what one block
may grow to, whatever is sent. What the gateway writes refers to no table of the client's, so that nothing has to be
remembered for it. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from router.core import huffman

Field = tuple[bytes, bytes]

TABLE_BYTES: Final = 4096  # what HTTP/2 begins with; the gateway never announces more
_OVERHEAD: Final = 32  # what a field counts beside its bytes, in a table and in a list (sections 4.1 of 7541, 6.5.2)
_STATIC: Final[tuple[Field, ...]] = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""),
    (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""), (b"content-type", b""),
    (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""),
    (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""), (b"max-forwards", b""),
    (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""), (b"referer", b""), (b"refresh", b""),
    (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""), (b"strict-transport-security", b""),
    (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""), (b"via", b""), (b"www-authenticate", b""),
)  # fmt: skip
_STATIC_COUNT: Final = len(_STATIC)
# RFC 9113 section 8.2.1: names in lower case, and no control byte but a tab, for these fields become lines of HTTP/1.1.
_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
# A table index or a length above this is nonsense: no head is so long.
_LARGEST: Final = 1 << 24


class HpackError(Exception):
    """The block cannot be read. What comes after it cannot either, for the tables of both sides differ now."""


class Decoder:
    """Reads the blocks of one connection in their order. A block whose fields come to more than `list_bytes` is read
    to its end, as the table wants it, and given up as too long."""

    def __init__(self, list_bytes: int) -> None:
        self._list_bytes = list_bytes
        self._table: list[Field] = []  # the newest last
        self._size = 0
        self._capacity = TABLE_BYTES

    def decode(self, block: bytes) -> list[Field] | None:
        """The fields of a block; None when they are too long. Raises `HpackError`."""
        fields: list[Field] = []
        size = 0
        try:
            at = self._resize(block)
            while at < len(block):
                field, at = self._field(block, at)
                size += len(field[0]) + len(field[1]) + _OVERHEAD
                if size <= self._list_bytes:
                    fields.append(field)
        except IndexError:
            raise HpackError("the block ends inside a field") from None
        return fields if size <= self._list_bytes else None

    def _resize(self, block: bytes) -> int:
        """Takes the changes of the table's capacity at the block's beginning; only there they may be."""
        at = 0
        while block[at : at + 1] and block[at] & 0xE0 == 0x20:
            capacity, at = _integer(block, at, 0x1F)
            if capacity > TABLE_BYTES:
                raise HpackError(f"the table is to grow to {capacity} bytes; at most {TABLE_BYTES} were announced")
            self._capacity = capacity
            self._evict(0)
        return at

    def _field(self, block: bytes, at: int) -> tuple[Field, int]:
        byte = block[at]
        if byte & 0x80:
            index, at = (byte & 0x7F, at + 1) if byte != 0xFF else _integer(block, at, 0x7F)
            return self._indexed(index), at
        if byte & 0x40:
            field, at = self._literal(block, at, 0x3F)
            self._insert(field)
            return field, at
        if byte & 0x20:
            raise HpackError("the table's capacity changes in the middle of a block")
        return self._literal(block, at, 0x0F)

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[Field, int]:
        index, at = _integer(block, at, mask)
        if index:
            name = self._indexed(index)[0]
        else:
            name, at = _string(block, at)
            if not _NAME.fullmatch(name):
                raise HpackError("a field's name is not in lower case, or holds what a name cannot hold")
        value, at = _string(block, at)
        if not _VALUE.fullmatch(value):
            raise HpackError(f"the value of {name[:40].decode('latin-1')!r} holds a control byte")
        return (name, value), at

    def _indexed(self, index: int) -> Field:
        if 0 < index <= _STATIC_COUNT:
            return _STATIC[index - 1]
        place = index - _STATIC_COUNT
        if not 0 < place <= len(self._table):
            raise HpackError(f"field {index} is in no table")
        return self._table[-place]

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict(size)
        if size <= self._capacity:  # else the table is empty now, which is no error (section 4.4)
            self._table.append(field)
            self._size += size

    def _evict(self, needed: int) -> None:
        """Makes room for `needed` bytes, the oldest fields first."""
        gone = 0
        while self._size + needed > self._capacity and gone < len(self._table):
            name, value = self._table[gone]
            self._size -= len(name) + len(value) + _OVERHEAD
            gone += 1
        del self._table[:gone]


def literal(name: bytes, value: bytes) -> bytes:
    """A field that stands for itself and is put in no table."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """A number that begins in the low bits of a byte (section 5.1), and where it ends."""
    number = block[at] & mask
    at += 1
    if number < mask:
        return number, at
    shift = 0
    while True:
        byte = block[at]
        at += 1
        number += (byte & 0x7F) << shift
        shift += 7
        if number > _LARGEST or shift > 28:
            raise HpackError("a number is too large")
        if not byte & 0x80:
            return number, at


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    is_coded = block[at] & 0x80
    length, at = _integer(block, at, 0x7F)
    if at + length > len(block):
        raise HpackError("a string is longer than its block")
    text = block[at : at + length]
    if not is_coded:
        return text, at + length
    decoded = huffman.decode(text)
    if decoded is None:
        raise HpackError("a string is not in the Huffman code")
    return decoded, at + length


def _length(number: int) -> bytes:
    if number < 0x7F:
        return bytes((number,))
    rest = number - 0x7F
    coded = bytearray((0x7F,))
    while rest >= 0x80:
        coded.append(rest & 0x7F | 0x80)
        rest >>= 7
    coded.append(rest)
    return bytes(coded)
