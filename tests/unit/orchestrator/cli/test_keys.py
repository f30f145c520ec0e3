"""keys create, list, revoke: the text of a key on standard output alone, and all other words elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.api import schemas as s
from tests.fakes.admin_api import SECRET, FakeAdminApi, World, key
from tests.unit.orchestrator.cli.conftest import Run
from tests.unit.orchestrator.cli.terminal import Terminal


class TestCreate:
    def test_prints_the_key_alone_and_its_words_elsewhere(self, api: FakeAdminApi, run: Run) -> None:
        result = run("keys", "create", "ci")

        assert (result.exit_code, result.stdout) == (0, f"{SECRET}\n")
        assert result.stderr == "Key ci (id-ci) may ask all models. It is not shown again.\n"

    def test_quietly_prints_nothing_but_the_key(self, api: FakeAdminApi, run: Run) -> None:
        assert run("keys", "create", "ci", "-q").output == f"{SECRET}\n"

    def test_sends_what_was_asked(self, api: FakeAdminApi, run: Run) -> None:
        run(
            "keys", "create", "ci", "--model", "iris", "--model", "text", "--requests-per-s", "2.5", "--burst", "10",
            "--concurrency", "4", "--expires", "30d",
        )  # fmt: skip

        assert api.asked("POST", "/keys")[0].body == {
            "name": "ci", "models": ["iris", "text"], "requests_per_s": 2.5, "burst": 10, "concurrency": 4,
            "expires_in_s": 30 * 86400,
        }  # fmt: skip

    def test_without_options_asks_for_no_limits(self, api: FakeAdminApi, run: Run) -> None:
        run("keys", "create", "ci")

        assert api.asked("POST", "/keys")[0].body == {
            "name": "ci", "models": None, "requests_per_s": 0, "burst": 1, "concurrency": 0, "expires_in_s": None,
        }  # fmt: skip

    def test_takes_the_requests_of_a_second_for_the_burst(self, api: FakeAdminApi, run: Run) -> None:
        run("keys", "create", "ci", "--requests-per-s", "50")

        assert api.asked("POST", "/keys")[0].body["burst"] == 50

    def test_warns_of_a_model_that_is_not_there(self, api: FakeAdminApi, run: Run) -> None:
        result = run("keys", "create", "ci", "--model", "irs")

        assert (result.exit_code, result.stdout) == (0, f"{SECRET}\n")
        assert "Warning: there is no model 'irs' yet\n" in result.stderr

    def test_says_that_the_gateway_does_not_have_it_yet(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.keys_in_force = False

        assert "Not in force yet" in run("keys", "create", "ci").stderr

    def test_json_is_the_schema(self, api: FakeAdminApi, run: Run) -> None:
        result = run("keys", "create", "ci", "-o", "json")

        assert s.KeyCreated.model_validate_json(result.stdout).secret == SECRET
        assert result.stderr == ""

    @pytest.mark.parametrize(
        ("options", "word"),
        [
            (["--burst", "3"], "--requests-per-s"),
            (["--requests-per-s", "0"], "above 0"),
            (["--expires", "soon"], "10m"),
        ],
    )
    def test_refuses_what_cannot_be_meant(self, api: FakeAdminApi, run: Run, options: list[str], word: str) -> None:
        result = run("keys", "create", "ci", *options)

        assert result.exit_code == 2
        assert word in result.stderr
        assert api.asked("POST", "/keys") == []


class TestList:
    def test_shows_each_key_and_never_its_text(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.keys = [
            key("ci"), key("shop", models=["iris", "text"], requests_per_s=50, burst=100, concurrency=4, expired=True,
                           expires_at=1.0),
        ]  # fmt: skip

        result = run("keys", "list")

        header, first, second = (line.split() for line in result.stdout.splitlines())
        assert header == ["ID", "NAME", "MODELS", "REQUESTS/S", "BURST", "CONCURRENCY", "CREATED", "EXPIRES"]
        assert first[:6] == ["id-ci", "ci", "all", "any", "any", "any"]
        assert second[:7] == ["id-shop", "shop", "iris,", "text", "50", "100", "4"]
        assert (first[-1], second[-1]) == ("never", "expired")

    def test_without_any_says_how_to_make_one(self, api: FakeAdminApi, run: Run) -> None:
        assert "modelfleet keys create NAME" in run("keys", "list").stdout

    def test_json_is_the_schema(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.keys = [key("ci")]

        (found,) = json.loads(run("keys", "list", "-o", "json").stdout)
        assert s.Key.model_validate(found).name == "ci"


class TestRevoke:
    @pytest.mark.parametrize("word", ["ci", "id-ci"])
    def test_takes_the_id_or_the_name(self, api: FakeAdminApi, world: World, run: Run, word: str) -> None:
        world.keys = [key("ci"), key("other")]

        result = run("keys", "revoke", word, "--yes")

        assert (result.exit_code, result.stdout) == (0, "Key ci (id-ci) is revoked.\n")
        assert [each.name for each in world.keys] == ["other"]

    def test_without_a_terminal_wants_yes(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.keys = [key("ci")]

        result = run("keys", "revoke", "ci")

        assert result.exit_code == 2
        assert "add --yes" in result.stderr
        assert world.keys

    def test_asks_on_a_terminal(self, api: FakeAdminApi, world: World, state_dir: Path) -> None:
        world.keys = [key("ci")]

        with Terminal(["keys", "revoke", "ci", "--state-dir", str(state_dir)]) as terminal:
            terminal.wait_for("Revoke key ci (id-ci)? [y/N]")
            terminal.type("n\n")
            assert terminal.end() == 1

        assert world.keys

    def test_of_a_name_that_is_not_there_names_the_nearest(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.keys = [key("nightly")]

        result = run("keys", "revoke", "nigtly", "--yes")

        assert result.exit_code == 2
        assert "did you mean 'nightly'?" in result.stderr


class TestHelp:
    def test_keys_alone_shows_its_verbs(self, run: Run) -> None:
        result = run("keys", "--help")

        assert result.exit_code == 0
        assert all(word in result.stdout for word in ("create", "list", "revoke"))

    def test_each_verb_has_examples(self, run: Run) -> None:
        for name in ("create", "list", "revoke"):
            assert f"modelfleet keys {name}" in run("keys", name, "--help").stdout.split("Examples:")[1]
