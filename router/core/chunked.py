"""Message bodies in pieces: strict decoders of the two framings that have an end, one interface.

`feed(data)` returns the body bytes among `data`; after it `done` says whether the body is complete and `rest` holds
what came behind it. Raises `ProtocolError` at the first byte that is not of the grammar (RFC 9112 section 7.1); chunk
extensions and trailers are checked, bounded and dropped.
"""

from __future__ import annotations

import re
from typing import Final

from router.core import errors
from router.core.errors import ProtocolError, malformed
from router.core.framing import check_trailers

# A size line holds up to 16 digits and perhaps extensions, which nobody here reads. They are of RFC 9112's grammar all
# the same, without the whitespace that it tolerates: readers differ on where a line with other bytes ends (TERM.EXT).
LINE_BYTES: Final = 4096
TRAILER_BYTES: Final = 8192
# Size lines beyond an ordinary one and twice their chunk's data may take so much in one body: a sender of one byte and
# a long extension at a time would have us read thousands of times what the limit on bodies says (CVE-2023-39326).
EXCESS_BYTES: Final = 16_384
_ORDINARY_LINE_BYTES: Final = 16
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Nothing possessive around a group (framing.py): what follows a part can never be its own, so that this is linear too.
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSIONS: Final = rb"(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16}+)" + _EXTENSIONS)
_MAX_CHUNK: Final = 1 << 53

_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class LengthDecoder:
    """A body of exactly `length` bytes."""

    __slots__ = ("done", "left", "rest")

    def __init__(self, length: int) -> None:
        self.left = length
        self.done = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if len(data) <= self.left:
            self.left -= len(data)
            self.done = self.left == 0
            return data
        body, self.rest = data[: self.left], data[self.left :]
        self.left = 0
        self.done = True
        return body


class ChunkDecoder:
    """A chunked body."""

    __slots__ = ("_buffer", "_excess", "_left", "_state", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._excess = 0
        self._left = 0
        self._state = _SIZE
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.done:
            if self._state == _DATA:
                piece = data[at : at + self._left]
                pieces.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = _DATA_END
                continue
            used = self._step(data, at)
            if not used:
                self._buffer = data[at:]
                break
            at += used
        if self.done:
            self.rest = data[at:]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _step(self, data: bytes, at: int) -> int:
        """Reads one delimiter at `at` and returns its length, 0 when it is not complete."""
        if self._state == _DATA_END:
            return self._read_data_end(data, at)
        if self._state == _TRAILERS:
            return self._read_trailers(data, at)
        return self._read_size(data, at)

    def _read_size(self, data: bytes, at: int) -> int:
        end = _line_end(data, at, LINE_BYTES)
        if end < 0:
            return 0
        match = _SIZE_LINE.fullmatch(data, at, end)
        if match is None or int(match.group(1), 16) > _MAX_CHUNK:
            line = data[at : min(end, at + 40)]
            raise malformed(
                f"chunk size line {line!r} is not a hexadecimal size with extensions `;name=value`; correct it"
            )
        size = self._left = int(match.group(1), 16)
        self._state = _DATA if size else _TRAILERS
        self._excess = max(0, self._excess + end - at - _ORDINARY_LINE_BYTES - 2 * size)
        if self._excess > EXCESS_BYTES:
            raise ProtocolError(errors.too_large(413, "chunk extensions are longer than their data", EXCESS_BYTES))
        return end + 2 - at

    def _read_data_end(self, data: bytes, at: int) -> int:
        end = data[at : at + 2]
        if end == b"\r\n":
            self._state = _SIZE
            return 2
        if end == b"\r":
            return 0
        raise malformed(f"a chunk is followed by {end!r}; CR LF ends its data; correct its size")

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self.done = True
            return 2
        end = data.find(b"\r\n\r\n", at)
        if (end if end >= 0 else len(data)) - at > TRAILER_BYTES:
            raise ProtocolError(errors.too_large(431, "the trailers are too long", TRAILER_BYTES))
        if end < 0:
            _line_end(data, at, TRAILER_BYTES)  # a bare LF is told at once
            return 0
        check_trailers(data[at:end])
        self.done = True
        return end + 4 - at


def _line_end(data: bytes, at: int, limit: int) -> int:
    """Where the CR of the line's CRLF stands, -1 when it has not come. A bare LF or a line over `limit` is refused."""
    newline = data.find(b"\n", at, at + limit + 2)
    if newline < 0:
        if len(data) - at > limit:
            raise malformed(f"a chunk line is longer than {limit} bytes; leave chunk extensions out")
        return -1
    if newline == at or data[newline - 1] != 13:
        raise malformed("a chunk line ends with a bare LF; lines end with CR LF; correct the sender")
    return newline - 1


BodyDecoder = LengthDecoder | ChunkDecoder
