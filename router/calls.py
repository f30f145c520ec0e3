"""Calls to the control plane: one request on a connection of its own, and how long to wait after one that failed.

Owns the HTTP of it and the token by which the control plane knows its gateway. What is asked is `sync.py`'s and
`waking.py`'s. Nothing here runs on a request's way.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from router.config import Config
from router.core import framing
from router.core.chunked import ChunkDecoder, LengthDecoder
from router.core.errors import ProtocolError, malformed

ANSWER_S: Final = 35.0  # above a long poll's length: an answer that takes longer is lost
MAX_BACKOFF_S: Final = 2.0
# 10,000 models with two versions each are 5 MB.
TABLE_BYTES: Final = 256 << 20


class SourceError(Exception):
    """No answer this time; the sentence says why."""


def backoff_s(failures: int, chance: float) -> float:
    """Doubles from 0.1 s to 2 s, and half of it is chance, so that gateways do not ask in step."""
    return min(MAX_BACKOFF_S, 0.1 * 2.0 ** min(failures, 10)) * (0.5 + chance / 2)


def authorization(config: Config) -> dict[str, str]:
    """The field by which the control plane knows its gateway. Raises `SourceError`."""
    return {"authorization": f"Bearer {_token(Path(config.token_file))}"}


def _token(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SourceError(f"token file {file}: {exc}") from exc


async def fetch(
    url: str, fields: dict[str, str], body: bytes | None = None, within_s: float = ANSWER_S
) -> tuple[int, bytes]:
    """One GET, or with `body` a POST, over a connection of its own: status and body. Raises `SourceError`."""
    parts = urlsplit(url)
    secure = ssl.create_default_context() if parts.scheme == "https" else None
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    method = "GET" if body is None else "POST"
    lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc}", "connection: close"]
    lines += [] if body is None else ["content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    try:
        async with asyncio.timeout(within_s):
            reader, writer = await asyncio.open_connection(host, port, ssl=secure)
            try:
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b""))
                return await _read_answer(reader)
            finally:
                writer.close()
    except TimeoutError as exc:
        raise SourceError(f"{host}:{port} did not answer within {within_s:.0f} s") from exc
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
