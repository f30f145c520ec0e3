"""The event loop on which a model's own coroutines run, in a thread of its own.

`async def` methods of a model's author are awaited here, all on one loop, so that what one of them opens (a client, a
pool) serves the others. It is not the server's loop: model code must not be able to block that. The thread starts with
the first coroutine, so a model without any never has it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any


class Coroutines:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        # Guards the start of the thread: several instances may be the first to need it.
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Its result. Called from any other thread, which waits until it ended."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._running()).result()

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._running().call_soon_threadsafe(callback)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run, args=(self._loop,), name="model-coroutines", daemon=True).start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    while True:
        try:
            loop.run_forever()
        except SystemExit:
            # asyncio has told it to whoever waits for the coroutine that raised it; the others go on.
            continue
        return
