"""A batch runs on the event loop only when everything says that it is cheap."""

from __future__ import annotations

from worker_image.server.batching.placement import CHEAP_S, DEAR_S, STREAK, Placement


def learned(*, rows: int = 8, is_steady: bool = True) -> Placement:
    placement = Placement(is_steady=is_steady)
    for _ in range(STREAK):
        placement.observe(rows, CHEAP_S / 2)
    return placement


class TestPlacement:
    def test_uses_the_thread_until_it_has_seen_enough_cheap_batches(self) -> None:
        assert not Placement(is_steady=True).is_inline(1)
        assert learned().is_inline(8)

    def test_never_runs_code_of_the_users_own_on_the_event_loop(self) -> None:
        assert not learned(is_steady=False).is_inline(1)

    def test_uses_the_thread_for_a_batch_larger_than_it_has_seen(self) -> None:
        assert not learned(rows=8).is_inline(9)

    def test_goes_back_to_the_thread_when_batches_become_dearer(self) -> None:
        placement = learned()

        for _ in range(STREAK):
            placement.observe(8, CHEAP_S * 1.5)

        assert not placement.is_inline(8)

    def test_is_not_misled_by_a_batch_that_the_machine_made_slow(self) -> None:
        placement = learned()

        placement.observe(8, CHEAP_S * 3)

        assert placement.is_inline(8)

    def test_begins_anew_after_a_batch_that_would_block_the_loop(self) -> None:
        placement = learned()

        placement.observe(8, DEAR_S)
        placement.observe(8, CHEAP_S / 2)

        assert not placement.is_inline(8)

    def test_comes_back_when_batches_are_cheap_again(self) -> None:
        placement = learned()
        placement.observe(8, DEAR_S)

        for _ in range(STREAK):
            placement.observe(8, CHEAP_S / 2)

        assert placement.is_inline(8)
