"""From the manifest's words to what is simulated, with what the user would change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.entities import VersionKey
from orchestrator.core.errors import UserError
from orchestrator.core.scaling import census
from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.loops import desired
from orchestrator.loops.desired import Resolved
from orchestrator.manifest import VersionConfig, load
from orchestrator.whatif import scenario
from orchestrator.whatif.scenario import Changes, Measured

MODEL = """
models:
  iris:
    backend: sklearn
    concurrency: 4
    {more}
    versions: {{"1": {{source: a}}}}
"""


def config(more: str = "") -> VersionConfig:
    return load(MODEL.format(more=more), file="m", base_dir=Path("/")).models["iris"].versions["1"]


class TestOfManifest:
    def test_takes_what_stands_there(self) -> None:
        text = "scaling: {min: 2, max: 9, standby: 1, idle_after: 5m, worth: 20}\n    slo: {latency_ms: 250, percentile: 99}"

        assert scenario.of_manifest(config(text)) == Settings(
            minimum=2, maximum=9, slots=4, objective=Objective(0.25, 99), standby=1, idle_after_s=300, worth_s=20
        )

    @pytest.mark.parametrize(
        "more",
        [
            "",
            "scaling: {min: 3}",
            "scaling: {min: 0}",
            "scaling: {min: 1, max: 4}",
            "scaling: {min: 0, max: 9, standby: 2, idle_after: 90s, gone_after: 2h, worth: 3}",
            "slo: {latency_ms: 40, percentile: 99.9}\n    scaling: {max: 4}",
            'scaling: {min: 1, schedule: [{cron: "0 8 * * *", min: 6}]}',
        ],
    )
    def test_is_what_the_live_autoscaler_is_told(self, more: str) -> None:
        """The translation is written twice: what is simulated must be what is applied, but for schedules."""
        manifest = load(MODEL.format(more=more), file="m", base_dir=Path("/"))
        key = VersionKey("iris", "1")
        version = desired.build(manifest, Resolved(runtimes={key: "r"})).versions()[key]

        live = census.settings_of(version, None, version.replicas)

        assert scenario.of_manifest(config(more)) == replace(live, schedules=())


class TestChanged:
    def test_without_changes_is_as_it_is(self) -> None:
        settings = Settings(minimum=2, maximum=5)

        assert scenario.changed(settings, Changes()) == settings

    def test_changes_what_is_asked_and_nothing_else(self) -> None:
        settings = Settings(minimum=2, maximum=5, objective=Objective(1.0, 99))

        changed = scenario.changed(settings, Changes(latency_s=0.5, maximum=8, minimum=0))

        assert changed == Settings(minimum=0, maximum=8, objective=Objective(0.5, 99))

    def test_refuses_bounds_with_nothing_between(self) -> None:
        with pytest.raises(UserError, match="max 1 with min 3: no count is between them; raise max"):
            scenario.changed(Settings(minimum=3, maximum=5), Changes(maximum=1))


class TestSetup:
    def test_without_an_objective_is_held_to_the_derived_one(self) -> None:
        setup = scenario.setup(Settings(slots=2), Measured(Service.fixed(0.1), cold_start_s=3))

        assert setup.latency_s == pytest.approx(0.2)
        assert (setup.slots, setup.cold_start_s, setup.first) == (2, 3, 1)
