"""When what runs is what is wanted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.companions.grafana import GRAFANA
from orchestrator.adapters.companions.kinds import Recipe
from orchestrator.adapters.companions.prometheus import PROMETHEUS

RECIPE = Recipe(("--config=/a", "--port=1"), {"a": b"1", "b": b"2"}, {"HOME": "/a"})


class TestADigest:
    @pytest.mark.parametrize(
        "other",
        [
            replace(RECIPE, arguments=("--config=/a", "--port=2")),
            replace(RECIPE, arguments=("--config=/a--port=1",)),
            replace(RECIPE, environment={"HOME": "/b"}),
        ],
    )
    def test_changes_with_what_takes_another_start(self, other: Recipe) -> None:
        assert other.digest(PROMETHEUS) != RECIPE.digest(PROMETHEUS)

    def test_changes_with_the_image_of_a_release(self) -> None:
        assert RECIPE.digest(replace(PROMETHEUS, image="prom/prometheus:v9")) != RECIPE.digest(PROMETHEUS)

    def test_changes_with_a_file_where_none_is_read_again(self) -> None:
        other = replace(RECIPE, files={"a": b"1", "b": b"3"})

        assert other.digest(GRAFANA) != RECIPE.digest(GRAFANA)
        assert other.digest(PROMETHEUS) == RECIPE.digest(PROMETHEUS)
        assert other.content() != RECIPE.content()

    def test_does_not_change_with_the_order_of_what_has_none(self) -> None:
        other = replace(RECIPE, files={"b": b"2", "a": b"1"})

        assert (other.digest(GRAFANA), other.content()) == (RECIPE.digest(GRAFANA), RECIPE.content())
