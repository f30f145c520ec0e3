"""The gateway's log: one JSON event a line, to a file or to standard error.

Events only: never a body, a key, or a header's value.
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import TextIO


class EventLog:
    """Writes events as they happen. A full disk loses lines, never requests."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = open(path, "a", encoding="utf-8", buffering=1) if path else sys.stderr  # noqa: SIM115

    def info(self, event: str, **keys: object) -> None:
        self._write("info", event, keys)

    def warning(self, event: str, **keys: object) -> None:
        self._write("warning", event, keys)

    def error(self, event: str, **keys: object) -> None:
        self._write("error", event, keys)

    def close(self) -> None:
        if self._file is not sys.stderr:
            self._file.close()

    def _write(self, level: str, event: str, keys: dict[str, object]) -> None:
        ts = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"ts": ts, "level": level, "event": event, **keys}, default=str, ensure_ascii=False)
        try:
            self._file.write(line + "\n")  # in one piece: several processes write to one log
            self._file.flush()
        except OSError:
            return
