"""HTTP/2's frames (RFC 9113): their numbers, how they are read, and the bytes of those that the gateway sends.

What a frame means for a connection is `proto/http2.py`'s affair; its header fields are `hpack.py`'s. Pure.
"""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9

# Kinds. Plain integers: looking an enum member up costs as much as the comparison, several times a request.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

# Flags.
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

# Error codes (section 7).
NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
INTERNAL_ERROR: Final = 0x2
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB

# Settings (section 6.5.2).
HEADER_TABLE_SIZE: Final = 0x1
ENABLE_PUSH: Final = 0x2
MAX_CONCURRENT_STREAMS: Final = 0x3
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5
MAX_HEADER_LIST_SIZE: Final = 0x6

DEFAULT_WINDOW: Final = 65_535
LARGEST_WINDOW: Final = (1 << 31) - 1
DEFAULT_FRAME_BYTES: Final = 16_384
LARGEST_FRAME_BYTES: Final = (1 << 24) - 1
LARGEST_STREAM: Final = (1 << 31) - 1

_HEADER: Final = struct.Struct(">HBBBL")  # the length's upper 16 bits and lower 8, kind, flags, stream
_SETTING: Final = struct.Struct(">HL")
_LONG: Final = struct.Struct(">L")


class Http2Error(Exception):
    """The client broke the protocol: the connection ends with `code`."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def read_header(buffer: bytes, at: int) -> tuple[int, int, int, int]:
    """Length, kind, flags and stream of the frame that begins at `at`; its nine bytes are there."""
    upper, lower, kind, flags, stream = _HEADER.unpack_from(buffer, at)
    return upper << 8 | lower, kind, flags, stream & LARGEST_STREAM


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without padding (section 6.1)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Http2Error(PROTOCOL_ERROR, "a frame is padded with more than its length")
    return payload[1 : len(payload) - payload[0]]


def header_block(flags: int, payload: bytes, stream: int) -> bytes:
    """The fragment of a header block that a HEADERS frame holds."""
    block = unpadded(flags, payload)
    if not flags & HAS_PRIORITY:
        return block
    if len(block) < 5:
        raise Http2Error(FRAME_SIZE_ERROR, "a HEADERS frame ends inside its priority")
    if _LONG.unpack_from(block)[0] & LARGEST_STREAM == stream:
        raise Http2Error(PROTOCOL_ERROR, "a stream depends on itself")
    return block[5:]


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """Raises `Http2Error` for values that are not allowed."""
    if len(payload) % _SETTING.size:
        raise Http2Error(FRAME_SIZE_ERROR, "a SETTINGS frame ends inside a setting")
    settings = [(int(name), int(value)) for name, value in _SETTING.iter_unpack(payload)]
    for name, value in settings:
        if name == ENABLE_PUSH and value > 1:
            raise Http2Error(PROTOCOL_ERROR, f"setting ENABLE_PUSH: {value} is neither 0 nor 1")
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise Http2Error(FLOW_CONTROL_ERROR, f"setting INITIAL_WINDOW_SIZE: {value} is too large")
        if name == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise Http2Error(PROTOCOL_ERROR, f"setting MAX_FRAME_SIZE: {value} is not allowed")
    return settings


def read_long(payload: bytes, what: str) -> int:
    """The 31 bits that a WINDOW_UPDATE frame consists of; a RST_STREAM frame has as many and one."""
    if len(payload) != _LONG.size:
        raise Http2Error(FRAME_SIZE_ERROR, f"a {what} frame has {len(payload)} bytes, not 4")
    return int(_LONG.unpack(payload)[0]) & LARGEST_WINDOW


def frame_header(length: int, kind: int, flags: int, stream: int) -> bytes:
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_header(len(payload), kind, flags, stream) + payload


def settings(values: dict[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def window_update(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _LONG.pack(increment))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _LONG.pack(code))


def goaway(last_stream: int, code: int, reason: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, _LONG.pack(last_stream) + _LONG.pack(code) + reason.encode()[:200])
