"""What is kept of cost: rows that grow wider with age and lose nothing, and one writer at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.store import Store
from orchestrator.adapters.store_cost import CostStore, Mark, NotTheWriter
from orchestrator.core.cost.account import DAY_S, HOUR_S, Bucket, Held, bucket_at
from orchestrator.core.cost.amounts import Amounts
from orchestrator.core.cost.predictions import Counted
from orchestrator.core.entities import Resources, VersionKey

IRIS, ROSE = VersionKey("iris", "1"), VersionKey("rose", "2")
NOW = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CostStore]:
    whole = Store(tmp_path / "state.sqlite")
    whole.cost.begin()
    yield whole.cost
    whole.close()


def mark(at: float = NOW) -> Mark:
    return Mark.of(at, NOW, {}, {})


def test_remembers_where_counting_was(tmp_path: Path) -> None:
    held = {
        "a": Held(IRIS, 5.0, Resources(1.5, 1000), True),
        "b": Held(ROSE, 6.0, None, False),
    }
    counted = {"gateway": Counted(7.0, {IRIS: 12.0})}
    first = Store(tmp_path / "state.sqlite")
    assert first.cost.begin() is None
    first.cost.add({}, Mark.of(NOW, NOW - 9, held, counted))
    first.close()

    second = Store(tmp_path / "state.sqlite")
    found = second.cost.begin()
    second.close()

    assert found is not None
    assert (found.at, found.since, found.replicas(), found.counters()) == (NOW, NOW - 9, held, counted)


def test_adds_to_what_is_there(store: CostStore) -> None:
    minute = bucket_at(NOW, NOW)
    store.add({(IRIS, minute): Amounts(replica_s=2, cost=1)}, mark())
    store.add({(IRIS, minute): Amounts(replica_s=3), (ROSE, minute): Amounts(predictions=4)}, mark())

    assert store.by_version(0) == {IRIS: Amounts(replica_s=5, cost=1), ROSE: Amounts(predictions=4)}
    assert store.by_bucket(0) == {minute: Amounts(replica_s=5, cost=1, predictions=4)}
    assert store.by_version(0, "rose") == {ROSE: Amounts(predictions=4)}


def test_the_stretch_that_a_moment_lies_in_counts_whole(store: CostStore) -> None:
    minute = Bucket(int(NOW // 60) * 60, 60)
    store.add({(IRIS, minute): Amounts(replica_s=2)}, mark())

    assert store.by_version(minute.start + 59) == {IRIS: Amounts(replica_s=2)}
    assert store.by_version(minute.start + 60) == {}


def test_grows_wider_with_age_and_loses_nothing(store: CostStore) -> None:
    """A minute each hour of 50 days, and each minute of the last six hours."""
    moments = [NOW - hours * HOUR_S for hours in range(50 * 24)] + [NOW - minutes * 60 for minutes in range(6 * 60)]
    for at in sorted(moments):
        store.add({(IRIS, bucket_at(at, at)): Amounts(replica_s=1)}, mark(at))
    store.add({}, mark())

    kept = store.by_bucket(0)

    assert sum(each.replica_s for each in kept.values()) == len(moments)
    widths = [bucket.width_s for bucket in kept]
    assert widths == sorted(widths, reverse=True)
    assert len([w for w in widths if w == 60]) <= 181
    assert len([w for w in widths if w == HOUR_S]) <= 36 * 24
    ends = [bucket.start + bucket.width_s for bucket in kept]
    assert all(bucket.start >= end for bucket, end in zip(list(kept)[1:], ends, strict=False)), "no two overlap"


def test_forgets_after_400_days(store: CostStore) -> None:
    for days in (401, 399):
        at = NOW - days * DAY_S
        store.add({(IRIS, bucket_at(at, at)): Amounts(replica_s=days)}, mark(at))
    store.add({}, mark())

    assert store.by_version(0) == {IRIS: Amounts(replica_s=399)}


def test_another_that_begins_to_count_takes_the_pen(tmp_path: Path) -> None:
    """A control plane that was paused, and whose lock another took, must not add what that one counted too."""
    stale, fresh = Store(tmp_path / "state.sqlite"), Store(tmp_path / "state.sqlite")
    stale.cost.begin()
    fresh.cost.begin()
    minute = bucket_at(NOW, NOW)
    fresh.cost.add({(IRIS, minute): Amounts(replica_s=60)}, mark(NOW))

    with pytest.raises(NotTheWriter):
        stale.cost.add({(IRIS, minute): Amounts(replica_s=60)}, mark(NOW - 30))

    assert fresh.cost.by_version(0) == {IRIS: Amounts(replica_s=60)}
    found = fresh.cost.begin()
    assert found is not None
    assert found.at == NOW
    stale.close()
    fresh.close()
