"""How a replica's end becomes one sentence: exit code, the engine's word on memory, and the last lines of its log.

Pure functions that both engines share, so that the same end reads the same everywhere. The exit classes and the
`model failed` line are those of docs/CONTRACTS.md.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence

from orchestrator.core.entities import Exit

# What an engine reads of a log, and what is kept of it: the stacks of all threads are longer than a person wants.
LOG_READ_LINES = 200
LOG_TAIL_LINES = 20
_KILLED = 128 + signal.SIGKILL
# How Python's faulthandler begins what it prints when its timer ends a process.
_STUCK = "Timeout ("
_STUCK_REASON = "stuck in native code for longer than its time allows (exit code 1); the last lines say where"
# Of each thread's stack the deepest call comes first, and the model's thread is the first, for it is the youngest.
_STACK_LINES = 10
# A line of 2,000 characters is a dumped object, not a sentence; the tail is stored with events and shown to people.
LINE_MAX_CHARS = 2_000

_EXIT_CLASSES = {
    0: "ended by itself with exit code 0",
    64: "the configuration is wrong (exit code 64)",
    65: "the artifact is missing, truncated, of another format or of another library version (exit code 65)",
    70: "the model raised while loading or warming up (exit code 70)",
    71: "loading took longer than load_timeout_s (exit code 71)",
    72: "a prediction took longer than predict_timeout_s (exit code 72)",
    125: "the container could not be set up (exit code 125)",
    126: "the command of the image cannot be executed (exit code 126)",
    127: "the command of the image was not found (exit code 127)",
}


def describe_exit(
    code: int | None,
    log_tail: Sequence[str],
    *,
    oom_killed: bool = False,
    memory_bytes: int = 0,
    engine_error: str = "",
) -> Exit:
    """The `Exit` with its reason. `memory_bytes` is the limit it had (0: unknown), `engine_error` the engine's word."""
    stack = _stack_of_stuck(log_tail) if code == 1 else ()
    tail = tuple(line[:LINE_MAX_CHARS] for line in stack or log_tail[-LOG_TAIL_LINES:])
    reason = _STUCK_REASON if stack else _reason(code, tail, oom_killed, memory_bytes, engine_error)
    return Exit(code=code, reason=reason, oom_killed=oom_killed, log_tail=tail)


def failure_sentence(log_tail: Sequence[str]) -> str:
    """The reason in the last `model failed` event among these lines, "" where there is none."""
    for line in reversed(log_tail):
        event = _event(line)
        if event.get("event") == "model failed" and isinstance(event.get("reason"), str):
            return str(event["reason"])
    return ""


def memory_text(size: int) -> str:
    """512Mi, 1.5Gi: as one writes it in a manifest."""
    for unit, factor in (("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)):
        if size >= factor:
            return f"{size / factor:.4g}{unit}"
    return str(size)


def _reason(code: int | None, tail: tuple[str, ...], oom_killed: bool, memory_bytes: int, engine_error: str) -> str:
    said = failure_sentence(tail)
    # The engine never takes its word back: a child that was killed for memory long ago did not end the server.
    if oom_killed and (code == _KILLED or not said):
        limit = f": it needs more than its limit of {memory_text(memory_bytes)}" if memory_bytes else ""
        return f"out of memory{limit}; raise resources.memory of this version"
    if said:
        return said
    if engine_error:
        return engine_error
    return _plain_reason(code)


def _stack_of_stuck(lines: Sequence[str]) -> Sequence[str]:
    """What `faulthandler` printed of the thread that is stuck, () when it did not end this process."""
    for number in range(len(lines) - 1, -1, -1):
        if lines[number].startswith(_STUCK):
            return lines[number : number + _STACK_LINES]
    return ()


def _plain_reason(code: int | None) -> str:
    if code is None:
        return "ended; nobody saw how"
    if code in _EXIT_CLASSES:
        return _EXIT_CLASSES[code]
    if 128 < code <= 128 + 64:
        return f"killed by {_signal_name(code - 128)} (exit code {code})"
    return f"ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _event(line: str) -> dict[str, object]:
    if not line.lstrip().startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
