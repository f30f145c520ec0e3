"""How long starts took: by the replica's own word, or by when it was seen ready."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.adapters.metrics import Metrics
from orchestrator.core.entities import Loading, Replica
from orchestrator.loops.cold_starts import GUESS_S, ColdStarts
from tests.unit.orchestrator.core.builders import key, replica

IRIS = key("iris@1")


def ready(id_: str, ready_at: float = 0.0, **facts: Any) -> Replica:
    return replica(id_, "iris@1", loading=Loading((("loading", 1.0),), ready_at), **facts)


@pytest.fixture
def starts() -> ColdStarts:
    return ColdStarts(Metrics())


def test_a_guess_stands_until_one_was_seen(starts: ColdStarts) -> None:
    assert starts.mean_s(IRIS) == GUESS_S


def test_the_replicas_own_word_counts_whenever_it_is_heard(starts: ColdStarts) -> None:
    starts.note([ready("a", ready_at=103.0, created_at=100.0)], now=900.0)

    assert starts.mean_s(IRIS) == 3.0


def test_without_it_the_moment_counts_in_which_it_was_seen_ready(starts: ColdStarts) -> None:
    starts.note([replica("a", "iris@1", "loading", created_at=100.0)], now=101.0)
    starts.note([replica("a", "iris@1", created_at=100.0)], now=104.0)

    assert starts.mean_s(IRIS) == 4.0


def test_one_that_was_ready_before_anybody_looked_tells_nothing(starts: ColdStarts) -> None:
    starts.note([replica("a", "iris@1", created_at=100.0)], now=900.0)

    assert starts.mean_s(IRIS) == GUESS_S


def test_the_mean_is_of_the_last_few_and_counts_each_once(starts: ColdStarts) -> None:
    lengths = [100.0, *[2.0] * 8]
    for number, length in enumerate(lengths):
        found = ready(str(number), ready_at=10.0 + length, created_at=10.0)
        starts.note([found], now=50.0)
        starts.note([found], now=51.0)

    assert starts.mean_s(IRIS) == 2.0


def test_one_that_is_ready_again_after_a_pause_did_not_start(starts: ColdStarts) -> None:
    started = ready("a", ready_at=12.0, created_at=10.0)
    starts.note([started], now=13.0)
    starts.note([replica("a", "iris@1", "starting", created_at=10.0)], now=500.0)
    starts.note([started], now=501.0)

    assert starts.mean_s(IRIS) == 2.0
