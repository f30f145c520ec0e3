"""Traffic for the referee: recorded traces, and made ones of many kinds, so that no rule is tuned to a recording.

A recorded trace is a CSV with the header `t_seconds` (an arrival a line) or `second,requests`; README.md says
where each is from. A made one is a rate per second over an hour, from which arrivals are drawn.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.autoscale.simulator import Floats

TRACES = Path(__file__).parent / "traces"
LENGTH_S = 3600
Shape = Callable[[np.random.Generator], Floats]


def recorded(path: Path, rate_per_s: float, seed: int) -> Floats:
    """The first hour of a recording at another mean rate: jittered copies on top of each other, thinned at random."""
    times = _read(path, seed=1 + seed)
    times = times[times <= LENGTH_S]
    rng = np.random.default_rng(2 + seed)
    length = times[-1]
    factor = rate_per_s / (len(times) / length)
    copies = max(1, math.ceil(factor))
    jittered = [np.clip(times + rng.uniform(-0.5, 0.5, len(times)), 0, length) for _ in range(copies - 1)]
    joined = np.concatenate([times, *jittered])
    return np.sort(joined[rng.random(len(joined)) < factor / copies])


def _read(path: Path, seed: int) -> Floats:
    with path.open() as lines:
        header = lines.readline().strip()
    table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    if header.startswith("t_seconds"):
        return np.sort(table[:, 0] - table[0, 0])
    times = np.repeat(table[:, 0], table[:, 1].astype(int))
    times = times + np.random.default_rng(seed).random(len(times))
    return np.sort(times - table[0, 0])


def made(kind: str, rate_per_s: float, seed: int) -> Floats:
    """An hour of arrivals of one of `KINDS` at a mean rate."""
    rng = np.random.default_rng([100 + seed, zlib.crc32(kind.encode())])
    shape = np.maximum(KINDS[kind](rng), 0)
    counts = rng.poisson(shape / shape.mean() * rate_per_s)
    return np.sort(np.repeat(np.arange(LENGTH_S), counts) + rng.random(counts.sum()))


def service_times(count: int, mean_s: float, cv: float, seed: int) -> Floats:
    """Log-normal; `cv` is deviation / mean."""
    variance = math.log(1 + cv * cv)
    rng = np.random.default_rng(3 + seed)
    return rng.lognormal(math.log(mean_s) - variance / 2, math.sqrt(variance), count)


def _steady(_rng: np.random.Generator) -> Floats:
    return np.ones(LENGTH_S)


def _diurnal(rng: np.random.Generator) -> Floats:
    """A day in 25 minutes."""
    return 1 + 0.8 * np.sin(2 * np.pi * np.arange(LENGTH_S) / 1500 + rng.uniform(0, 6))


def _bursts(rng: np.random.Generator) -> Floats:
    """A base, and every two minutes or so up to nine times as much for up to half a minute."""
    rate, t = np.ones(LENGTH_S), 0
    while (t := t + int(rng.exponential(120))) < LENGTH_S:
        rate[t : t + int(rng.uniform(5, 30))] += rng.uniform(2, 8)
    return rate


def _ramps(rng: np.random.Generator) -> Floats:
    period = int(rng.integers(400, 800))
    return 0.2 + (np.arange(LENGTH_S) % period) / period * 2


def _modulated(rng: np.random.Generator) -> Floats:
    """A Markov-modulated Poisson process of three rates."""
    rate, t, state = np.empty(LENGTH_S), 0, 0
    while t < LENGTH_S:
        length = int(rng.exponential(80)) + 1
        rate[t : t + length] = (0.3, 1.0, 3.0)[state]
        t += length
        state = (state + int(rng.integers(1, 3))) % 3
    return rate


def _flash_crowds(rng: np.random.Generator) -> Floats:
    """Twice within the hour ten times as much comes within half a minute, and goes in several."""
    t = np.arange(LENGTH_S)
    rate = np.ones(LENGTH_S)
    for peak in rng.uniform(300, LENGTH_S - 600, 2):
        rise = np.exp(np.minimum(t - peak, 0) / 15)
        rate += 9 * np.where(t < peak, rise, np.exp(-np.maximum(t - peak, 0) / 240))
    return rate


def _on_off(rng: np.random.Generator) -> Floats:
    """Silence, and 40 s or so of traffic out of it."""
    rate, t = np.zeros(LENGTH_S), 0
    while t < LENGTH_S:
        length = int(rng.exponential(40)) + 3
        rate[t : t + length] = 1
        t += length + int(rng.exponential(90)) + 3
    return rate


def _jobs(rng: np.random.Generator) -> Floats:
    """A batch job each two or five minutes, for 20 s."""
    rate, period = np.full(LENGTH_S, 0.3), int(rng.choice([120, 300]))
    for t in range(int(rng.integers(0, period)), LENGTH_S, period):
        rate[t : t + 20] += 5
    return rate


def _self_similar(rng: np.random.Generator) -> Floats:
    """24 sources that are on and off for heavy-tailed times: bursts on every scale."""
    rate = np.zeros(LENGTH_S)
    for _ in range(24):
        t = -int(rng.uniform(0, 200))
        while t < LENGTH_S:
            on = int(min(2000, 5 * (rng.pareto(1.4) + 1)))
            rate[max(t, 0) : max(t + on, 0)] += 1
            t += on + int(min(2000, 10 * (rng.pareto(1.4) + 1)))
    return rate


def _steps(rng: np.random.Generator) -> Floats:
    return np.repeat(rng.choice([0.2, 0.5, 1, 2, 4], LENGTH_S // 240), 240).astype(float)


def _spikes(rng: np.random.Generator) -> Floats:
    """25 times within the hour thirteen times as much, for one to three seconds."""
    rate = np.ones(LENGTH_S)
    for t in rng.integers(60, LENGTH_S, 25):
        rate[t : t + int(rng.integers(1, 4))] += 12
    return rate


def _lulls(rng: np.random.Generator) -> Floats:
    """Next to nothing, and three times minutes of steady traffic."""
    rate = np.full(LENGTH_S, 0.02)
    for t in (300, 1500, 2700):
        rate[t : t + int(rng.uniform(200, 600))] = 3
    return rate


def _wandering(rng: np.random.Generator) -> Floats:
    """A geometric random walk that ends where it began."""
    steps = np.cumsum(rng.normal(0, 0.05, LENGTH_S))
    return np.exp(0.8 * (steps - np.linspace(0, steps[-1], LENGTH_S)))


def _noisy(rng: np.random.Generator) -> Floats:
    """Another rate every five seconds."""
    return np.repeat(rng.gamma(2, 0.5, LENGTH_S // 5), 5)


KINDS: Mapping[str, Shape] = {
    "bursts": _bursts,
    "diurnal": _diurnal,
    "flash crowds": _flash_crowds,
    "jobs": _jobs,
    "lulls": _lulls,
    "modulated": _modulated,
    "noisy": _noisy,
    "on and off": _on_off,
    "ramps": _ramps,
    "self-similar": _self_similar,
    "spikes": _spikes,
    "steady": _steady,
    "steps": _steps,
    "wandering": _wandering,
}
