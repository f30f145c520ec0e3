"""A request's body on its way in: decoded, measured, and held until it is whole or too long to hold.

Pure; one object for each request whose body did not come with its head.
"""

from __future__ import annotations

from router.config import Limits
from router.core import errors
from router.core.chunked import ChunkDecoder, LengthDecoder
from router.core.errors import ProtocolError


class Intake:
    """`length` -1: a chunked body."""

    __slots__ = ("_decoder", "_held", "_limits", "length", "size")

    def __init__(self, length: int, limits: Limits) -> None:
        self._decoder = ChunkDecoder() if length < 0 else LengthDecoder(length)
        self._limits = limits
        self._held = bytearray()  # a list of pieces would cost forty times their bytes when they come one by one
        self.size = 0
        self.length = length

    @property
    def is_whole(self) -> bool:
        return self._decoder.done

    @property
    def rest(self) -> bytes:
        """What came behind the body."""
        return self._decoder.rest

    @property
    def is_too_long_to_hold(self) -> bool:
        return max(self.size, self.length) > self._limits.buffer_bytes

    def feed(self, data: bytes) -> bytes:
        """The body's bytes among `data`. Raises `ProtocolError` for broken framing or a body over its limit."""
        piece = self._decoder.feed(data)
        self.size += len(piece)
        if self.size > self._limits.body_bytes:
            raise ProtocolError(errors.too_large(413, "a chunked body", self._limits.body_bytes))
        return piece

    def hold(self, piece: bytes) -> None:
        self._held += piece

    def take(self) -> bytes:
        """All that is held."""
        body = bytes(self._held)
        self._held = bytearray()
        return body
