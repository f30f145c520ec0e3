"""Answers that come one after the other, from a generator of the model's author: sync and async are taken alike.

All calls but `interrupt` are made in one thread that belongs to this stream alone, one at a time. A stream must always
be closed: that is what runs the `finally` of its generator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, Protocol

from worker_image.server.backends.coroutines import Coroutines
from worker_image.server.tensors import Tensors

Convert = Callable[[Any], Tensors]
_END: Any = object()


class Steps(Protocol):
    def take(self) -> Tensors | None:
        """The next answer, None when there is none. Blocks, and raises what the generator raised."""
        ...

    def interrupt(self) -> None:
        """From any thread: nobody waits any more for the answer that is being made. What can stop, stops."""
        ...

    def close(self) -> None: ...


class SyncSteps:
    def __init__(self, iterator: Iterator[Any], convert: Convert) -> None:
        self._iterator = iterator
        self._convert = convert

    def take(self) -> Tensors | None:
        answer = next(self._iterator, _END)
        return None if answer is _END else self._convert(answer)

    def interrupt(self) -> None:
        """Nobody can stop a thread: the generator learns of it where it yields next."""

    def close(self) -> None:
        # An iterator that is no generator may have nothing to close.
        if close := getattr(self._iterator, "close", None):
            close()


class AsyncSteps:
    def __init__(self, iterator: AsyncIterator[Any], convert: Convert, coroutines: Coroutines) -> None:
        self._iterator = iterator
        self._convert = convert
        self._coroutines = coroutines
        self._task: asyncio.Task[Any] | None = None
        self._is_interrupted = False

    def take(self) -> Tensors | None:
        try:
            answer = self._coroutines.run(self._next())
        except CancelledError:
            if self._is_interrupted:
                return None
            raise RuntimeError("predict_stream() was cancelled by itself") from None
        return None if answer is _END else self._convert(answer)

    def interrupt(self) -> None:
        self._is_interrupted = True
        self._coroutines.call_soon(self._cancel)

    def close(self) -> None:
        if close := getattr(self._iterator, "aclose", None):
            self._coroutines.run(close())

    async def _next(self) -> Any:
        if self._is_interrupted:
            return _END
        self._task = asyncio.current_task()
        return await anext(self._iterator, _END)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
