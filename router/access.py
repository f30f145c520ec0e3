"""The access log: one JSON line for each request, if it is asked for.

Off by default; a share of the requests or all of them. Answers of 500 and above are always written. Never a body, a
query or a header's value: those may hold secrets. Lines are gathered for a moment, so that a request waits for no disk.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from router.core.keys import Caller

if TYPE_CHECKING:
    from router.proto.request import Request

FLUSH_S: Final = 1.0
# A burst is written in between.
FLUSH_LINES: Final = 1_000


def entry_of(
    request: Request | None,
    request_id: str,
    peer: bytes,
    client_name: str,
    traceparent: bytes,
    outcome: dict[str, object],
) -> dict[str, object]:
    """One line: who asked for what, and its `outcome`. `request` is None when no head could be read."""
    entry = {"request_id": request_id, "client": peer.decode(), **outcome}
    if client_name:
        entry["client_name"] = client_name
    if request is not None:
        entry |= {"method": request.method.decode(), "path": request.path.decode()}
        if isinstance(request.caller, Caller):
            entry["key"] = request.caller.id
        entry["trace_id"] = traceparent.split(b"-")[1].decode()
    return entry


class AccessLog:
    """`chance` gives a random number from 0 to 1 for each request."""

    def __init__(self, path: str, share: float, chance: Callable[[], float]) -> None:
        # Unbuffered and appending: lines of several processes stay whole.
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115
        self._share = share
        self._chance = chance
        self._lines: list[str] = []
        self._flush: asyncio.TimerHandle | None = None

    def wants(self, status: int) -> bool:
        return status >= 500 or self._share >= 1.0 or self._chance() < self._share

    def write(self, entry: dict[str, object]) -> None:
        ts = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._lines.append(json.dumps({"ts": ts, **entry}, ensure_ascii=False))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        lines, self._lines = self._lines, []
        try:
            self._file.write("".join(line + "\n" for line in lines).encode())
        except OSError:
            return  # a full disk loses lines, never requests

    def close(self) -> None:
        self.flush()
        self._file.close()
