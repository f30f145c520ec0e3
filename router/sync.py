"""Where tables come from: the control plane by long poll, or a file; and the last good one, kept on disk.

The gateway asks; nobody pushes. It says which table it holds and gets a newer one, whole or, where that is much
shorter, as what changed (status 226, RFC 3229). Whatever fails here, requests go on with the table in force: what
cannot be read is refused whole and said once, and after a delta the whole table is asked for. Nothing here runs on a
request's way.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from router.contract import TableError
from router.core import framing
from router.core.chunked import ChunkDecoder, LengthDecoder
from router.core.errors import ProtocolError, malformed
from router.kept import KeptTable
from router.server import Gateway

WAIT_S: Final = 25.0
ANSWER_S: Final = 35.0  # above WAIT_S: an answer that takes longer is lost
DELTA_STATUS: Final = 226  # IM Used
MAX_BACKOFF_S: Final = 2.0
FILE_POLL_S: Final = 0.25
# 10,000 models with two versions each are 5 MB.
TABLE_BYTES: Final = 256 << 20


class SourceError(Exception):
    """No table this time; the sentence says why."""


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


def backoff_s(failures: int, chance: float) -> float:
    """Doubles from 0.1 s to 2 s, and half of it is chance, so that gateways do not ask in step."""
    return min(MAX_BACKOFF_S, 0.1 * 2.0 ** min(failures, 10)) * (0.5 + chance / 2)


async def _poll_once(gateway: Gateway, kept: KeptTable, *, takes_delta: bool) -> None:
    """`takes_delta`: false after a failure, so that one refused delta does not come again and again."""
    config = gateway.config
    try:
        token = _read(Path(config.token_file)).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"token file {config.token_file}: {exc}") from exc
    url = f"{config.control_url.rstrip('/')}/internal/v1/table?after={gateway.fleet.tag}&wait_s={WAIT_S:g}"
    url += "&delta=1" if takes_delta else ""
    status, body = await fetch(url, {"authorization": f"Bearer {token}"})
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


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _stamp(path: Path) -> object:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


async def fetch(url: str, fields: dict[str, str]) -> tuple[int, bytes]:
    """One GET over a connection of its own: status and body. Raises `SourceError`."""
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"GET {target} HTTP/1.1", f"host: {parts.netloc}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(host, port, ssl=secure)
            try:
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
                return await _read_answer(reader)
            finally:
                writer.close()
    except TimeoutError as exc:
        raise SourceError(f"{host}:{port} did not answer within {ANSWER_S:.0f} s") from exc
    except (OSError, ProtocolError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
        raise SourceError(f"{host}:{port}: {exc}") from exc


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = framing.parse_response((await reader.readuntil(b"\r\n\r\n"))[:-2], is_head=False)
    if head.content_length < 0 and not head.chunked:
        return head.status, await reader.read(TABLE_BYTES)
    decoder = ChunkDecoder() if head.chunked else LengthDecoder(head.content_length)
    pieces: list[bytes] = []
    size = 0
    while not decoder.done:
        data = await reader.read(1 << 18)
        if not data:
            raise malformed("the connection closed inside the answer")
        pieces.append(decoder.feed(data))
        size += len(pieces[-1])
        if size > TABLE_BYTES:
            raise malformed(f"the answer is longer than {TABLE_BYTES} bytes")
    return head.status, b"".join(pieces)
