"""What must hold of every decision, whatever the traffic, the signals and the replicas do."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.scaling.decide import decide
from orchestrator.core.scaling.decision import Memory
from orchestrator.core.scaling.facts import Counts, Observation, Sample, ServiceTimes, Settings
from tests.unit.orchestrator.core.scaling.builders import KEY, SECOND, TICK_S, Scaled, sample, settings

ANYTHING = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 5000))
SERVICES = st.one_of(st.none(), st.builds(ServiceTimes, *(st.floats() for _ in range(4))))
COUNTS = st.builds(Counts, *(st.integers(0, 12) for _ in range(4)))
# Each example is minutes of decisions.
EXAMPLES = hypothesis.settings(max_examples=40, deadline=None)
# No subnormal numbers: an eighth of the smallest is 0, so that replicas would break without a failed answer.
LOADS = st.lists(st.floats(0, 400, allow_subnormal=False), min_size=40, max_size=90)


@st.composite
def samples(draw: st.DrawFn, now: float) -> Sample | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    numbers: dict[str, Any] = {
        name: draw(ANYTHING) for name in ("arrivals", "answered", "failed", "late", "queued", "in_flight")
    }
    at = draw(st.sampled_from([now, now - 3, now - 500, now + 500, math.nan]))
    span_s = draw(st.sampled_from([2.0, 0.0, -1.0, math.nan, 0.05, 30.0]))
    return Sample(at=at, span_s=span_s, service=draw(SERVICES), missing=draw(st.sampled_from([(), ("b",)])), **numbers)


class TestBounds:
    @EXAMPLES
    @given(data=st.data(), minimum=st.integers(0, 5), room=st.integers(0, 20), standby=st.integers(0, 3))
    def test_hold_whatever_is_seen(self, data: st.DataObject, minimum: int, room: int, standby: int) -> None:
        """Never below min, above max, and nothing raises; what is to be done adds up to the target."""
        kept = Settings(minimum=minimum, maximum=minimum + room, slots=4, objective=SECOND, standby=standby)
        memory, now = Memory(), 1000.0
        for _ in range(data.draw(st.integers(1, 12))):
            now += 2.0
            counts = data.draw(COUNTS)
            seen = Observation(key=KEY, sample=data.draw(samples(now)), counts=counts)

            decision, memory = decide(seen, kept, memory, now)

            assert minimum <= decision.target <= minimum + room
            assert min(counts.present, decision.target) <= decision.target
            coming = counts.present + decision.wake + decision.start - decision.pause - decision.end
            assert coming >= decision.target
            assert decision.wake <= counts.standby
            assert decision.reason


class TestDown:
    @EXAMPLES
    @given(data=st.data(), per_s=st.floats(20, 300))
    def test_never_comes_of_signals_that_cannot_be_trusted(self, data: st.DataObject, per_s: float) -> None:
        """A good sample in between may lower the count; the property is about what follows none."""
        version = Scaled()
        version.ticks(90, per_s)
        before = version.decisions[-1].target
        for _ in range(data.draw(st.integers(1, 30))):
            version.now += TICK_S
            seen = data.draw(samples(version.now))
            is_trusted = seen is not None and not seen.doubts() and 0 <= version.now - seen.at <= 90

            target = version.see(seen).target

            assert target >= before or is_trusted
            before = target

    @EXAMPLES
    @given(loads=LOADS, broken=st.lists(st.integers(0, 8), min_size=90, max_size=90))
    def test_never_comes_of_replicas_that_break(self, loads: list[float], broken: list[int]) -> None:
        """The same arrivals, once with sound replicas and once with some that break: errors that come fast, a queue,
        fewer that are ready. At no time fewer are wanted."""
        sound, failing = Scaled(settings(maximum=400)), Scaled(settings(maximum=400))
        for version in (sound, failing):
            version.ticks(20, 20.0)
        for number, per_s in enumerate(loads):
            lost = broken[number]
            expected = sound.tick(per_s).target
            share = min(1.0, lost / 8)
            counts = Counts(ready=max(0, failing.counts.ready - lost), failing=lost)
            answered = per_s * TICK_S
            times = ServiceTimes(answered, 0.25 * (1 - 0.99 * share), 0.36, 0.55) if answered and not lost else None
            if answered and lost:
                times = ServiceTimes(answered, 0.001, 0.36, 0.002)

            found = failing.tick(
                per_s, counts, failed=answered * share, queued=3.0 * lost, in_flight=0.0 if lost else 1.0, service=times
            )

            assert found.target >= expected or share <= 0.05


class TestLoad:
    @EXAMPLES
    @given(loads=LOADS, more=st.floats(0.5, 400), queued=st.floats(0, 300))
    def test_that_is_more_never_gets_fewer(self, loads: list[float], more: float, queued: float) -> None:
        version = Scaled(settings(maximum=400))
        for per_s in loads:
            version.tick(per_s)
        at, last = version.now + TICK_S, loads[-1]

        def wanted(per_s: float, waiting: float) -> int:
            seen = Observation(key=KEY, sample=sample(at, per_s, queued=waiting), counts=version.counts)
            return decide(seen, version.settings, version.memory, at)[0].target

        assert wanted(last + more, 0.0) >= wanted(last, 0.0)
        assert wanted(last, queued) >= wanted(last, 0.0)

    @EXAMPLES
    @given(loads=LOADS)
    def test_decided_again_on_the_same_sample_is_the_same(self, loads: list[float]) -> None:
        version = Scaled()
        for per_s in loads:
            version.tick(per_s)
        seen = sample(version.now + TICK_S, loads[-1])
        version.now += TICK_S

        first = version.see(seen)
        again = version.see(seen)

        assert again.target == first.target
        assert replace(again, before=first.before).inputs.load == first.inputs.load
