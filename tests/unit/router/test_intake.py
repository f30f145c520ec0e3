"""What a body on its way in may cost."""

from __future__ import annotations

import tracemalloc

from router.config import Limits
from router.proto.intake import Intake


class TestIntake:
    def test_holds_a_body_that_comes_byte_by_byte_in_little_more_than_its_bytes(self) -> None:
        size = 200_000
        intake = Intake(size, Limits())

        tracemalloc.start()
        try:
            for number in range(size):
                intake.hold(intake.feed(bytes((number % 251, 1))[:1]))
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert intake.is_whole
        assert len(intake.take()) == size
        assert held_bytes < 2 * size
