"""Whether a large request fits into what the memory limit leaves: asked before it is read, and before it is decoded.

Without it one request could end the whole replica, and with it everybody else's. Small bodies are not looked at. JSON
costs many times its length, binary tensors little more than theirs. Pure
bookkeeping but for `held`, which says what the process holds once the model is loaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker_image.server.errors import RequestError
from worker_image.server.limits import resident_bytes

# Bodies below this are not looked at: no real limit is so tight, and counting costs time.
LARGE_BYTES = 1 << 20
# A body as it arrives, in one piece, and as tensors of its numbers at full width.
COPIES = 3
# A body of binary tensors, which are views into it, and the batch that they are joined to.
BINARY_COPIES = 2
# One element of JSON or a string, while it is read: a Python object, its place in a list, and its place in an array.
ELEMENT_BYTES = 64
# The allocator never gives back all that it could, and the answer needs room too.
USABLE = 0.9


class Room:
    """`limit_bytes` None: there is no limit, and everything fits."""

    def __init__(self, limit_bytes: int | None, held: Callable[[], int] = resident_bytes) -> None:
        self._limit_bytes = None if limit_bytes is None else int(limit_bytes * USABLE)
        self._held = held
        self._idle_bytes = 0
        self._taken_bytes = 0

    def settle(self) -> None:
        """What is held now is the model's, and stays."""
        self._idle_bytes = self._held()

    def most_bytes(self, copies: int = COPIES) -> int:
        """The largest body that can be read at all."""
        if self._limit_bytes is None:
            return sys.maxsize
        return max(0, self._limit_bytes - self._idle_bytes) // copies

    @contextmanager
    def take(self, size: int, elements: int = 0, copies: int = COPIES) -> Iterator[None]:
        """Room for a request of `size` bytes while it is inside, and for as many `elements` of JSON or strings. Raises
        413 for what can never fit, 503 for what does not fit now.
        """
        needed = size * copies + elements * ELEMENT_BYTES
        self._check(size, needed)
        self._taken_bytes += needed
        try:
            yield
        finally:
            self._taken_bytes -= needed

    def _check(self, size: int, needed: int) -> None:
        if self._limit_bytes is None:
            return
        free = self._limit_bytes - self._idle_bytes
        said = f"body: {size} bytes need about {needed >> 20} MiB to be predicted"
        if needed > free:
            advice = "send fewer rows in a request, or raise `resources.memory`"
            raise RequestError("TOO_LARGE", f"{said}; {max(0, free) >> 20} MiB are left beside the model; {advice}")
        if needed + self._taken_bytes > free:
            raise RequestError("OVERLOADED", f"{said}; other requests hold that memory now; try again later")
