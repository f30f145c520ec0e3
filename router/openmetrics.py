"""What differs between Prometheus' text format and OpenMetrics 1.0: the names of counters, exemplars, and an end.

A page is made in the text format (`metrics.py`) and becomes this where it was asked for. Exemplars are requests whose
trace is recorded: the newest of each bucket. https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router.core.stats import BUCKETS_S, Exemplar

TYPE: Final = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_MEDIA: Final = b"application/openmetrics-text"
_TOTAL: Final = "_total"
_BUCKETS: Final = "modelfleet_request_seconds_bucket{"
_ENDS: Final = {f',le="{bound}"}}': at for at, bound in enumerate((*map(str, BUCKETS_S), "+Inf"))}


def is_wanted(accept: bytes) -> bool:
    """Whether a reader says that it reads the format; one that says nothing gets the older one."""
    for each in accept.lower().split(b","):
        media, *parameters = (part.strip() for part in each.split(b";"))
        if media == _MEDIA:
            return not any(part.startswith(b"q=0") and not part.strip(b"q=0.") for part in parameters)
    return False


def add_exemplars(lines: list[str], by_labels: Mapping[str, Mapping[int, Exemplar] | None]) -> None:
    """Puts them behind the buckets of `modelfleet_request_seconds`, which are the newest of `lines`.

    An entry of `lines` may be a line or all lines of a version.
    """
    if not by_labels:
        return
    for number, entry in enumerate(lines):
        if entry.startswith(_BUCKETS):
            labels, _, _ = entry[len(_BUCKETS) :].partition(',le="')
            found = by_labels.get(labels)
            if found:
                lines[number] = "\n".join(_with_exemplar(line, found) for line in entry.split("\n"))


def _with_exemplar(line: str, found: Mapping[int, Exemplar]) -> str:
    head, _, _ = line.rpartition(" ")
    exemplar = found.get(_ENDS.get(head[head.rfind(",le=") :], -1))
    if exemplar is None:
        return line
    return f'{line} # {{trace_id="{exemplar.trace_id}"}} {exemplar.seconds:.9g} {exemplar.at:.3f}'


def convert(lines: list[str]) -> None:
    """Gives counters' families their names, and ends the page. Only headers are looked at, which are few."""
    for number, line in enumerate(lines):
        if line[0] != "#":
            continue
        mark, word, name, text = line.split(" ", 3)
        if name.endswith(_TOTAL):
            lines[number] = f"{mark} {word} {name.removesuffix(_TOTAL)} {text}"
    lines.append("# EOF")
