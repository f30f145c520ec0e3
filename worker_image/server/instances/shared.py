"""Tensors in memory that two processes share: one writes, the other reads, by turns.

Owns one anonymous file and its mapping. Numbers lie in it one after the other, aligned; tensors of objects (strings)
have no place there and travel in the description instead. Whoever reads gets views: they hold until the next write.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from typing import Any, NamedTuple

import numpy as np

from worker_image.server.tensors import Tensor, Tensors

# Vector instructions like their data at the start of a cache line.
ALIGNED_BYTES = 64
_LEAST_BYTES = 1 << 16


class Place(NamedTuple):
    """Where one tensor lies; `values` instead, when it is one of objects."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    values: Any = None


def side_by_side(requests: list[Tensors]) -> Tensors:
    """The tensors of several requests as those of one, for one writing; `apart` parts them again."""
    return {f"{number}/{name}": tensor for number, request in enumerate(requests) for name, tensor in request.items()}


def apart(joined: Tensors, count: int = 0) -> list[Tensors]:
    """At least `count`: an answer without a tensor leaves no trace."""
    requests: list[Tensors] = [{} for _ in range(count)]
    for key, tensor in joined.items():
        number, _, name = key.partition("/")
        while len(requests) <= int(number):
            requests.append({})
        requests[int(number)][name] = tensor
    return requests


class SharedTensors:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls) -> SharedTensors:
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("modelfleet-tensors", 0))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    @property
    def fd(self) -> int:
        return self._fd

    def write(self, tensors: Tensors) -> list[Place]:
        places, end = [], 0
        for name, tensor in tensors.items():
            if tensor.dtype.hasobject:
                places.append(Place(name, "object", tensor.shape, 0, tensor.ravel().tolist()))
                continue
            places.append(Place(name, tensor.dtype.str, tensor.shape, end))
            end += -(-tensor.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
        self._hold(end)
        for place in places:
            if place.values is None:
                np.copyto(self._view(place), tensors[place.name])
        return places

    def read(self, places: list[Place]) -> Tensors:
        ends = [place.offset + math.prod(place.shape) * np.dtype(place.dtype).itemsize for place in places]
        self._hold(max(ends, default=0))
        return {place.name: self._view(place) for place in places}

    def close(self) -> None:
        """The views that are still held keep their memory alive."""
        self._map = None
        os.close(self._fd)

    def _view(self, place: Place) -> Tensor:
        if place.values is not None:
            objects = np.empty(math.prod(place.shape), dtype=object)
            objects[:] = place.values
            return objects.reshape(place.shape)
        assert self._map is not None
        count = math.prod(place.shape)
        return np.frombuffer(self._map, np.dtype(place.dtype), count, place.offset).reshape(place.shape)

    def _hold(self, size: int) -> None:
        """Maps at least `size` bytes. A mapping that views still refer to cannot be resized: it is left to them."""
        if self._map is not None and len(self._map) >= size:
            return
        size = max(_LEAST_BYTES, 1 << (size - 1).bit_length())
        if os.fstat(self._fd).st_size < size:
            os.ftruncate(self._fd, size)
        self._map = mmap.mmap(self._fd, size)
