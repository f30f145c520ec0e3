"""W3C Trace Context: what a request says of the trace that it belongs to, and what is said on.

https://www.w3.org/TR/trace-context/. Pure. What cannot be read counts as not sent, and a new trace begins.
"""

from __future__ import annotations

import re
from typing import Final

# Section 3.2: later versions may append fields; version ff and ids of zeros are invalid.
_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[\x21-\x7e]{1,200})?")
_ZERO_TRACE: Final = b"0" * 32
_ZERO_SPAN: Final = b"0" * 16
_FLAGS_END: Final = 55
_ODD: Final = b"13579bdf"
# Section 3.3.1: so much must be passed on; what is longer is passed on to the replica, but in no span.
TRACESTATE_BYTES: Final = 512


def valid_traceparent(value: bytes) -> bytes:
    """`value`, or "" when it must not be used."""
    match = _TRACEPARENT.fullmatch(value)
    if match is None:
        return b""
    version, trace, span, more = match.groups()
    if version == b"ff" or trace == _ZERO_TRACE or span == _ZERO_SPAN or (version == b"00" and more):
        return b""
    return value


def is_sampled(traceparent: bytes) -> bool:
    """Of a valid one: whether whoever sent it records its trace."""
    return traceparent[_FLAGS_END - 1] in _ODD


def ids_of(traceparent: bytes) -> tuple[int, int]:
    """Of a valid one: the ids of its trace, and of the span that it was sent from."""
    return int(traceparent[3:35], 16), int(traceparent[36:52], 16)


def traceparent_of(trace_id: int, span_id: int, *, sampled: bool) -> bytes:
    return b"00-%032x-%016x-%02x" % (trace_id, span_id, sampled)
