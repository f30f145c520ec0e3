"""Every kept case again, and a few new ones: what fuzzing found once stays found."""

from __future__ import annotations

import random

import pytest

from .corpus import HERE, kept, seeds
from .mutating import mutated
from .targets import TARGETS

FRESH = 200


@pytest.mark.parametrize("name", TARGETS)
class TestTarget:
    def test_holds_for_every_kept_case(self, name: str) -> None:
        for case in kept(name):
            TARGETS[name](case)

    def test_holds_for_mutations_of_its_seeds(self, name: str) -> None:
        """The seed is fixed: `make fuzz` is for news."""
        chance, cases = random.Random(name), seeds(name)

        for _ in range(FRESH):
            case = mutated(chance, cases)
            try:
                TARGETS[name](case)
            except Exception as exc:
                raise AssertionError(f"{name} does not hold for {case!r}") from exc


def test_the_corpus_can_be_read_by_people() -> None:
    assert sum(path.stat().st_size for path in HERE.glob("*.txt")) < 500_000
