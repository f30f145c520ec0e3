"""How many requests per second to plan for: the level of arrivals, a jump as soon as it is one, a ramp's next seconds.

    mid     rate over the last 20 s: the level while nothing changes
    fast    rate over the last 6 s; with `newest`, the last sample's, it tells a jump from chance
    phi     variance of arrivals over that of a Poisson process (1), from how samples differ from the ones before them

    unrest  the same over the time that a replica needs to start, for what grows or wanders meanwhile

A rate is a jump when it is above what came before it by more than Z standard deviations of chance. What it is compared
with leaves out what it covers, so that more arrivals can never make a jump less of one. On a jump the slope of the last
four samples is drawn out over the time that a replica needs to start. How far such forecasts came true is remembered:
for a service whose bursts end as fast as they begin, they count for little after the first few.

Windows grow with the service time of slow models, for twenty seconds of a few requests say nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import add, mul, sub

MID_S = 20.0
FAST_S = 6.0
HISTORY_S = 240.0
MID_MOST_S = 120.0
FAST_MOST_S = 36.0
# 1 in 4,000 samples of Poisson arrivals of some size is 3.5 standard deviations up; a skewed few are more often.
Z = 4.0
MOST_PHI = 8.0
# Between the rate that starts a replica and the one that lets it go lie so many standard deviations of the mid rate.
KEPT_Z = 3.0
# The newest samples may be the jump itself, so they do not count as the variation that was usual before it.
UNUSUAL_SAMPLES = 3
ENOUGH_SAMPLES = 6
ENOUGH_PAIRS = 20
MOST_APART = 20
# How far rates wander counts three times: the formula halves it, and what wandered up goes on more often than chance.
WANDER_WEIGHT = 3.0
# A shorter sample (a wake-up call between two ticks) says nothing of a rate per second beyond its requests.
SHORTEST_SPAN_S = 1.0
# A forecast goes to twice the rate seen at most.
MOST_SURGE = 2.0
# Trust in forecasts begins at 1 with the weight of two, and is a mean of the last eight or so.
TRUST_WEIGHT = 2.0
MOST_TRUST_WEIGHT = 8.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """On a jump to `rate`, `predicted` requests per second were foreseen for `due`."""

    due: float
    rate: float
    predicted: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """The last minutes of arrivals. `squares` are the squared differences of neighbouring rates.

    Of the forecasts one at a time is compared with what came: those at the top of every ramp fail, and there are many.
    """

    times: tuple[float, ...] = ()
    spans: tuple[float, ...] = ()
    arrivals: tuple[float, ...] = ()
    squares: tuple[float, ...] = ()
    forecast: Forecast | None = None
    trust: float = 1.0
    trust_weight: float = TRUST_WEIGHT

    @property
    def covered_s(self) -> float:
        return self.times[-1] - self.times[0] + self.spans[0] if self.times else 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """`rate` is what to plan for, in requests per second; `jump` says in words why it is more than `mid`. `unrest` is
    phi, or more where rates wander while a replica starts. `likely` is what the mid rate may be by chance in the next
    minutes though nothing changes: what is there is kept for it. `surge` is the part of the rate that is a forecast."""

    rate: float
    newest: float
    fast: float
    mid: float
    phi: float
    unrest: float
    likely: float
    jump: str = ""
    surge: float = 0.0
    trust: float = 1.0


def note(traffic: Traffic, at: float, span_s: float, arrivals: float) -> Traffic:
    """The traffic with one more sample; what is older than HISTORY_S is dropped."""
    span_s = max(span_s, SHORTEST_SPAN_S)
    rate = arrivals / span_s
    before = traffic.arrivals[-1] / traffic.spans[-1] if traffic.arrivals else rate
    start = bisect_right(traffic.times, at - HISTORY_S)
    return replace(
        traffic,
        times=(*traffic.times[start:], at),
        spans=(*traffic.spans[start:], span_s),
        arrivals=(*traffic.arrivals[start:], arrivals),
        squares=(*traffic.squares[start:], (rate - before) ** 2),
    )


def read(traffic: Traffic, lead_s: float, service_s: float) -> tuple[Demand, Traffic]:
    """The demand now, and the traffic with the forecast that it made. `lead_s`: how long a replica needs to serve."""
    fast_s, mid_s = windows_s(service_s)
    end = len(traffic.times)
    fast_from, mid_from = _since(traffic, fast_s), _since(traffic, mid_s)
    newest, fast, mid = _rate(traffic, end - 1, end), _rate(traffic, fast_from, end), _rate(traffic, mid_from, end)
    phi = _phi(traffic)
    rate, jump = mid, ""
    older, older_s = _rate(traffic, mid_from, fast_from), _length(traffic, mid_from, fast_from)
    if older_s > 0 and fast > _chance(older, older_s, fast_s, phi) and fast > mid:
        rate, jump = fast, f"{fast_s:.0f} s rate {_times(fast, older)} the {mid_s:.0f} s rate before it"
    base, base_s = older, older_s
    if end - 1 > fast_from and _rate(traffic, fast_from, end - 1) > base:
        base, base_s = _rate(traffic, fast_from, end - 1), _length(traffic, fast_from, end - 1)
    span_s = traffic.spans[-1]
    if base_s > 0 and newest > _chance(base, base_s, span_s, phi) and newest > rate:
        rate, jump = newest, f"{span_s:.0f} s rate {_times(newest, base)} the rate before it"
    traffic = _judge(traffic)
    likely = mid + KEPT_Z * math.sqrt(phi * max(mid, 1.0 / mid_s) / mid_s)
    demand = Demand(rate, newest, fast, mid, phi, _unrest(traffic, phi, lead_s), likely, jump, 0.0, traffic.trust)
    return _drawn_out(demand, traffic, lead_s) if jump else (demand, traffic)


def windows_s(service_s: float) -> tuple[float, float]:
    """The fast and the mid window for a service time."""
    return min(FAST_MOST_S, max(FAST_S, service_s)), min(MID_MOST_S, max(MID_S, 4 * service_s))


def _since(traffic: Traffic, window_s: float) -> int:
    """Where the samples of the last `window_s` begin; the newest is always among them."""
    start = bisect_right(traffic.times, traffic.times[-1] - window_s + 1e-6)
    return min(start, len(traffic.times) - 1)


def _length(traffic: Traffic, start: int, end: int) -> float:
    return sum(traffic.spans[start:end])


def _rate(traffic: Traffic, start: int, end: int) -> float:
    length = _length(traffic, start, end)
    return sum(traffic.arrivals[start:end]) / length if length > 0 else 0.0


def _chance(rate: float, over_s: float, window_s: float, phi: float) -> float:
    """The most that chance makes of a rate: both windows are samples of it. A rate of 0 is less than one request."""
    likely = max(rate, 1.0 / over_s)
    return rate + Z * math.sqrt(phi * likely * (1.0 / window_s + 1.0 / over_s))


def _times(rate: float, before: float) -> str:
    return f"{rate / before:.1f} ×" if before > 0 else f"{rate:.1f} req/s, not 0 as"


def _phi(traffic: Traffic) -> float:
    """How much burstier than Poisson arrivals, for which the mean squared difference is twice the mean."""
    until = len(traffic.squares) - UNUSUAL_SAMPLES
    if until < ENOUGH_SAMPLES:
        return 1.0
    mean_rate = _rate(traffic, 0, until)
    if mean_rate <= 0:
        return 1.0
    mean_square = sum(traffic.squares[1:until]) / (until - 1)
    span_s = _length(traffic, 0, until) / until
    return min(MOST_PHI, max(1.0, mean_square * span_s / (2 * mean_rate)))


def _unrest(traffic: Traffic, phi: float, lead_s: float) -> float:
    """phi, or more where rates wander: the same over pairs of samples that are as far apart as a replica needs to
    start, for until then what is there must carry whatever comes."""
    known = traffic.arrivals[: len(traffic.arrivals) - UNUSUAL_SAMPLES]
    pairs = tuple(map(add, known, known[1:]))
    span_s = _length(traffic, 0, len(traffic.spans)) / len(traffic.spans)
    apart = min(MOST_APART, 1 + round(lead_s / span_s))
    compared = len(pairs) - apart
    total: float = sum(pairs)
    if compared < ENOUGH_PAIRS or total <= 0:
        return phi
    differences = tuple(map(sub, pairs[apart:], pairs))
    square: float = sum(map(mul, differences, differences)) / compared
    wandering = 1.0 + WANDER_WEIGHT * (square * len(pairs) / (2 * total) - 1.0)
    return min(MOST_PHI, max(phi, wandering))


def _drawn_out(demand: Demand, traffic: Traffic, lead_s: float) -> tuple[Demand, Traffic]:
    if len(traffic.times) < 4:
        return demand, traffic
    rates = [n / s for n, s in zip(traffic.arrivals[-4:], traffic.spans[-4:], strict=True)]
    between_s = sum(b - a for a, b in pairwise(traffic.times[-4:])) / 3 * 2
    slope = max(0.0, (rates[3] + rates[2] - rates[1] - rates[0]) / 2 / max(between_s, SHORTEST_SPAN_S))
    ahead_s = lead_s + traffic.spans[-1]
    # A mean over a window is the rate of its middle.
    behind_s = (FAST_S if demand.rate == demand.fast else traffic.spans[-1]) / 2
    predicted = min(demand.rate + slope * (ahead_s + behind_s), MOST_SURGE * max(demand.newest, demand.fast))
    if predicted <= demand.rate:
        return demand, traffic
    surge = traffic.trust * (predicted - demand.rate)
    drawn = replace(demand, rate=demand.rate + surge, surge=surge)
    if traffic.forecast is None:
        traffic = replace(traffic, forecast=Forecast(traffic.times[-1] + ahead_s, demand.rate, predicted))
    return drawn, traffic


def _judge(traffic: Traffic) -> Traffic:
    """Compares a forecast that is due with what came."""
    forecast = traffic.forecast
    if forecast is None or forecast.due > traffic.times[-1] + 1e-6:
        return traffic
    came = _rate(traffic, max(0, len(traffic.times) - 2), len(traffic.times))
    share = min(1.0, max(0.0, (came - forecast.rate) / (forecast.predicted - forecast.rate)))
    weight = traffic.trust_weight
    return replace(
        traffic,
        forecast=None,
        trust=(traffic.trust * weight + share) / (weight + 1),
        trust_weight=min(MOST_TRUST_WEIGHT, weight + 1),
    )
