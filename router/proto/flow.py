"""Back-pressure between the two sides of a request, and closing a socket without losing the answer.

Owns reading and the write buffer of one transport: `Flow` remembers what it asked for, since asking twice costs and a
closed transport must not be asked. The write buffer is bounded by pausing whoever fills it, never by dropping.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

# Above this the other side is told to wait. Large enough for a socket to stay busy, small enough for 10,000 of them.
HIGH_WATER_BYTES: Final = 262_144


class Flow:
    """One transport's reading, pausable any number of times."""

    __slots__ = ("is_reading", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.is_reading = True
        transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)

    def pause_reading(self) -> None:
        if self.is_reading and not self.transport.is_closing():
            self.is_reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.is_reading and not self.transport.is_closing():
            self.is_reading = True
            self.transport.resume_reading()

    def end_writing(self) -> None:
        """Sends FIN behind what is buffered, and keeps reading. TLS knows no such half: there it does nothing."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            # The peer may have reset the connection a moment ago: then there is nobody to tell.
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    def reset(self) -> None:
        """Ends with RST: the only way to tell an HTTP/1.0 client that an answer without a length is cut off."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
