"""A decision in words: one sentence for the event, and the list of its inputs for `autoscale explain`.

iris@2: 2 -> 5: 41.0 req/s × 0.24 s = 9.8 busy slots, 13 needed for p95 ≤ 1 s at 4 per replica; jump seen (...)
"""

from __future__ import annotations

from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.decision import Inputs, Load, ScaleDecision


def sentence(key: VersionKey, before: int, target: int, inputs: Inputs) -> str:
    change = f"{before} -> {target}" if target != before else f"stays at {target}"
    return f"{key}: {change}: " + "; ".join(_parts(target, inputs))


def _parts(target: int, inputs: Inputs) -> list[str]:
    parts = []
    load = inputs.load
    if load is not None:
        parts.append(_arithmetic(load, inputs.percentile))
        if load.demand.jump:
            parts.append(f"jump seen ({load.demand.jump})")
        if load.trim > 1.005:
            parts.append(f"{100 * (load.trim - 1):.0f} % more, for requests were late")
        if load.ceiling is not None:
            low, high = load.ceiling.low, load.ceiling.high
            parts.append(
                f"limited to {low.count}: {high.count} replicas answered {high.per_s:.1f} req/s where {low.count} "
                f"answered {low.per_s:.1f}"
            )
        if load.is_probing:
            parts.append(
                f"no more until it is seen what {inputs.counts.ready} can do, for they take longer than fewer did"
            )
        if load.held.count > load.wanted and load.held.count == target:
            parts.append(_kept(load))
        if load.capacity.is_out_of_reach:
            parts.append(
                f"no count meets the objective, for {inputs.percentile:g} % of the service times alone reach to "
                f"{seconds(load.capacity.tail_s)}"
            )
    parts.extend(inputs.limits)
    if inputs.counts.failing:
        parts.append(f"{inputs.counts.failing} failing to start, not counted")
    return parts or ["nothing is known yet"]


def _arithmetic(load: Load, percentile: float) -> str:
    capacity, demand = load.capacity, load.demand
    queue = f" + {load.queue:.1f} for the queue" if load.queue >= 0.05 else ""
    guess = " (a guess, none was answered yet)" if capacity.is_guess else ""
    derived = " (derived, no slo is set)" if capacity.is_derived else ""
    return (
        f"{demand.rate:.1f} req/s × {seconds(capacity.service_s)}{guess}{queue} = {load.busy:.1f} busy slots, "
        f"{load.slots} needed for p{percentile:g} ≤ {seconds(capacity.objective_s)}{derived} "
        f"at {capacity.slots} per replica"
    )


def _kept(load: Load) -> str:
    left_s = load.held.until - load.held.now
    why = "bursts came back to it" if load.held.is_paid else "it was needed a moment ago"
    return f"replica {load.held.count} is kept for {left_s:.0f} s more, for {why}"


def seconds(value_s: float) -> str:
    """A length for people: 0.24 s, 12 ms."""
    return f"{value_s:.3g} s" if value_s >= 0.1 else f"{value_s * 1000:.3g} ms"


def explained(decision: ScaleDecision) -> list[tuple[str, str]]:
    """Every input of a decision as (name, value with its unit), in the order in which they come into it."""
    inputs = decision.inputs
    rows: list[tuple[str, str]] = []
    if inputs.sample is not None:
        rows += _of_sample(inputs)
    if inputs.load is not None:
        rows += _of_load(inputs.load, inputs.percentile)
    counts = inputs.counts
    rows += [
        (
            "replicas",
            f"{counts.ready} ready, {counts.starting} starting, {counts.standby} standby, {counts.failing} failing",
        ),
        ("cold start", seconds(inputs.cold_start_s)),
        ("bounds", f"{inputs.minimum} to {inputs.maximum}"),
        ("no request for", f"{inputs.rest.quiet_s:.0f} s"),
        ("may go down", f"no: {inputs.hold}" if inputs.hold else "yes"),
        ("decided", f"{decision.before} -> {decision.target} awake, {decision.standby} standby"),
        ("to do", _steps(decision)),
    ]
    return rows


def _steps(decision: ScaleDecision) -> str:
    names = ("wake", "start", "pause", "end", "end_standby")
    steps = [f"{name.replace('_', ' ')} {count}" for name in names if (count := getattr(decision, name))]
    return ", ".join(steps) or "nothing"


def _of_sample(inputs: Inputs) -> list[tuple[str, str]]:
    sample = inputs.sample
    assert sample is not None
    return [
        ("signals", "; ".join(inputs.doubts) if inputs.doubts else "complete"),
        ("in the last", f"{sample.span_s:.1f} s"),
        ("arrived", _count(sample.arrivals)),
        ("answered", _count(sample.answered)),
        ("failed", _count(sample.failed)),
        ("late or shed", _count(sample.late)),
        ("queued", _count(sample.queued)),
        ("in flight", _count(sample.in_flight)),
    ]


def _of_load(load: Load, percentile: float) -> list[tuple[str, str]]:
    demand, capacity = load.demand, load.capacity
    return [
        ("rate", f"{demand.newest:.1f} now, {demand.fast:.1f} fast, {demand.mid:.1f} mid req/s"),
        ("burstiness", f"{demand.phi:.1f}, {demand.unrest:.1f} over a start (Poisson: 1)"),
        ("jump", demand.jump or "none"),
        ("ramp drawn out", f"{demand.surge:+.1f} req/s, forecasts trusted to {100 * demand.trust:.0f} %"),
        ("planned for", f"{demand.rate:.1f} req/s"),
        ("service time", f"{seconds(capacity.service_s)} with all slots busy, cv² {capacity.scv:.2f}"),
        (f"its p{percentile:g}", seconds(capacity.tail_s)),
        (
            "objective",
            f"p{percentile:g} ≤ {seconds(capacity.objective_s)}{' (derived)' if capacity.is_derived else ''}",
        ),
        ("slots per replica", str(capacity.slots)),
        ("busy slots", f"{load.busy:.1f}, {load.queue:.1f} of them for the queue"),
        ("slots needed", f"{load.slots}, × {load.trim:.2f} by feedback"),
        ("replicas needed", str(load.wanted)),
        ("replicas kept", f"{load.held.count} for {max(0.0, load.held.until - load.held.now):.0f} s"),
    ]


def _count(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
