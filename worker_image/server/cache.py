"""Answers kept for equal requests, and one computation for equal requests at one time. Off unless it is asked for.

Two requests are equal when names, types, shapes and every byte of their tensors are, and they ask for the same outputs
with the same parameters.
The key is a SHA-256 over all of it: anything shorter would one day give somebody the answer of somebody else. An answer
lives `ttl_s` from when it was computed; over `max_bytes` the one that was longest unused goes first. Failures are not
kept. All of it runs on the event loop; times are seconds of one monotonic clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import numpy as np

from worker_image.server import trace
from worker_image.server.errors import RequestError
from worker_image.server.tensors import NO_PARAMETERS, Parameters, Tensor, Tensors, parameters_key

Compute = Callable[[], Awaitable[Tensors]]
# What one entry costs besides its tensors' bytes: key, dictionary, arrays. Rather too much than too little.
ENTRY_BYTES = 1024
_OBJECT_BYTES = 64


class Entry(NamedTuple):
    answer: Tensors
    expires: float
    size: int


class Cache:
    """`hits`, `misses` and `shared` (answered by another request's computation) count requests."""

    def __init__(self, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Future[Tensors]] = {}
        self.size = 0
        self.hits = 0
        self.misses = 0
        self.shared = 0

    async def answer(
        self, inputs: Tensors, outputs: tuple[str, ...], compute: Compute, parameters: Parameters = NO_PARAMETERS
    ) -> Tensors:
        """What `compute` gives, or gave. It is not to be changed: others get the same arrays."""
        key = key_of(inputs, outputs, parameters)
        if (known := self._known(key)) is not None:
            self.hits += 1
            _note("hit")
            return known
        while (under_way := self._under_way.get(key)) is not None:
            await asyncio.wait([under_way])
            if not under_way.cancelled():
                self.shared += 1
                _note("shared")
                return under_way.result()
            # Whoever computed it left, or ran out of time: one of those who waited is next.
        self.misses += 1
        _note("miss")
        return await self._compute(key, compute)

    async def _compute(self, key: bytes, compute: Compute) -> Tensors:
        self._under_way[key] = told = asyncio.get_running_loop().create_future()
        try:
            answer = await compute()
        except BaseException as exc:
            if isinstance(exc, RequestError) and exc.code != "DEADLINE":
                told.set_exception(exc)
                told.exception()  # else asyncio complains where nobody shares it
            else:
                told.cancel()
            raise
        finally:
            del self._under_way[key]
        told.set_result(answer)
        self._keep(key, answer)
        return answer

    def _known(self, key: bytes) -> Tensors | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.answer

    def _keep(self, key: bytes, answer: Tensors) -> None:
        size = ENTRY_BYTES + sum(_size(tensor) for tensor in answer.values())
        if size > self._max_bytes:
            return
        # A row of a batch is a view that would keep the whole batch in memory.
        owned = {name: tensor if tensor.base is None else tensor.copy() for name, tensor in answer.items()}
        self._entries[key] = Entry(owned, self._clock() + self._ttl_s, size)
        self.size += size
        while self.size > self._max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.size -= self._entries.pop(key).size


def _note(outcome: str) -> None:
    told = trace.current.get()
    if told is not None:
        told.from_cache(outcome)


def key_of(inputs: Tensors, outputs: tuple[str, ...], parameters: Parameters = NO_PARAMETERS) -> bytes:
    """Each part is preceded by its length, so that no two different requests give the same bytes."""
    digest = hashlib.sha256()
    for text in (str(len(outputs)), *outputs, parameters_key(parameters)):
        _add(digest, text.encode("utf-8", "surrogatepass"))
    for name in sorted(inputs):
        tensor = inputs[name]
        _add(digest, name.encode())
        _add(digest, f"{tensor.dtype.str}{tensor.shape}".encode())
        if tensor.dtype.hasobject:
            _add_objects(digest, tensor)
        else:
            digest.update(np.ascontiguousarray(tensor).data)
    return digest.digest()


def _add_objects(digest: hashlib._Hash, tensor: Tensor) -> None:
    for value in tensor.flat:
        if value is None:
            _add(digest, b"n")
            continue
        is_text = isinstance(value, str)
        _add(digest, b"t" if is_text else b"b")
        _add(digest, value.encode("utf-8", "surrogatepass") if is_text else bytes(value))


def _add(digest: hashlib._Hash, part: bytes) -> None:
    digest.update(struct.pack("<Q", len(part)))
    digest.update(part)


def _size(tensor: Tensor) -> int:
    if not tensor.dtype.hasobject:
        return tensor.nbytes
    return tensor.nbytes + sum(_OBJECT_BYTES + len(value) for value in tensor.flat)
