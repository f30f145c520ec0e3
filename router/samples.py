"""Pairs of answers that differed, one JSON line each, for people to read (`Config.shadow_samples`).

Bodies may hold what users said: the file is its owner's alone, and bounded. Never a field of a head, a query or a key.
Lines are made and written in a thread, for a disk may be slow; who samples how often is `core/shadow.py`.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import datetime
import json
import os
from dataclasses import dataclass
from typing import Final

# One file of this size and the one before it are kept.
FILE_BYTES: Final = 16 << 20
# More of a body tells nobody more.
BODY_BYTES: Final = 65_536
_Utf8: Final = codecs.getincrementaldecoder("utf-8")


@dataclass(frozen=True, slots=True)
class Sample:
    """One pair, with the request that both versions had."""

    request_id: str
    model: str
    live_version: str
    shadow_version: str
    result: str
    difference: str
    method: bytes
    path: bytes
    request: bytes
    live_status: int
    live: bytes
    shadow_status: int
    shadow: bytes

    def line(self, ts: str) -> bytes:
        entry = {
            "ts": ts,
            "request_id": self.request_id,
            "model": self.model,
            "result": self.result,
            "difference": self.difference,
            "request": {"method": self.method.decode(), "path": self.path.decode("latin-1"), **_shown(self.request)},
            "live": {"version": self.live_version, "status": self.live_status, **_shown(self.live)},
            "shadow": {"version": self.shadow_version, "status": self.shadow_status, **_shown(self.shadow)},
        }
        return json.dumps(entry, ensure_ascii=False).encode() + b"\n"


class SampleLog:
    """Appends to `path`. Several processes may share it: a line is one write, and the file is opened for each."""

    def __init__(self, path: str, file_bytes: int = FILE_BYTES) -> None:
        self._path = path
        self._file_bytes = file_bytes

    async def write(self, sample: Sample) -> None:
        """A full disk loses samples, nothing else."""
        ts = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        await asyncio.to_thread(self._append, sample, ts)

    def _append(self, sample: Sample, ts: str) -> None:
        try:
            if os.path.exists(self._path) and os.path.getsize(self._path) >= self._file_bytes:
                os.replace(self._path, self._path + ".1")
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.fchmod(file, 0o600)
                os.write(file, sample.line(ts))
            finally:
                os.close(file)
        except OSError:
            return


def _shown(body: bytes) -> dict[str, object]:
    """As text where it is text."""
    shown: dict[str, object] = {"bytes": len(body)} if len(body) > BODY_BYTES else {}
    kept = body[:BODY_BYTES]
    try:
        # Incremental, for the last character may have been cut in two.
        return shown | {"body": _Utf8().decode(kept, len(kept) == len(body))}
    except UnicodeDecodeError:
        return shown | {"body_base64": base64.b64encode(kept).decode()}
