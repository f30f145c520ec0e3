"""rollout, and rollback of one model, against a fake control plane. What they do, tests/integration/test_rollouts.py shows."""

from __future__ import annotations

import json

import pytest

from tests.fakes.admin_api import FakeAdminApi, Refused, World
from tests.unit.orchestrator.cli.conftest import Run


class TestStatus:
    def test_shows_shares_asked_for_and_in_force_and_old_replicas(self, api: FakeAdminApi, run: Run) -> None:
        output = run("rollout", "status", "iris").stdout

        assert output.startswith("iris: under way\n")
        assert "0% (10% asked for)" in output
        assert "1 of 2 replicas ready" in output

    def test_names_the_nearest_of_models_that_there_are(self, api: FakeAdminApi, run: Run) -> None:
        result = run("rollout", "status", "irs")

        assert result.exit_code == 2
        assert "iris" in result.stderr


class TestPromote:
    def test_says_what_moves_and_follows_the_operation(self, api: FakeAdminApi, run: Run) -> None:
        result = run("rollout", "promote", "iris@2", "--yes")

        assert result.exit_code == 0
        assert "iris: 1 90 %, 2 10 % -> 2 100 %" in result.stdout
        assert "the next apply of it would bring that again" in result.stdout
        assert [call.body for call in api.asked("POST", "/models/iris/rollout/promote")] == [{"version": "2"}]

    def test_does_nothing_unless_somebody_agreed(self, api: FakeAdminApi, run: Run) -> None:
        assert run("rollout", "promote", "iris@2").exit_code == 2
        assert api.asked("POST", "/models/iris/rollout/promote") == []

    def test_wants_a_version(self, api: FakeAdminApi, run: Run) -> None:
        result = run("rollout", "promote", "iris", "--yes")

        assert result.exit_code == 2
        assert "modelfleet rollout promote iris@VERSION" in result.stderr


class TestPause:
    def test_says_since_when_why_and_what_waits(self, api: FakeAdminApi, run: Run) -> None:
        output = run("rollout", "pause", "iris", "--reason", "odd answers").stdout

        assert "paused since" in output
        assert ": odd answers; what was applied since waits; `modelfleet rollout resume iris` ends it" in output

    def test_a_refusal_is_told_as_it_is(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.refusals["POST /models/iris/rollout/resume"] = Refused(
            409, "model 'iris': its rollout is not paused", "CONFLICT"
        )

        result = run("rollout", "resume", "iris")

        assert result.exit_code == 2
        assert result.stderr.startswith("Error: model 'iris': its rollout is not paused")

    def test_for_scripts_it_is_the_schema(self, api: FakeAdminApi, run: Run) -> None:
        assert json.loads(run("rollout", "resume", "iris", "-o", "json").stdout)["state"] == "moving"


class TestRollbackOfOneModel:
    @pytest.mark.parametrize(("arguments", "revision"), [((), None), (("3",), 3)])
    def test_asks_for_this_model_alone(
        self, api: FakeAdminApi, run: Run, arguments: tuple[str, ...], revision: int | None
    ) -> None:
        result = run("rollback", *arguments, "--model", "iris", "--yes")

        assert result.exit_code == 0
        assert [call.body for call in api.asked("POST", "/models/iris/rollout/rollback")] == [{"revision": revision}]
        assert api.asked("POST", "/rollback") == []


class TestHelp:
    def test_lists_what_it_can(self, run: Run) -> None:
        output = run("rollout", "--help").stdout

        assert all(word in output for word in ("status", "promote", "pause", "resume"))
