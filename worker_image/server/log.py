"""One event a line on standard error: JSON, or for people where that is a terminal.

What the model itself prints is left as it is, so a reader tells the two apart by the first character; but of a request
whose trace is kept, a line becomes an event that carries the trace's id. Must never raise: a full disk or a closed pipe
behind standard error may not end a prediction. A model may close or replace it: `hold` keeps a descriptor of our own,
so that no event goes astray, into a client's connection at worst.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Protocol

import msgspec

_held: int | None = None

# The header fields of the request that a task, or the thread of a stream, works on.
asking: ContextVar[tuple[Mapping[bytes, bytes], ...]] = ContextVar("asking", default=())


class Asked(Protocol):
    @property
    def fields(self) -> Mapping[bytes, bytes]: ...


class Here(threading.local):
    """The requests of the batch that this thread computes now. Set for every batch, which a context variable would cost
    ten times as much."""

    batch: Sequence[Asked] = ()


here = Here()

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# A batch may have hundreds of requests.
_MOST_NAMED: Final = 8
# `trace.py` has the same name: this module is below it.
_RECORDED: Final = b"x-modelfleet-trace"


def hold() -> None:
    """From here on events go to what standard error is now, whatever becomes of it."""
    global _held
    with contextlib.suppress(OSError):
        _held = os.dup(2)


def fileno() -> int:
    """Where events go: for the stacks that `faulthandler` prints."""
    return 2 if _held is None else _held


def event(name: str, level: str = "info", **fields: Any) -> None:
    """With the ids of the request that it happened in, if `fields` do not name another."""
    if LEVELS.get(level, 50) >= _least():
        _write({"ts": _now(), "level": level, "event": name, **_asking(), **fields})


def model_failed(reason: str, code: str) -> None:
    """The last line of a server that gives up: the control plane reads it, see docs/CONTRACTS.md."""
    _put(_json({"event": "model failed", "reason": reason, "code": code}))


def stack(exc: BaseException) -> str:
    """The whole trace, as Python prints it."""
    import traceback

    return "".join(traceback.format_exception(exc))


def trace_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """The id of a request's trace, by its key in the log; nothing when it has none."""
    value = next((value for name, value in headers if name == b"traceparent"), b"")
    return {"trace_id": value[3:35].decode("latin-1")} if len(value) >= 55 else {}


def route_library_logs() -> None:
    """What is logged by libraries and by the model becomes events of ours instead of lines in formats of their own."""
    level = _least() if "MODELFLEET_LOG_LEVEL" in os.environ else logging.WARNING
    root = logging.getLogger()
    root.handlers[:] = [_Events(level=level)]
    root.setLevel(level)


def watch_prints() -> None:
    """A line that is printed in a request whose trace is kept becomes an event with the trace's id."""
    sys.stdout = _Printed(sys.stdout)


class _Events(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        event(record.getMessage(), level=record.levelname.lower(), **fields)


class _Printed:
    """Standard output, with another way for lines of recorded requests. In all else it is the stream it stands for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begun = threading.local()  # a line comes in pieces, and each thread prints its own

    def write(self, text: str) -> int:
        if not any(_RECORDED in fields for fields in _requests()):
            return int(self._stream.write(text))
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in lines:
            if line:
                event(line, stream="stdout")
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Any:
        return iter(self._stream)


def _requests() -> Sequence[Mapping[bytes, bytes]]:
    batch = here.batch
    return [each.fields for each in batch] if batch else asking.get()


def _asking() -> dict[str, Any]:
    requests = _requests()
    if not requests:
        return {}
    if len(requests) == 1:
        own = requests[0]
        given = {"request_id": own[b"x-request-id"].decode("latin-1")} if b"x-request-id" in own else {}
        return {**given, **trace_of(own.items())}
    named = [fields[b"x-request-id"].decode("latin-1") for fields in requests if b"x-request-id" in fields]
    traces = [trace_of(fields.items())["trace_id"] for fields in requests if _RECORDED in fields]
    some = {"trace_id": traces[0]} if traces else {}
    return {"batch_requests": len(requests), "request_ids": named[:_MOST_NAMED], **some}


def _write(fields: dict[str, Any]) -> None:
    _put(_for_people(fields) if _is_for_people() else _json(fields))


def _json(fields: dict[str, Any]) -> bytes:
    return msgspec.json.encode(fields, enc_hook=str) + b"\n"


def _put(line: bytes) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if _held is not None:
            os.write(_held, line)
            return
        sys.stderr.write(line.decode())
        sys.stderr.flush()


def _for_people(fields: dict[str, Any]) -> bytes:
    """`12:00:01.234 warning  event  key=value`: the stack of an error on lines of its own."""
    rest = {**fields}
    at, level, name = rest.pop("ts", _now())[11:23], rest.pop("level", "error"), rest.pop("event")
    blocks = [str(rest.pop(key)) for key in ("stack", "exception") if rest.get(key)]
    words = " ".join(f"{key}={_word(value)}" for key, value in rest.items())
    return "\n".join((f"{at} {level:<7} {name}  {words}".rstrip(), *blocks, "")).encode("utf-8", "backslashreplace")


def _word(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode()
    return text if text and not any(letter.isspace() or letter in "\"'=" for letter in text) else repr(text)


def _is_for_people() -> bool:
    asked = os.environ.get("MODELFLEET_LOG_FORMAT", "")
    if asked in ("json", "human"):
        return asked == "human"
    with contextlib.suppress(OSError):
        return os.isatty(fileno())
    return False


def _least() -> int:
    """The level below which events are left out: MODELFLEET_LOG_LEVEL's; a word that is none of them counts as info."""
    return LEVELS.get(os.environ.get("MODELFLEET_LOG_LEVEL", "info").lower(), LEVELS["info"])


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
