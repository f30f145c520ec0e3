"""Where tables come from: the control plane by long poll, or a file; and the last good one, kept on disk.

The gateway asks; nobody pushes. It says which table it holds and gets a newer one, whole or, where that is much
shorter, as what changed (status 226, RFC 3229). Whatever fails here, requests go on with the table in force: what
cannot be read is refused whole and said once, and after a delta the whole table is asked for. Nothing here runs on a
request's way.
"""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Final

from router.calls import SourceError, authorization, backoff_s, fetch
from router.contract import TableError
from router.kept import KeptTable
from router.server import Gateway

WAIT_S: Final = 25.0
DELTA_STATUS: Final = 226  # IM Used
FILE_POLL_S: Final = 0.25


async def follow_control_plane(gateway: Gateway) -> None:
    """Applies tables as the control plane publishes them. Runs until cancelled."""
    failures = 0
    kept = KeptTable(gateway, Path(gateway.config.table_cache) if gateway.config.table_cache else None)
    try:
        while True:
            try:
                await _poll_once(gateway, kept, takes_delta=not failures)
                if failures:
                    gateway.log.info("control plane answers again", failures=failures)
                failures = 0
            except (SourceError, TableError) as exc:
                if isinstance(exc, TableError):
                    gateway.held.refuse(str(exc), time.time())
                if not failures:
                    gateway.log.warning("no new table; the one in force stays", reason=str(exc))
                failures += 1
                await asyncio.sleep(backoff_s(failures, random.random()))
    finally:
        kept.close()


async def follow_file(gateway: Gateway) -> None:
    """Applies the table file, again whenever it changes. Runs until cancelled."""
    path = Path(gateway.config.table_file)
    seen: object = None
    said = ""
    while True:
        try:
            stamp = _stamp(path)
            if stamp != seen:
                seen = stamp
                await gateway.load(await asyncio.to_thread(path.read_bytes))
            said = ""
        except (OSError, TableError) as exc:
            if str(exc) != said:
                gateway.held.refuse(str(exc), time.time())
                gateway.log.warning("table file refused; the one in force stays", file=str(path), reason=str(exc))
            said = str(exc)
        await asyncio.sleep(FILE_POLL_S)


async def _poll_once(gateway: Gateway, kept: KeptTable, *, takes_delta: bool) -> None:
    """`takes_delta`: false after a failure, so that one refused delta does not come again and again."""
    config = gateway.config
    url = f"{config.control_url.rstrip('/')}/internal/v1/table?after={gateway.fleet.tag}&wait_s={WAIT_S:g}"
    url += "&delta=1" if takes_delta else ""
    status, body = await fetch(url, authorization(config))
    if status == 204:
        return
    if status == DELTA_STATUS:
        await gateway.load_delta(body)
        kept.note_change()
    elif status == 200:
        await gateway.load(body)
        await kept.keep([body])
    else:
        raise SourceError(f"control plane answered {status}")


def _stamp(path: Path) -> object:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
