"""Finds where a request's head ends, in bytes that come in any pieces.

Owns the limits of what may be kept while the end has not come, and the early refusal of what can never become a
request. Pure; one object a connection.
"""

from __future__ import annotations

from typing import Final

from router.core import errors
from router.core.errors import ProtocolError
from router.core.framing import METHOD_BYTES, early_fault

_AROUND_TARGET: Final = METHOD_BYTES + len(b"  HTTP/1.1")


class HeadReader:
    """Remembers how much it has searched, so that a head that comes byte by byte is not searched again and again."""

    __slots__ = ("_head_bytes", "_searched", "_target_bytes")

    def __init__(self, head_bytes: int, target_bytes: int) -> None:
        self._head_bytes = head_bytes
        self._target_bytes = target_bytes
        self._searched = 0

    def cut(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head at the beginning of `data`, without its empty line, and what follows it.

        None when it is not complete: call again with the same bytes and more. Raises `ProtocolError`.
        """
        # RFC 9112 section 2.2: one empty line before a request is ignored
        begin = 2 if data.startswith(b"\r\n") else 0
        end = data.find(b"\r\n\r\n", self._searched - 3 if self._searched > begin + 3 else begin)
        if begin and data.startswith(b"\r", begin):
            raise ProtocolError(errors.bad_request("empty lines instead of a request; send an HTTP/1.1 request"))
        if end < 0 or end + 2 - begin > self._head_bytes:
            self._check_partial(data, begin)
            return None
        self._searched = 0
        return data[begin : end + 2], data[end + 4 :]

    def _check_partial(self, data: bytes, begin: int) -> None:
        line_bytes = begin + self._target_bytes + _AROUND_TARGET
        if len(data) > line_bytes and data.find(b"\r\n", begin, line_bytes + 2) < 0:
            raise ProtocolError(errors.too_large(414, "the request target is too long", self._target_bytes))
        if len(data) - begin > self._head_bytes:
            raise ProtocolError(errors.too_large(431, "the request's head is too long", self._head_bytes))
        if data in (b"\r", b"\r\n"):
            return
        fault = early_fault(data, max(begin, self._searched), begin)
        if fault is not None:
            raise fault
        self._searched = len(data)
