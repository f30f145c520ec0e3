"""scale, autoscale explain and history, and what status and describe say of counts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.api import schemas as s
from tests.fakes.admin_api import FakeAdminApi, Refused, World, iris, scaling, version
from tests.unit.orchestrator.cli.conftest import Run

REASON = "iris@1: 1 -> 3: 41.0 req/s × 0.24 s = 9.8 busy slots, 12 needed for p95 ≤ 1 s at 4 per replica"
PATH = "/models/iris/versions/1/scale"


def scaled(**facts: Any) -> s.ModelStatus:
    return iris(versions=[version("1", ready=3, desired=3, scaling=scaling(reason=REASON, **facts))])


class TestScale:
    def test_sets_a_count_until_it_is_taken_back(self, api: FakeAdminApi, run: Run) -> None:
        result = run("scale", "iris@1", "6")

        assert result.stdout == "iris@1: set by hand to 6 until it is taken back\n"
        assert api.asked("PUT", PATH)[0].body == {"replicas": 6, "for_s": None}

    def test_sets_a_count_for_a_time(self, api: FakeAdminApi, run: Run) -> None:
        result = run("scale", "iris@1", "0", "--for", "90m")

        assert result.stdout.startswith("iris@1: set by hand to 0 until 20")
        assert api.asked("PUT", PATH)[0].body == {"replicas": 0, "for_s": 5400}

    def test_takes_back(self, api: FakeAdminApi, run: Run) -> None:
        result = run("scale", "iris@1", "--auto")

        assert result.stdout == "iris@1: what was set by hand is taken back; 3 replicas, fixed\n"
        assert len(api.asked("DELETE", PATH)) == 1

    def test_needs_no_version_where_a_model_has_one(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [scaled()]

        assert run("scale", "iris", "2").exit_code == 0
        assert len(api.asked("PUT", PATH)) == 1

    def test_asks_for_the_version_where_there_are_several(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [
            iris(versions=[version(v, scaling=scaling(version=v, chosen_by="manifest")) for v in ("1", "2")])
        ]

        result = run("scale", "iris", "2")

        assert result.exit_code == 2
        assert "iris: it has 2 versions: 1, 2" in result.stderr
        assert "modelfleet scale iris@1" in result.stderr

    def test_passes_on_why_the_control_plane_refuses(self, api: FakeAdminApi, world: World, run: Run) -> None:
        sentence = "scale iris@1: 9 replicas; scaling.max is 5; raise it in the manifest and apply that, or ask for 5"
        world.refusals[f"PUT {PATH}"] = Refused(409, sentence, "CONFLICT")

        result = run("scale", "iris@1", "9")

        assert result.exit_code != 0
        assert sentence in " ".join(result.stderr.split())

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (["iris@1"], "N or --auto"),
            (["iris@1", "2", "--auto"], "N or --auto"),
            (["iris@1", "--auto", "--for", "1h"], "--for"),
            (["iris@1", "2", "--for", "soon"], "10m"),
            (["iris@1", "2", "--for", "1ms"], "less than a second"),
            (["iris@1", "-1"], "-1"),
            (["iris@1", "many"], "many"),
            (["@1", "2"], "MODEL"),
        ],
    )
    def test_refuses_what_cannot_be_meant(self, api: FakeAdminApi, run: Run, arguments: list[str], word: str) -> None:
        result = run("scale", *arguments)

        assert result.exit_code == 2
        assert word in result.stderr
        assert [call for call in api.calls if call.method != "GET"] == []

    def test_json_is_the_schema(self, api: FakeAdminApi, run: Run) -> None:
        result = run("scale", "iris@1", "6", "-o", "json")

        found = s.ScalingStatus.model_validate_json(result.stdout)
        assert found.override == s.OverrideStatus(replicas=6)


class TestExplain:
    def test_shows_the_decision_with_its_inputs(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [scaled(decided_at=1_700_000_000.0, inputs=[("arrived", "82"), ("busy slots", "9.8")])]

        lines = run("autoscale", "explain", "iris").stdout.splitlines()

        assert lines[0].startswith("iris@1  3 replicas, chosen by load, decided 2023-11-1")
        assert lines[1:] == [f"  {REASON}", "  arrived     82", "  busy slots  9.8"]

    def test_says_of_a_fixed_count_that_it_is(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [iris(versions=[version("1", scaling=scaling(chosen_by="manifest", replicas=1))])]

        assert run("autoscale", "explain", "iris@1").stdout == "iris@1  1 replica, fixed\n"

    def test_knows_the_nearest_name(self, api: FakeAdminApi, run: Run) -> None:
        result = run("autoscale", "explain", "irs")

        assert result.exit_code == 2
        assert "did you mean 'iris'?" in result.stderr

    def test_json_is_the_schema(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [scaled()]

        (found,) = json.loads(run("autoscale", "explain", "iris", "-o", "json").stdout)
        assert s.ScalingStatus.model_validate(found).reason == REASON


class TestHistory:
    def test_shows_what_changed_and_why(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.decisions = [
            s.ScaleDecision(at=1_700_000_000.0, model="iris", version="1", before=1, target=3, standby=0, reason=REASON)
        ]

        row = run("autoscale", "history", "iris@1", "--limit", "5").stdout.splitlines()[-1]

        assert "1 -> 3" in row
        assert row.endswith(REASON.removeprefix("iris@1: 1 -> 3: "))
        assert api.calls[-1].query == {"version": "1", "limit": "5"}

    def test_says_that_nothing_changed(self, api: FakeAdminApi, run: Run) -> None:
        assert "never changed" in run("autoscale", "history", "iris").stdout


class TestStatus:
    def test_says_why_there_are_more_than_the_least(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [scaled()]

        row = next(line for line in run("status").stdout.splitlines() if line.startswith("iris"))

        assert row.endswith(f"3 of 1 to 5, by load: {REASON}")

    def test_says_where_signals_come_from_and_what_is_wrong_with_the_others(
        self, api: FakeAdminApi, world: World, run: Run
    ) -> None:
        world.models = [scaled()]
        trouble = "Prometheus at http://p does not answer within 2 s"
        sources = [s.SourceStatus(name="direct", age_s=0.4), s.SourceStatus(name="prometheus", trouble=trouble)]
        world.signals = s.SignalsStatus(active="direct", sources=sources)

        assert f"signals  direct; prometheus: {trouble}" in run("status").stdout

    def test_describe_says_who_chose_the_count(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [scaled(standby=1)]

        shown = " ".join(run("describe", "iris").stdout.split())

        assert f"scaling 3 and 1 in standby of 1 to 5, by load: {REASON}" in shown
