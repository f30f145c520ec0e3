"""One JSON event a line on standard error.

What the model itself prints is left as it is, so a reader tells the two apart by the first character. Must never
raise: a full disk or a closed pipe behind standard error may not end a prediction. A model may close or replace it:
`hold` keeps a descriptor of our own, so that no event goes astray, into a client's connection at worst.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sys
from typing import Any

import msgspec

_held: int | None = None


def hold() -> None:
    """From here on events go to what standard error is now, whatever becomes of it."""
    global _held
    with contextlib.suppress(OSError):
        _held = os.dup(2)


def fileno() -> int:
    """Where events go: for the stacks that `faulthandler` prints."""
    return 2 if _held is None else _held


def event(name: str, level: str = "info", **fields: Any) -> None:
    _write({"ts": _now(), "level": level, "event": name, **fields})


def model_failed(reason: str, code: str) -> None:
    """The last line of a server that gives up: the control plane reads it, see docs/CONTRACTS.md."""
    _write({"event": "model failed", "reason": reason, "code": code})


def stack(exc: BaseException) -> str:
    """The whole trace, as Python prints it."""
    import traceback

    return "".join(traceback.format_exception(exc))


def route_library_logs() -> None:
    """Warnings of uvicorn and asyncio become events of ours instead of lines in a format of their own."""
    root = logging.getLogger()
    root.handlers[:] = [_Events(level=logging.WARNING)]
    root.setLevel(logging.WARNING)


class _Events(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        event(record.getMessage(), level=record.levelname.lower(), **fields)


def _write(fields: dict[str, Any]) -> None:
    line = msgspec.json.encode(fields, enc_hook=str) + b"\n"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if _held is not None:
            os.write(_held, line)
            return
        sys.stderr.write(line.decode())
        sys.stderr.flush()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
