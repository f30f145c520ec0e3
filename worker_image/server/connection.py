"""One client connection: uvicorn's protocol, and the news that the client left.

uvicorn lets the application run on for a client that is gone. Here its task is cancelled, so that what it waits for is
not computed for nobody. It must never be told of the end of a request that was answered.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Where the application leaves its task for the connection to find: a key of the request's scope.
TASK = "modelfleet.task"


class Connection(HttpToolsProtocol):
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        cycle = self.cycle
        if cycle is not None and cycle.disconnected:
            scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]  # uvicorn's type knows no keys of others
            task: asyncio.Task[None] | None = scope.get(TASK)
            if task is not None:
                task.cancel()
