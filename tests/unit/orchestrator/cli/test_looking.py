"""status, describe, events, logs, history, version, schema: what they print, to people, pipes and scripts."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from orchestrator.api import schemas as s
from tests.fakes.admin_api import FakeAdminApi, World, event, iris, revision, version, write_control
from tests.unit.orchestrator.cli.conftest import Run, Spawn, eventually
from tests.unit.orchestrator.cli.terminal import Terminal


class TestStatus:
    def test_gives_each_version_a_row_that_stands_for_itself(self, api: FakeAdminApi, run: Run) -> None:
        result = run("status")

        assert result.exit_code == 0
        rows = [line.split() for line in result.stdout.splitlines() if line.startswith("iris")]
        assert rows == [
            ["iris", "1", "ready", "1/1", "90%", "stable", "sklearn", "models/iris/1", "-"],
            ["iris", "2", "ready", "1/1", "10%", "latest", "onnx", "models/iris/2", "-"],
        ]

    def test_tells_what_stands_by_and_what_sleeps(self, api: FakeAdminApi, world: World, run: Run) -> None:
        reason = "a request wakes it; 1 replica in standby"
        asleep = version("2", state="asleep", ready=0, desired=0, standby=1, reason=reason)
        world.models = [iris(state="asleep", versions=[version("1", standby=2), asleep])]

        rows = [line.split() for line in run("status").stdout.splitlines() if line.startswith("iris")]

        assert [row[2:4] for row in rows] == [["ready", "1/1+2"], ["asleep", "0/0+1"]]
        assert " ".join(rows[1]).endswith(reason)

    def test_piped_has_no_escape_sequences_and_no_boxes(self, api: FakeAdminApi, run: Run) -> None:
        output = run("status").stdout

        assert output.isascii()
        assert "\x1b" not in output

    def test_keeps_a_long_reason_in_one_line_of_a_pipe(self, api: FakeAdminApi, world: World, run: Run) -> None:
        reason = "the model raised in load: " + "x" * 300
        world.models = [iris(state="failed", versions=[version("1", state="failed", ready=0, reason=reason)])]

        assert run("status").stdout.splitlines()[-1].endswith(reason)

    def test_shows_routed_traffic_that_lags_behind_what_was_asked(
        self, api: FakeAdminApi, world: World, run: Run
    ) -> None:
        world.models = [iris(routed={"1": 100})]

        assert "100% -> 90%" in run("status").stdout

    def test_json_is_the_schema_and_nothing_else(self, api: FakeAdminApi, run: Run) -> None:
        result = run("status", "-o", "json")

        assert s.ClusterStatus.model_validate_json(result.stdout).cluster == "demo"
        assert result.stderr == ""

    def test_global_options_may_stand_before_the_verb(self, api: FakeAdminApi, run: Run) -> None:
        assert json.loads(run("-o", "json", "status").stdout)["cluster"] == "demo"

    def test_shows_one_model_alone(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = [iris(), iris(name="digits")]

        result = run("status", "digits", "-o", "json")

        assert [each["name"] for each in json.loads(result.stdout)["models"]] == ["digits"]

    def test_proposes_the_nearest_name(self, api: FakeAdminApi, run: Run) -> None:
        result = run("status", "irs")

        assert result.exit_code == 2
        assert result.stderr == "Error: no model 'irs'\nHint: did you mean 'iris'?\n"

    def test_says_what_to_do_when_there_is_no_model(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.models = []

        assert "modelfleet init" in run("status").stdout

    def test_tells_why_the_gateway_cannot_be_asked(self, api: FakeAdminApi, world: World, run: Run) -> None:
        gateway = s.GatewayStatus(url="http://g", metrics_url="http://m", ready=False, error="port 8080 is taken")
        status = world.status().model_copy(update={"gateway": gateway, "engine_error": "no engine answers"})
        world.status = lambda: status  # type: ignore[method-assign]

        output = run("status").stdout

        assert "not answering: port 8080 is taken" in output
        assert "no engine answers" in output

    @pytest.mark.parametrize(
        ("prometheus", "line"),
        [
            (s.CompanionStatus(mode="managed", url="http://127.0.0.1:9090", pid=7), "metrics  http://127.0.0.1:9090"),
            (
                s.CompanionStatus(mode="managed", url="http://127.0.0.1:9090"),
                "metrics  http://127.0.0.1:9090  starting",
            ),
            (
                s.CompanionStatus(mode="managed", url="http://127.0.0.1:9090", error="no program"),
                "metrics  no program",
            ),
            (
                s.CompanionStatus(mode="managed", url="http://127.0.0.1:9090", note="pulling prom/prometheus:v3.5.0"),
                "metrics  http://127.0.0.1:9090  starting: pulling prom/prometheus:v3.5.0",
            ),
            (
                s.CompanionStatus(mode="managed", url="http://127.0.0.1:9090", container="mf-shop-prometheus"),
                "metrics  http://127.0.0.1:9090",
            ),
            (s.CompanionStatus(mode="url", url="http://elsewhere:9090"), "metrics  http://elsewhere:9090"),
        ],
    )
    def test_shows_where_prometheus_answers_or_why_not(
        self, api: FakeAdminApi, world: World, run: Run, prometheus: s.CompanionStatus, line: str
    ) -> None:
        status = world.status().model_copy(update={"prometheus": prometheus})
        world.status = lambda: status  # type: ignore[method-assign]

        assert line in run("status").stdout.splitlines()

    def test_shows_where_grafana_answers(self, api: FakeAdminApi, world: World, run: Run) -> None:
        grafana = s.CompanionStatus(mode="managed", url="http://127.0.0.1:3000", pid=8)
        status = world.status().model_copy(update={"grafana": grafana})
        world.status = lambda: status  # type: ignore[method-assign]

        assert "grafana  http://127.0.0.1:3000" in run("status").stdout.splitlines()

    def test_says_nothing_of_what_is_off(self, api: FakeAdminApi, run: Run) -> None:
        said = run("status").stdout

        assert "metrics" not in said
        assert "grafana" not in said


class TestStatusOnATerminal:
    def test_fits_eighty_columns_with_the_reason_below_the_table(self, api: FakeAdminApi, world: World) -> None:
        reason = "pickled by scikit-learn 1.2.2, this server has 1.6.1; train it again"
        world.models = [iris(versions=[version("1"), version("2", state="failed", ready=0, reason=reason)])]

        with Terminal(["status"], columns=80) as terminal:
            assert terminal.end() == 0

        lines = terminal.text.splitlines()
        assert max(map(len, lines)) <= 80
        assert any(line.startswith("iris@2 failed: pickled by") for line in lines)
        assert "models/iris/1" not in terminal.text

    def test_shows_the_source_where_there_is_room(self, api: FakeAdminApi) -> None:
        with Terminal(["status"], columns=140) as terminal:
            assert terminal.end() == 0

        assert "models/iris/1" in terminal.text
        assert "\x1b[" in terminal.raw

    def test_has_no_colour_when_asked(self, api: FakeAdminApi) -> None:
        with (
            Terminal(["status", "--no-color"]) as by_option,
            Terminal(["status"], environment={"NO_COLOR": "1"}) as by_variable,
        ):
            assert by_option.end() == by_variable.end() == 0

        assert "\x1b[" not in by_option.raw + by_variable.raw


class TestWatch:
    def test_prints_again_only_when_something_changed(self, api: FakeAdminApi, world: World, spawn: Spawn) -> None:
        watching = spawn("status", "--watch", "--interval", "0.1", "-o", "json")
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        asked = len(api.calls)
        eventually(lambda: len(api.calls) > asked + 2)

        world.models = [iris(state="updating")]
        second = json.loads(watching.stdout.readline())

        assert [first["models"][0]["state"], second["models"][0]["state"]] == ["ready", "updating"]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        assert watching.stderr is not None
        assert watching.stderr.read() == ""

    def test_redraws_on_a_terminal_until_interrupted(self, api: FakeAdminApi, world: World) -> None:
        with Terminal(["status", "--watch", "--interval", "0.1"]) as terminal:
            terminal.wait_for("iris")
            world.models = [iris(name="digits")]
            terminal.wait_for("digits")
            terminal.process.send_signal(signal.SIGINT)

            assert terminal.end() == 130

        assert "Traceback" not in terminal.text

    def test_ends_with_three_when_the_control_plane_ends(self, state_dir: Path, spawn: Spawn) -> None:
        with FakeAdminApi(state_dir):
            watching = spawn("status", "--watch", "--interval", "0.1")
            assert watching.stdout is not None
            watching.stdout.readline()

        assert watching.wait(20) == 3


class TestNoControlPlane:
    def test_says_so_with_the_command_that_starts_one(self, run: Run, state_dir: Path) -> None:
        result = run("status")

        assert result.exit_code == 3
        assert result.stderr == (
            f"Error: no control plane is running on {state_dir}\nHint: start one with `modelfleet up`\n"
        )

    def test_says_that_it_died_when_its_process_is_gone(self, run: Run, state_dir: Path, spawn: Spawn) -> None:
        gone = spawn("version")
        gone.wait(30)
        write_control(state_dir, pid=gone.pid, url="http://127.0.0.1:9")

        result = run("status")

        assert result.exit_code == 3
        assert f"(process {gone.pid}) has died" in result.stderr

    def test_says_that_it_cannot_be_reached_when_its_port_is_dead(self, run: Run, state_dir: Path) -> None:
        write_control(state_dir, pid=os.getpid(), url="http://127.0.0.1:9")

        result = run("status", "-o", "json")

        assert result.exit_code == 3
        assert s.ErrorBody.model_validate_json(result.stderr).code == "NOT_RUNNING"
        assert result.stdout == ""

    def test_survives_a_control_file_that_is_garbage(self, run: Run, state_dir: Path) -> None:
        (state_dir / "control.json").write_text("{")

        assert run("status").exit_code == 3

    def test_says_that_the_token_is_wrong(self, api: FakeAdminApi, run: Run, state_dir: Path) -> None:
        (state_dir / "token").write_text("another")

        result = run("status")

        assert result.exit_code == 2
        assert "check --state-dir" in result.stderr


class TestDescribe:
    def test_shows_versions_replicas_manifest_and_events(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.events = [event(1, "replica ready in 1.2 s", model="iris", version="1")]

        output = run("describe", "iris").stdout

        for words in (
            "iris@1  ready  1 of 1 replica ready, 90%",
            "iris-1-a1",
            "127.0.0.1:40001",
            "cluster: demo",
            "ready in 1.2 s",
        ):
            assert words in output

    def test_shows_what_a_replica_does_and_how_one_became_ready(
        self, api: FakeAdminApi, world: World, run: Run
    ) -> None:
        phases = {"importing": 0.42, "loading": 0.2, "warming": 0.11}
        facts = {"spec": "abcdef0123456789", "age_s": 5}
        there = s.ReplicaStatus(id="a1", state="ready", phases=phases, ready_after_s=1.13, **facts)
        coming = s.ReplicaStatus(id="a2", state="loading", phase="loading", phase_s=3.21, **facts)
        world.models = [iris(versions=[version("1", replicas=[there, coming])])]

        output = " ".join(run("describe", "iris").stdout.split())

        assert "importing 0.4 s, loading 0.2 s, warming 0.1 s; ready after 1.1 s" in output
        assert "loading 3.2 s" in output

    def test_shows_what_the_gateway_does_with_requests(self, api: FakeAdminApi, run: Run) -> None:
        lines = run("describe", "iris").stdout.splitlines()

        assert "  sticky      header:x-user" in lines
        assert "  routing     retry_max 2, balance least" in lines

    def test_json_is_the_schema(self, api: FakeAdminApi, run: Run) -> None:
        assert s.ModelDescription.model_validate_json(run("describe", "iris", "-o", "json").stdout).model.name == "iris"

    def test_proposes_the_nearest_name(self, api: FakeAdminApi, run: Run) -> None:
        result = run("describe", "Iris2")

        assert result.exit_code == 2
        assert "did you mean 'iris'?" in result.stderr


class TestEvents:
    def test_shows_only_the_younger_ones(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.events = [
            event(1, "long ago", age_s=3600),
            event(2, "just now", level="error", model="iris", version="2"),
        ]

        output = run("events", "--since", "10m").stdout

        assert "long ago" not in output
        assert output.endswith("error: iris@2  just now\n")

    def test_refuses_a_duration_without_unit(self, api: FakeAdminApi, run: Run) -> None:
        result = run("events", "--since", "10")

        assert result.exit_code == 2
        assert "the units are ms, s, m, h and d" in result.stderr

    def test_json_is_a_list_of_the_schema(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.events = [event(1, "one"), event(2, "two")]

        found = json.loads(run("events", "-o", "json", "--limit", "1").stdout)

        assert [s.Event.model_validate(each).message for each in found] == ["two"]

    def test_follow_prints_new_ones_once_and_ends_on_interrupt(
        self, api: FakeAdminApi, world: World, spawn: Spawn
    ) -> None:
        world.events = [event(1, "first")]
        following = spawn("events", "--follow", "-o", "json")
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())

        world.events.append(event(2, "second"))
        second = json.loads(following.stdout.readline())

        assert [first["message"], second["message"]] == ["first", "second"]
        following.send_signal(signal.SIGINT)
        assert following.wait(10) == 130

    def test_of_a_model_that_is_not_there_is_an_error(self, api: FakeAdminApi, run: Run) -> None:
        assert run("events", "nope").exit_code == 2


class TestLogs:
    def test_shows_lines_of_one_version_with_their_replica(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.logs = [_line("1", "from one"), _line("2", "from two")]

        output = run("logs", "iris@2", "--tail", "7").stdout

        assert "iris-2-a1 | from two" in output
        assert "from one" not in output
        assert api.asked("GET", "/models/iris/logs")[0].query == {"version": "2", "tail": "7", "follow": "false"}

    def test_json_is_a_line_each(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.logs = [_line("1", "a"), _line("2", "b")]

        lines = run("logs", "iris", "-o", "json").stdout.splitlines()

        assert [s.LogEntry.model_validate_json(each).text for each in lines] == ["a", "b"]

    def test_escape_sequences_of_a_model_do_not_reach_the_terminal(self, api: FakeAdminApi, world: World) -> None:
        world.logs = [_line("1", "\x1b]0;owned\x07 hello")]

        with Terminal(["logs", "iris"]) as terminal:
            assert terminal.end() == 0

        assert "\x1b]0" not in terminal.raw
        assert "hello" in terminal.text

    def test_shows_one_replica_alone(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.logs = [_line("1", "from one"), _line("2", "from two")]

        assert run("logs", "iris", "--replica", "iris-1").stdout.count("\n") == 1

    def test_of_an_unknown_version_names_those_there_are(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.refusals["GET /models/iris/logs"] = _not_found()

        result = run("logs", "iris@7")

        assert result.exit_code == 2
        assert result.stderr == "Error: no version of iris '7'\nHint: there are: 1, 2\n"


class TestHistory:
    def test_marks_the_revision_in_force(self, api: FakeAdminApi, run: Run) -> None:
        rows = run("history").stdout.splitlines()

        assert rows[1].split()[:2] == ["2", "*"]
        assert rows[2].split()[0] == "1"

    def test_of_one_revision_shows_its_manifest(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.revisions = [revision(2, current=True), revision(1, manifest="cluster: earlier\n")]

        assert run("history", "1").stdout.endswith("cluster: earlier\n")
        assert s.Revision.model_validate_json(run("history", "1", "-o", "json").stdout).manifest == "cluster: earlier\n"


class TestTheCommand:
    def test_every_verb_has_help_with_examples(self, run: Run) -> None:
        from orchestrator.cli.main import VERBS

        for verb in VERBS:
            result = run(verb, "--help")
            assert result.exit_code == 0
            assert f"Examples:\n    modelfleet {verb}" in result.stdout, verb

    def test_without_a_verb_lists_them(self, run: Run) -> None:
        result = run()

        assert result.exit_code == 0
        assert all(f"\n  {verb} " in result.stdout for verb in ("up", "apply", "status", "predict"))

    def test_proposes_the_nearest_verb(self, run: Run) -> None:
        result = run("statsu")

        assert result.exit_code == 2
        assert "Did you mean 'status'?" in result.stderr

    def test_usage_errors_are_json_where_json_was_asked_for(self, run: Run) -> None:
        result = run("status", "--nope", "-o", "json")

        assert result.exit_code == 2
        assert s.ErrorBody.model_validate_json(result.stderr).code == "INVALID"

    def test_version_works_without_a_control_plane(self, run: Run) -> None:
        assert run("version").stdout.startswith("modelfleet 0.1.0")
        assert json.loads(run("version", "-o", "json").stdout)["control_plane"] is None

    def test_schema_is_a_json_schema(self, run: Run) -> None:
        assert "$schema" in json.loads(run("schema").stdout)

    def test_a_reader_that_leaves_ends_it_quietly(self, api: FakeAdminApi, world: World, spawn: Spawn) -> None:
        world.events = [event(number, "x" * 1000) for number in range(1, 1000)]
        read, write = os.pipe()

        listing = spawn("events", "--limit", "1000", stdout=write)
        os.close(write)
        os.close(read)
        listing.wait(30)

        assert listing.stderr is not None
        assert listing.stderr.read() == ""

    def test_status_loads_neither_the_servers_libraries_nor_http_clients(self, api: FakeAdminApi, spawn: Spawn) -> None:
        """Start-up time is the sum of imports: a heavy one would double it unseen."""
        code = (
            "import sys; sys.argv = ['modelfleet', 'status']\nfrom orchestrator.cli.main import app\n"
            "app(standalone_mode=False)\n"
            "print([m for m in ('fastapi', 'httpx', 'docker', 'sqlalchemy', 'rich', 'yaml', 'uvicorn') if m in sys.modules])"
        )
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=_repository()
        )

        assert done.stdout.splitlines()[-1] == "[]"


def _repository() -> Path:
    return Path(__file__).parents[4]


def _line(version: str, text: str) -> s.LogEntry:
    return s.LogEntry(at=time.time(), replica=f"iris-{version}-a1", version=version, stream="stdout", text=text)


def _not_found() -> Exception:
    from tests.fakes.admin_api import Refused

    return Refused(404, "version '7': not in force", "NOT_FOUND")
