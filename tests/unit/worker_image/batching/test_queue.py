"""Which waiting requests share a batch: order, size, kinds, deadlines. Pure: times are literals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker_image.server.batching.queue import BatchQueue, Waiting
from worker_image.server.batching.sizing import IGNORED, LEAST_SAMPLES, Sizing


def waiting(
    name: str, *, key: object = "k", rows: int = 1, at: float = 0.0, deadline: float | None = None
) -> Waiting[str]:
    return Waiting(name, key, rows, at, deadline)


def names(batch: list[Waiting[str]]) -> list[str]:
    return [one.payload for one in batch]


class TestTake:
    def test_gives_nothing_when_nothing_waits(self) -> None:
        assert BatchQueue[str](Sizing(fixed=8)).take(0.0).batch == []

    def test_gives_all_that_wait_in_order_of_arrival(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=8))
        for index, name in enumerate("abc"):
            batches.push(waiting(name, at=index))

        assert names(batches.take(3.0).batch) == ["a", "b", "c"]
        assert len(batches) == 0

    def test_leaves_what_is_above_the_most_rows_for_the_next_batch(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=4))
        for name in "abc":
            batches.push(waiting(name, rows=2))

        assert names(batches.take(0.0).batch) == ["a", "b"]
        assert names(batches.take(0.0).batch) == ["c"]

    def test_lets_a_request_larger_than_the_most_rows_go_alone_and_whole(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=4))
        batches.push(waiting("large", rows=9))
        batches.push(waiting("small"))

        assert names(batches.take(0.0).batch) == ["large"]
        assert names(batches.take(0.0).batch) == ["small"]

    def test_does_not_mix_requests_of_different_kinds(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=8))
        batches.push(waiting("a", key="fp32", at=0))
        batches.push(waiting("b", key="fp64", at=1))
        batches.push(waiting("c", key="fp32", at=2))

        assert names(batches.take(3.0).batch) == ["a", "c"]
        assert names(batches.take(3.0).batch) == ["b"]

    def test_serves_the_kind_of_the_oldest_request_first(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=1))
        for index, (name, key) in enumerate([("a", "x"), ("b", "y"), ("c", "x")]):
            batches.push(waiting(name, key=key, at=index))

        assert [names(batches.take(9.0).batch) for _ in range(3)] == [["a"], ["b"], ["c"]]

    def test_never_joins_requests_that_cannot_share(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=8))
        batches.push(waiting("a", key=None))
        batches.push(waiting("b", key=None))

        assert names(batches.take(0.0).batch) == ["a"]

    def test_hands_out_an_expired_request_instead_of_computing_it(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=8))
        batches.push(waiting("late", deadline=1.0))
        batches.push(waiting("fine", deadline=5.0))

        taken = batches.take(2.0)

        assert names(taken.expired) == ["late"]
        assert names(taken.batch) == ["fine"]

    def test_drops_a_request_whose_caller_left(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=8))
        left = waiting("left")
        batches.push(left)
        batches.push(waiting("stayed"))
        left.abandoned = True

        assert names(batches.take(0.0).batch) == ["stayed"]

    def test_says_how_long_to_wait_for_company_when_a_delay_is_set(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=8), max_delay_s=0.5)
        batches.push(waiting("a", at=10.0))

        taken = batches.take(10.2)

        assert taken.batch == []
        assert taken.wait_s is not None
        assert abs(taken.wait_s - 0.3) < 1e-9
        assert names(batches.take(10.5).batch) == ["a"]

    def test_does_not_wait_for_company_when_the_batch_is_full(self) -> None:
        batches = BatchQueue[str](Sizing(fixed=2), max_delay_s=0.5)
        batches.push(waiting("a", at=10.0))
        batches.push(waiting("b", at=10.0))

        assert names(batches.take(10.0).batch) == ["a", "b"]


def costing(limit: int, *, fixed_s: float, row_s: float) -> Sizing:
    """A queue's limit, and the knowledge of what batches take."""
    sizing = Sizing(fixed=limit)
    for _ in range(IGNORED):
        sizing.observe(1, 0.0, 0.0)
    for rows in (1, 2, 4, 8):
        for _ in range(LEAST_SAMPLES):
            sizing.observe(rows, fixed_s + row_s * rows, 0.0)
    return sizing


class TestUrgency:
    def test_a_batch_takes_no_more_than_half_of_what_the_most_urgent_has_left(self) -> None:
        batches = BatchQueue[str](costing(8, fixed_s=0.0, row_s=0.1))
        for index in range(8):
            batches.push(waiting(str(index), deadline=0.8))

        assert len(batches.take(0.0).batch) == 4
        assert len(batches) == 4

    def test_whoever_cannot_make_it_even_alone_makes_nobody_else_wait(self) -> None:
        batches = BatchQueue[str](costing(8, fixed_s=0.5, row_s=0.1))
        for index in range(8):
            batches.push(waiting(str(index), deadline=0.1 if index == 0 else None))

        assert len(batches.take(0.0).batch) == 8

    def test_batches_stay_whole_while_more_is_waiting_than_fits(self) -> None:
        """Smaller batches under a backlog would make everybody later."""
        batches = BatchQueue[str](costing(8, fixed_s=0.0, row_s=0.1))
        for index in range(9):
            batches.push(waiting(str(index), deadline=0.8))

        assert len(batches.take(0.0).batch) == 8


requests = st.lists(st.tuples(st.sampled_from(["x", "y", None]), st.integers(1, 12)), max_size=40)


@given(requests, st.integers(1, 10))
def test_every_request_leaves_exactly_once_and_no_batch_breaks_the_rules(
    sent: list[tuple[str | None, int]], most: int
) -> None:
    batches = BatchQueue[str](Sizing(fixed=most))
    for index, (key, rows) in enumerate(sent):
        batches.push(waiting(str(index), key=key, rows=rows, at=index))

    seen: list[str] = []
    while batch := batches.take(1000.0).batch:
        assert len({one.key for one in batch}) == 1
        assert len(batch) == 1 or (sum(one.rows for one in batch) <= most and batch[0].key is not None)
        assert [one.arrived for one in batch] == sorted(one.arrived for one in batch)
        seen += names(batch)

    assert len(batches) == 0
    assert sorted(seen, key=int) == [str(index) for index in range(len(sent))]
