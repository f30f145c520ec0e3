"""How many replicas a version should have: (observation, settings, memory, now) -> (decision, memory).

    1. demand    requests per second to plan for: level, jump, ramp                          demand.py
    2. capacity  what one replica holds: service time with all slots busy, slots             service.py
    3. slots     load = rate × S, and the queue; slots for it by Erlang's C                  erlang.py
    4. trim      a little more while the objective is missed though the rule is met          measure.py
    5. ceiling   no more than bring something                                                ceiling.py
    6. tenure    up at once; down when nobody will miss the replica                          tenure.py
    7. bounds    min and its schedules, max, sleep, a person's word                          here, cron.py, sleep.py
    8. holds     never down on what is unknown, suspect, unsettled or just begun             here

Pure: no clock, no chance. Everything that it rests on is in the decision's `inputs`; its sentence is made of them
(`sentence.py`). What the cluster as a whole can hold is `allocate.py`'s. Explained with numbers in docs/AUTOSCALING.md.
"""

from __future__ import annotations

import math
from dataclasses import replace

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling import service, sleep, tenure
from orchestrator.core.scaling.cron import minimum_at
from orchestrator.core.scaling.decision import Inputs, Load, Memory, ScaleDecision
from orchestrator.core.scaling.facts import Counts, Observation, Sample, Settings, sound
from orchestrator.core.scaling.measure import measure
from orchestrator.core.scaling.sentence import sentence
from orchestrator.core.scaling.sleep import Rest

# Samples that are older than this, or than three of their own length, say nothing of now.
STALE_AFTER_S = 10.0
STALE_SPANS = 3.0
# Nothing goes down before this much was seen: three times the window of the level.
WARM_UP_S = 60.0
# Broken answers hold the count for as long as they come, and this long after.
SUSPECT_HOLD_S = 60.0


def decide(seen: Observation, settings: Settings, memory: Memory, now: float) -> tuple[ScaleDecision, Memory]:
    """One decision. Call it each second or two for every version, and at once when a request wakes a sleeping one."""
    before = memory.target if memory.target is not None else seen.counts.present
    if memory.since is None:
        memory = replace(memory, since=now, levels=tenure.seeded(before, now))
    doubts = _doubts(seen.sample, now)
    sample = sound(seen.sample) if seen.sample is not None and not _is_stale(seen.sample, now) else None
    load = None
    if sample is not None:
        load, memory = measure(seen, sample, settings, memory, now)
    memory = _watched(memory, sample, doubts, now)
    minimum, minimum_by = _minimum(settings, seen.cold_start_s, now)
    rest = sleep.rest(settings, minimum, memory.quiet_since, now)
    inputs = Inputs(
        sample=seen.sample,
        counts=seen.counts,
        percentile=settings.objective.percentile,
        minimum=minimum,
        maximum=settings.maximum,
        cold_start_s=seen.cold_start_s,
        rest=rest,
        load=load,
        doubts=doubts,
        hold=_hold(seen, memory, rest, doubts, now),
    )
    target, limits = _target(inputs, settings, before, minimum_by, now)
    inputs = replace(inputs, limits=limits)
    return act(seen.key, before, target, inputs), replace(memory, target=target)


def act(key: VersionKey, before: int, target: int, inputs: Inputs) -> ScaleDecision:
    """What to do to come from what is there to `target` awake replicas and the standby ones that rest asks for."""
    counts, standby = inputs.counts, inputs.rest.standby
    missing = max(0, target - counts.present)
    wake = min(missing, counts.standby)
    paused = counts.standby - wake
    spare = max(0, counts.present - target)
    room = max(0, standby - paused)
    return ScaleDecision(
        key=key,
        before=before,
        target=target,
        standby=standby,
        wake=wake,
        start=missing - wake + max(0, room - spare),
        pause=min(room, spare, counts.ready),
        end=max(0, spare - room),
        end_standby=max(0, paused - standby),
        reason=sentence(key, before, target, inputs),
        inputs=inputs,
    )


def _doubts(sample: Sample | None, now: float) -> tuple[str, ...]:
    if sample is None:
        return ("no signals",)
    if _is_stale(sample, now):
        age_s = now - sample.at
        is_past = math.isfinite(age_s) and age_s >= 0
        return (f"the newest signals are {age_s:.0f} s old" if is_past else "the signals' time is not one of the past",)
    return sample.doubts()


def _is_stale(sample: Sample, now: float) -> bool:
    """A sample of the future is as little worth as one of long ago; a second of it is rounding between two clocks."""
    age_s = now - sample.at
    span_s = sample.span_s if math.isfinite(sample.span_s) else 0.0
    return not -1.0 <= age_s <= max(STALE_AFTER_S, STALE_SPANS * span_s)


def _watched(memory: Memory, sample: Sample | None, doubts: tuple[str, ...], now: float) -> Memory:
    """Since when nobody asked for anything, and when replicas last answered errors."""
    quiet_since = None
    if sample is not None and not doubts and sleep.is_quiet(sample):
        quiet_since = memory.quiet_since if memory.quiet_since is not None else sample.at - sample.span_s
    is_suspect = sample is not None and service.is_suspect(sample)
    return replace(memory, quiet_since=quiet_since, suspect_at=now if is_suspect else memory.suspect_at)


def _minimum(settings: Settings, cold_start_s: float, now: float) -> tuple[int, str]:
    """The minimum in force, or the one that will be when a replica started now is ready, whichever is more."""
    if not settings.schedules:
        return min(settings.minimum, settings.maximum), ""
    present = minimum_at(settings.schedules, settings.minimum, now)
    ahead = minimum_at(settings.schedules, settings.minimum, now + cold_start_s)
    minimum, by = max(present, ahead, key=lambda m: m[0])
    return min(minimum, settings.maximum), by


def _hold(seen: Observation, memory: Memory, rest: Rest, doubts: tuple[str, ...], now: float) -> str:
    """Why the count may not go down now; "": it may. Sleep rests on a silence that was heard from its beginning,
    however short the signals have been read."""
    if doubts:
        return "; ".join(doubts)
    if not rest.is_asleep and memory.since is not None and now - memory.since < WARM_UP_S:
        return f"signals are read since {now - memory.since:.0f} s, not yet {WARM_UP_S:.0f} s"
    if not seen.was_ready:
        return "it never was ready"
    if seen.is_rolling_out:
        return "a rollout is under way"
    if seen.counts.starting:
        return f"{_replicas(seen.counts)} starting"
    if now - memory.suspect_at < SUSPECT_HOLD_S:
        return "replicas answer errors, which makes their load look small"
    return ""


def _replicas(counts: Counts) -> str:
    return "a replica is" if counts.starting == 1 else f"{counts.starting} replicas are"


def _target(
    inputs: Inputs, settings: Settings, before: int, minimum_by: str, now: float
) -> tuple[int, tuple[str, ...]]:
    """Steps 7 and 8: the count, and every limit that made it another than the load asks for."""
    most = settings.maximum
    override = settings.override
    if override is not None and override.is_in_force(now):
        ends = "until it is taken back" if override.until is None else f"for {override.until - now:.0f} s more"
        return _capped(override.replicas, most, (f"set by hand to {override.replicas} {ends}",))
    wanted = _wanted(inputs.load)
    target = max(wanted, least := _least(inputs, before, wanted))
    limits: list[str] = []
    if wanted < least == inputs.minimum:
        limits = [f"raised to {least} by min" + (f" of schedule {minimum_by!r}" if minimum_by else "")]
    if inputs.rest.is_asleep:
        target, limits = 0, [f"no request for {inputs.rest.quiet_s:.0f} s"]
    if target < min(before, most) and inputs.hold:
        target, limits = before, [f"held at {before}: {inputs.hold}"]
    return _capped(target, most, tuple(limits))


def _wanted(load: Load | None) -> int:
    return 0 if load is None else max(load.wanted, load.held.count)


def _least(inputs: Inputs, before: int, wanted: int) -> int:
    """A version with min 0 that is awake keeps one replica until it sleeps, and one that sleeps stays asleep."""
    return inputs.minimum if inputs.minimum > 0 else min(1, max(before, wanted))


def _capped(target: int, most: int, limits: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    if target <= most:
        return target, limits
    return most, (*limits, f"limited to {most} by max")
