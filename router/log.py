"""The gateway's log: one event a line to a file or to standard error, JSON or, on a terminal, for people.

Events only: never a body, a key, or a header's value. MODELFLEET_LOG_FORMAT (json, human) says otherwise than the
terminal does, MODELFLEET_LOG_LEVEL than `info`; words that are none of them count as not set. A file is always JSON:
the control plane reads it.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
from typing import Final, TextIO

LEVELS: Final = {"debug": 0, "info": 1, "warning": 2, "error": 3}
_WORD: Final = re.compile(r"[^\s\"'=]+")


class EventLog:
    """Writes events as they happen. A full disk loses lines, never requests."""

    def __init__(self, path: str) -> None:
        self._file: TextIO = open(path, "a", encoding="utf-8", buffering=1) if path else sys.stderr  # noqa: SIM115
        form = os.environ.get("MODELFLEET_LOG_FORMAT", "")
        self._is_for_people = not path and (form == "human" or (form != "json" and self._file.isatty()))
        self._least = LEVELS.get(os.environ.get("MODELFLEET_LOG_LEVEL", ""), LEVELS["info"])

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
        if LEVELS[level] < self._least:
            return
        now = datetime.datetime.now(datetime.UTC)
        if self._is_for_people:
            line = _for_people(now, level, event, keys)
        else:
            ts = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = json.dumps({"ts": ts, "level": level, "event": event, **keys}, default=str, ensure_ascii=False)
        try:
            self._file.write(line + "\n")  # in one piece: several processes write to one log
            self._file.flush()
        except OSError:
            return


def _for_people(now: datetime.datetime, level: str, event: str, keys: dict[str, object]) -> str:
    """`12:00:01.234 warning  event  key=value`, with a trace on lines of its own."""
    trace = str(keys.pop("trace", ""))
    pairs = " ".join(f"{key}={_value(value)}" for key, value in keys.items())
    line = f"{now:%H:%M:%S}.{now.microsecond // 1000:03d} {level:<7} {event}  {pairs}".rstrip()
    return f"{line}\n{trace.rstrip()}" if trace else line


def _value(value: object) -> str:
    return str(value) if _WORD.fullmatch(str(value)) else repr(str(value))
