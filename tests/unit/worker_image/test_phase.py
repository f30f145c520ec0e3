"""The phases of a start, and how long each took."""

from __future__ import annotations

import time

from worker_image.server.phase import Phase


class TestPhase:
    def test_records_the_length_of_each_phase_that_ended(self) -> None:
        phase = Phase(time.monotonic())

        for name in ("importing", "loading", "warming", "ready"):
            phase.begin(name)

        assert phase.is_ready
        assert list(phase.lengths) == ["importing", "loading", "warming"]
        assert sum(phase.lengths.values()) <= phase.total_s

    def test_of_later_phases_only_what_is_now(self) -> None:
        before = time.time()
        phase = Phase(time.monotonic())

        for name in ("loading", "ready", "draining"):
            phase.begin(name)

        assert list(phase.lengths) == ["importing", "loading"]
        assert before <= phase.ready_at <= time.time()
