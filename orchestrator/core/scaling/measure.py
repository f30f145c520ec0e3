"""What a version's traffic asks for: steps 1 to 6 of a decision (`decide.py`), from one sample and what was learned.

Nothing here knows of bounds, sleep or holds. A sample that was seen before teaches nothing twice.
"""

from __future__ import annotations

import math
from dataclasses import replace

from orchestrator.core.scaling import ceiling, demand, service, tenure
from orchestrator.core.scaling.decision import Load, Memory, Trim
from orchestrator.core.scaling.erlang import slots_needed
from orchestrator.core.scaling.facts import Observation, Sample, Settings

# What is queued should be served within this long, or twice the objective. Less would start replicas for requests that
# are answered, or given up, before these are ready.
DRAIN_S = 2.0
# The trim: up when more than twice the allowed share of enough requests was late, down when no more than that share.
TRIM_WINDOW_S = 30.0
TRIM_UP, TRIM_DOWN, MOST_TRIM = 0.10, 0.01, 1.5
TRIM_ENOUGH = 50.0
TRIM_PAUSE_S = 10.0
ROUNDING = 1e-9
TOOK_LONGER = 1.25
# A flood is counted to so many slots, and to so many times what max has: beyond, it makes no difference.
ENOUGH_SLOTS, MOST_TIMES = 100, 4


def measure(
    seen: Observation, sample: Sample, settings: Settings, memory: Memory, now: float
) -> tuple[Load | None, Memory]:
    """The load as of `sample` (sound, see `facts.sound`), and the memory with all that it taught."""
    is_new = sample.at > memory.sampled_at and sample.span_s > 0
    if is_new:
        memory = _learned(memory, sample, seen, settings)
    capacity = service.capacity(memory.learned, settings.slots, settings.objective, now)
    lead_s = _lead_s(seen)
    if is_new:
        asked, traffic = demand.read(memory.traffic, lead_s, capacity.service_s)
        trim = trimmed(memory.trim, sample, seen.counts.starting, settings.objective.late, capacity.late_alone, lead_s)
        memory = replace(memory, demand=asked, traffic=traffic, trim=trim)
    if memory.demand is None:
        return None, memory
    load = _load(memory.demand, capacity, sample, seen, settings, memory, now)
    if is_new:
        levels = tenure.note(memory.levels, _use(load, sample, seen, settings, now), capacity, settings.worth_s)
        memory = replace(memory, levels=tenure.trimmed(levels, now))
    held = tenure.held(memory.levels, now, tenure.least_s(capacity, lead_s))
    return replace(load, held=held), memory


def _lead_s(seen: Observation) -> float:
    """How long until one more replica serves."""
    return seen.wake_s if seen.counts.standby else seen.cold_start_s


def _learned(memory: Memory, sample: Sample, seen: Observation, settings: Settings) -> Memory:
    ready = seen.counts.ready
    is_saturated = ceiling.is_saturated(sample, ready, settings.slots)
    is_same = memory.ready == ready
    # What was answered right after the count changed was served by the old one in part, and teaches neither.
    learned = memory.learned
    if is_same or learned.is_guess:
        learned = service.learn(learned, sample, memory.in_flight, ready, settings.slots)
    fewer_service_s = memory.fewer_service_s
    if ready > memory.ready and not _took_longer(memory):
        fewer_service_s = memory.learned.mean_s
    elif ready < memory.ready:
        fewer_service_s = 0.0
    was_saturated = is_same and is_saturated and memory.was_saturated
    return replace(
        memory,
        sampled_at=sample.at,
        traffic=demand.note(memory.traffic, sample.at, sample.span_s, sample.arrivals or 0.0),
        learned=learned,
        findings=ceiling.find(memory.findings, sample, ready) if was_saturated else memory.findings,
        was_saturated=is_saturated,
        ready=ready,
        in_flight=sample.in_flight or 0.0,
        fewer_service_s=fewer_service_s,
    )


def _load(
    asked: demand.Demand,
    capacity: service.Capacity,
    sample: Sample,
    seen: Observation,
    settings: Settings,
    memory: Memory,
    now: float,
) -> Load:
    queue = _too_long(sample, seen.counts.ready, capacity) * capacity.service_s
    busy = asked.rate * capacity.service_s + queue
    slots = _slots(busy, asked, capacity, settings)
    factor = memory.trim.factor
    wanted = math.ceil(slots * factor / capacity.slots - ROUNDING)
    likely = _slots(max(busy, asked.likely * capacity.service_s), asked, capacity, settings)
    kept = math.ceil(likely * factor / capacity.slots - ROUNDING)
    top = ceiling.ceiling(memory.findings, now)
    most = _explored(max(wanted, kept), memory, seen, now)
    if top:
        most = min(most, top.count)
    return Load(
        demand=asked,
        capacity=capacity,
        lead_s=_lead_s(seen),
        busy=busy,
        queue=queue,
        slots=slots,
        trim=factor,
        wanted=min(wanted, most),
        kept=min(kept, most),
        ceiling=top if top and top.count < wanted else None,
        is_probing=most < wanted and not (top and top.count <= most),
        held=tenure.Held(0, now, now, False),
    )


def _explored(wanted: int, memory: Memory, seen: Observation, now: float) -> int:
    """How many of the wanted may come while every slot is busy and replicas take longer since there are more of them.
    That looks like a shared host, on which more would take longer still: first it is seen what the present ones can
    do, then twice as many are tried."""
    if not (memory.was_saturated and _took_longer(memory)):
        return wanted
    is_measured = ceiling.is_measured(memory.findings, memory.ready, now)
    return min(wanted, max(seen.counts.present, 2 * memory.ready if is_measured else 0))


def _took_longer(memory: Memory) -> bool:
    return 0 < memory.fewer_service_s * TOOK_LONGER < memory.learned.mean_s


def _too_long(sample: Sample, ready: int, capacity: service.Capacity) -> float:
    """Requests per second of the queue that what is ready would serve too late."""
    in_time = ready * capacity.slots / capacity.service_s * capacity.spare_s
    return max(0.0, (sample.queued or 0.0) - in_time) / max(DRAIN_S, 2 * capacity.objective_s)


def _slots(busy: float, asked: demand.Demand, capacity: service.Capacity, settings: Settings) -> int:
    if capacity.is_guess:
        # Spare slots for a tail that nobody has seen would start a replica at the first request of every new version.
        return math.ceil(busy - ROUNDING)
    return slots_needed(
        busy,
        capacity.spare_s,
        capacity.service_s,
        variability=(asked.unrest + capacity.scv) / 2,
        late=settings.objective.late,
        most=ENOUGH_SLOTS + MOST_TIMES * settings.maximum * capacity.slots,
    )


def _use(load: Load, sample: Sample, seen: Observation, settings: Settings, now: float) -> tenure.Use:
    """The load of the newest sample by itself, in replicas: what fits into it and the time that requests may wait."""
    span_s = max(sample.span_s, demand.SHORTEST_SPAN_S)
    capacity = load.capacity
    filled = (sample.arrivals or 0.0) * capacity.service_s / (capacity.slots * (span_s + capacity.spare_s))
    most = load.wanted if load.ceiling or load.is_probing else settings.maximum
    return tenure.Use(
        now=now,
        span_s=span_s,
        wanted=min(load.wanted, most),
        kept=min(load.kept, most),
        least_s=tenure.least_s(capacity, load.lead_s),
        is_jump=bool(load.demand.jump),
        load=min(filled, most),
        slow_lead_s=seen.cold_start_s,
        fast_lead_s=seen.wake_s,
        fast_levels=load.wanted + settings.standby if settings.standby else 0,
    )


def trimmed(trim: Trim, sample: Sample, starting: int, allowed: float, alone: float, lead_s: float) -> Trim:
    """The trim after a sample: `allowed` is the share that may wait too long, `alone` that of requests that would be
    late without waiting. It moves once in a while, for what it did shows only then."""
    now = sample.at
    window = (*trim.window, (now, sample.late or 0.0, sample.arrivals or 0.0))
    window = tuple(w for w in window if w[0] > now - TRIM_WINDOW_S)
    late, arrived = sum(w[1] for w in window), sum(w[2] for w in window)
    if now - trim.changed_at < max(TRIM_PAUSE_S, lead_s + sample.span_s):
        return replace(trim, window=window)
    if arrived > TRIM_ENOUGH and late > (2 * allowed + alone) * arrived and not starting:
        return Trim(min(MOST_TRIM, trim.factor + TRIM_UP), now, window)
    if late <= (allowed + alone) * arrived:
        return Trim(max(1.0, trim.factor - TRIM_DOWN), now, window)
    return replace(trim, window=window)
