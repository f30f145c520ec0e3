"""The log files of gateway and control plane in the state directory, read from their ends.

A file that is not there has no lines. Of a large one only the end is read; one that is replaced or emptied while it is
followed is read on from its beginning.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.engine import LogLine
from orchestrator.core.log_lines import read

# The end of a log that is looked through for its last lines: some 100,000 events.
MOST_BYTES = 16 << 20
POLL_S = 0.2


def last_lines(path: Path, name: str, tail: int) -> list[LogLine]:
    """The last lines of a file, as those of `name`."""
    try:
        with path.open("rb") as file:
            return _stamped(_end_of(file), name, path)[-tail:] if tail else []
    except FileNotFoundError:
        return []


def follow(path: Path, name: str, tail: int, stopped: threading.Event) -> Iterator[LogLine]:
    """The last lines of a file, and then each new one, until `stopped`."""
    file: BinaryIO | None = None
    pending, at, is_first = b"", 0.0, True
    try:
        while True:
            if file is None or _was_replaced(file, path):
                if file is not None:
                    file.close()
                file = path.open("rb") if path.exists() else None
                pending = b""
                if file is not None and is_first:
                    lines = _stamped(_end_of(file), name, path)
                    at = lines[-1].at if lines else at
                    yield from lines[-tail:] if tail else []
                is_first = False
            *complete, pending = (pending + (file.read() if file is not None else b"")).split(b"\n")
            for raw in complete:
                line = _line(raw, name, at)
                at = line.at
                yield line
            if stopped.wait(POLL_S):
                return
    finally:
        if file is not None:
            file.close()


def _end_of(file: BinaryIO) -> list[bytes]:
    """Whole lines; what is behind the last one is left for the next reading."""
    size = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, size - MOST_BYTES))
    raw = file.read()
    complete = raw.rfind(b"\n") + 1
    file.seek(start + complete)
    lines = raw[:complete].split(b"\n")[:-1]
    return lines[1:] if start else lines


def _stamped(lines: list[bytes], name: str, path: Path) -> list[LogLine]:
    """A line that says no time has that of the one before it, the first ones that of the file."""
    at = path.stat().st_mtime if lines else 0.0
    at = next((said for raw in lines if (said := read(raw.decode(errors="replace")).at) is not None), at)
    found = []
    for raw in lines:
        line = _line(raw, name, at)
        at = line.at
        found.append(line)
    return found


def _line(raw: bytes, name: str, before: float) -> LogLine:
    text = raw.decode(errors="replace")
    at = read(text).at
    return LogLine(before if at is None else at, name, "stderr", text)


def _was_replaced(file: BinaryIO, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return there.st_ino != os.fstat(file.fileno()).st_ino or there.st_size < file.tell()
