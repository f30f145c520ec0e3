"""Connections counted in all and by address."""

from __future__ import annotations

import pytest

from router.core.census import Census, origin_of


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("127.9.9.9", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("unknown", ""),
        ("", ""),
    ],
)
def test_counts_an_address_under_what_one_person_has_many_of(address: str, origin: str) -> None:
    assert origin_of(address) == origin


class TestCensus:
    def test_refuses_beyond_the_limit_of_all_and_takes_again_after_one_left(self) -> None:
        census = Census(2, 10)

        answers = [census.enter("a"), census.enter("b"), census.enter("c")]
        census.leave("a")

        assert [answer and answer.status for answer in answers] == [None, None, 503]
        assert census.enter("c") is None

    def test_refuses_beyond_the_limit_of_an_address_and_no_other(self) -> None:
        census = Census(100, 2)

        answers = [census.enter(origin) for origin in ("a", "a", "a", "b")]
        census.leave("a")

        assert [answer and answer.status for answer in answers] == [None, None, 503, None]
        assert answers[2] is not None
        assert "a has 2 connections" in answers[2].text
        assert census.enter("a") is None

    def test_does_not_count_what_has_no_origin(self) -> None:
        census = Census(100, 1)

        assert [census.enter("") for _ in range(5)] == [None] * 5

    def test_does_not_count_those_it_refused(self) -> None:
        census = Census(1, 1)
        census.enter("a")
        for _ in range(3):
            census.enter("a")

        census.leave("a")

        assert census.enter("a") is None
