"""The two depths of sleep."""

from __future__ import annotations

import pytest

from orchestrator.core.scaling.facts import Settings
from orchestrator.core.scaling.sleep import rest

SLEEPS = Settings(minimum=0, standby=2, idle_after_s=600, gone_after_s=3600)


class TestRest:
    @pytest.mark.parametrize(
        ("quiet_s", "is_asleep", "standby"),
        [(None, False, 2), (0, False, 2), (599, False, 2), (600, True, 2), (4199, True, 2), (4200, True, 0)],
    )
    def test_goes_from_awake_to_standby_to_gone(self, quiet_s: float | None, is_asleep: bool, standby: int) -> None:
        since = None if quiet_s is None else 5000 - quiet_s

        found = rest(SLEEPS, 0, since, 5000)

        assert (found.is_asleep, found.standby) == (is_asleep, standby)

    def test_keeps_its_standby_without_an_end(self) -> None:
        assert rest(Settings(minimum=0, standby=1), 0, 0.0, 1e9).standby == 1

    def test_a_minimum_in_force_keeps_it_awake(self) -> None:
        assert not rest(SLEEPS, 1, 0.0, 1e9).is_asleep
