"""How deep a version with min 0 sleeps: awake, in standby (loaded and paused), or gone.

    awake -- no request for idle_after --> standby -- none for gone_after more --> gone
      ^                                       |                                      |
      +------------- any request -------------+--------------------------------------+

A version without standby replicas goes from awake to gone. Only known silence counts: while anything is unknown, or a
request is queued or in flight, the time without a request begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.scaling.facts import Sample, Settings


@dataclass(frozen=True, slots=True)
class Rest:
    """What sleep asks for: awake replicas are needed or not, and how many paused ones are kept."""

    is_asleep: bool
    standby: int
    quiet_s: float


def is_quiet(sample: Sample) -> bool:
    """Whether nobody asked for anything, as far as the sample says."""
    return not (sample.arrivals or sample.queued or sample.in_flight)


def rest(settings: Settings, minimum: int, quiet_since: float | None, now: float) -> Rest:
    quiet_s = 0.0 if quiet_since is None else max(0.0, now - quiet_since)
    if minimum > 0 or quiet_since is None or quiet_s < settings.idle_after_s:
        return Rest(False, settings.standby, quiet_s)
    is_gone = settings.gone_after_s is not None and quiet_s >= settings.idle_after_s + settings.gone_after_s
    return Rest(True, 0 if is_gone else settings.standby, quiet_s)
