"""How values read: ages, sizes, times, states with their styles, and the nearest name to a mistyped one."""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterable

from orchestrator.cli.errors import UsageError
from orchestrator.cli.screen import Span

STYLES = {
    "ready": "green", "converged": "green", "succeeded": "green", "info": "",
    "starting": "yellow", "loading": "yellow", "updating": "yellow", "converging": "yellow", "preparing": "yellow",
    "asleep": "blue", "standby": "blue",
    "warning": "yellow", "draining": "cyan", "stopping": "cyan", "superseded": "dim", "empty": "dim",
    "failed": "bold red", "degraded": "bold red", "error": "bold red",
}  # fmt: skip
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def state(name: str) -> Span:
    return name, STYLES.get(name, "")


def age(seconds: float) -> str:
    """Two digits or so are enough: `8s`, `5m`, `3h`, `12d`."""
    for unit in ("d", "h", "m"):
        if seconds >= 2 * _UNITS_S[unit] or (unit == "d" and seconds >= _UNITS_S[unit]):
            return f"{int(seconds // _UNITS_S[unit])}{unit}"
    return f"{max(0, int(seconds))}s"


def took(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)} min {int(seconds % 60)} s"


def length(seconds: float) -> str:
    """A length that was asked for, in its largest whole unit: `250 ms`, `60 s`, `10 min`."""
    if seconds < 1:
        return f"{seconds * 1000:g} ms"
    return f"{seconds / 60:g} min" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:.6g} s"


def phase(name: str, seconds: float | None) -> str:
    """`loading 3.2 s`, or `loading` where nobody says for how long."""
    return name if seconds is None or not name else f"{name} {took(seconds)}"


def size(count: int) -> str:
    for unit, power in (("Gi", 30), ("Mi", 20), ("Ki", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.4g}{unit}"
    return str(count)


def fetched(done_bytes: int, total_bytes: int | None) -> str:
    """`1.2 of 5.0 GB`; in the unit of the whole where that is known."""
    whole = total_bytes if total_bytes is not None else done_bytes
    unit, factor = next(((u, f) for u, f in (("GB", 10**9), ("MB", 10**6)) if whole >= f), ("kB", 10**3))
    done = f"{done_bytes / factor:.1f}"
    return f"{done} {unit}" if total_bytes is None else f"{done} of {total_bytes / factor:.1f} {unit}"


def clock(at: float) -> str:
    """Local time, with the date where it is not today's."""
    local = time.localtime(at)
    today = local[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", local)


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration_s(text: str) -> float:
    """`250ms`, `90s`, `10m`, `2h`, `1d` in seconds. Raises `UsageError`."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise UsageError(
            f"duration {text!r}: not a number with a unit; the units are ms, s, m, h and d", hint="for example 10m"
        )
    return float(match[1]) * _UNITS_S[match[2]]


def positive_s(option: str, text: str) -> float:
    """`duration_s` of an option's value that must be longer than nothing. Raises `UsageError` that names the option."""
    seconds = duration_s(text)
    if seconds <= 0:
        raise UsageError(f"{option} {text}: not longer than nothing", hint=f"for example {option} 10s")
    return seconds


def model_and_version(target: str) -> tuple[str, str]:
    """`iris@2` is ("iris", "2"), `iris` is ("iris", ""). Raises `UsageError`."""
    model, separator, version = target.partition("@")
    if not model or (separator and not version):
        raise UsageError(f"{target!r}: not MODEL or MODEL@VERSION", hint="for example iris or iris@2")
    return model, version


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not there: the nearest one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif names:
        hint = f"there {'is' if len(names) == 1 else 'are'}: {', '.join(names[:12])}{', …' if len(names) > 12 else ''}"
    else:
        hint = "nothing is applied yet: `modelfleet apply`"
    return UsageError(f"no {kind} {name!r}", hint=hint)
