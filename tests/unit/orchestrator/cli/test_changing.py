"""plan, apply, rollback, delete, validate, init: what is sent, what is shown, and with which code they end."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from orchestrator.api import schemas as s
from tests.fakes.admin_api import FakeAdminApi, Refused, World, change, fetched, plan, progress, revision, step
from tests.unit.orchestrator.cli.conftest import Run, Spawn, eventually
from tests.unit.orchestrator.cli.terminal import Terminal


class TestPlan:
    def test_shows_each_change_with_its_cause(self, api: FakeAdminApi, world: World, run: Run, manifest: Path) -> None:
        world.plans = [
            plan(
                change("+", "iris@2", "start 2 replicas", "new"),
                change("-", "old@1", "end 1 replica"),
                warnings=["careful"],
            )
        ]

        result = run("plan")

        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "Plan for models.yaml, from revision 1: 1 to add, 1 to remove",
            "  + iris@2  start 2 replicas  (new)",
            "  - old@1   end 1 replica",
            "  ! careful",
        ]

    def test_sends_the_text_and_where_it_lies(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        run("plan")

        sent = api.asked("POST", "/plan")[0].body
        assert sent == {"text": manifest.read_text(), "file": "models.yaml", "base_dir": str(manifest.parent)}

    def test_finds_the_manifest_in_configs(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        Path("configs").mkdir()
        manifest.rename("configs/models.yaml")

        run("plan")

        assert api.asked("POST", "/plan")[0].body["file"] == "configs/models.yaml"

    def test_without_any_manifest_says_how_to_make_one(self, api: FakeAdminApi, run: Run) -> None:
        result = run("plan")

        assert result.exit_code == 2
        assert "modelfleet init FOLDER" in result.stderr

    def test_of_a_file_that_is_not_there_is_an_error(self, api: FakeAdminApi, run: Run) -> None:
        result = run("plan", "nope.yaml")

        assert result.exit_code == 2
        assert result.stderr.startswith("Error: manifest 'nope.yaml': no such file")

    def test_prints_the_control_planes_diagnostics(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.refusals["POST /plan"] = _invalid()

        result = run("plan")

        assert result.exit_code == 2
        assert result.stderr == "models.yaml:3:5: models.iris: it is wrong\nError: 1 error in models.yaml\n"

    def test_json_is_the_schema(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        assert s.PlanResponse.model_validate_json(run("plan", "-o", "json").stdout).digest == "d1"


class TestApply:
    def test_sends_the_plan_that_was_shown_and_follows_to_the_end(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.steps = [
            step("preparing", step="fetching model"),
            step("converging", progress(ready=0, state="starting"), step="starting 1 replica"),
            step("succeeded", progress(), step="done"),
        ]

        result = run("apply", "--yes")

        assert result.exit_code == 0
        assert api.asked("POST", "/apply")[0].body["plan"] == "d1"
        assert result.stdout.splitlines()[2:-1] == [
            "preparing: fetching model",
            "converging: starting 1 replica",
            "  iris@1  0/1 starting",
            "succeeded: done",
            "  iris@1  1/1 ready",
        ]
        assert result.stdout.splitlines()[-1].startswith("Done: revision 2 is in force, 1 version ready after")

    def test_shows_the_bytes_of_sources_a_tenth_at_a_time(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        amounts = [0, 400_000_000, 420_000_000, 5_000_000_000]
        world.steps = [step("preparing", fetching=[fetched(done, 5_000_000_000)]) for done in amounts]
        world.steps += [step("preparing", fetching=[fetched(7_000, None, "2")]), step("succeeded", progress())]

        result = run("apply", "--yes")

        lines = [line for line in result.stdout.splitlines() if "s3://" in line]
        assert lines == [
            "  iris@1  0.0 of 5.0 GB: s3://models/iris",
            "  iris@1  5.0 of 5.0 GB: s3://models/iris",
            "  iris@2  7.0 kB: s3://models/iris",
        ]

    def test_waits_on_while_a_source_comes(self, api: FakeAdminApi, world: World, run: Run, manifest: Path) -> None:
        """Twenty answers take a second at least, which is more than the time that is given."""
        world.steps = [step("preparing", fetching=[fetched(done, 100)]) for done in range(20)]
        world.steps.append(step("succeeded", progress()))

        assert run("apply", "--yes", "--timeout", "0.5").exit_code == 0

    def test_without_changes_sends_nothing(self, api: FakeAdminApi, world: World, run: Run, manifest: Path) -> None:
        world.plans = [plan()]

        result = run("apply")

        assert result.exit_code == 0
        assert result.stdout.startswith("Nothing to change")
        assert api.asked("POST", "/apply") == []

    def test_dry_run_shows_the_plan_and_sends_nothing(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        result = run("apply", "--dry-run")

        assert result.exit_code == 0
        assert "+ iris@1" in result.stdout
        assert api.asked("POST", "/apply") == []

    def test_without_a_terminal_wants_yes(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        result = run("apply", stdin="y\n")

        assert result.exit_code == 2
        assert "add --yes" in result.stderr
        assert api.asked("POST", "/apply") == []

    def test_json_prints_the_operation_and_nothing_else(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        result = run("apply", "--yes", "-o", "json")

        assert s.OperationStatus.model_validate_json(result.stdout).state == "succeeded"
        assert result.stderr == ""

    def test_quiet_prints_nothing_when_it_works(self, api: FakeAdminApi, run: Run, manifest: Path) -> None:
        result = run("apply", "--yes", "-q")

        assert (result.exit_code, result.output) == (0, "")

    def test_that_does_not_converge_ends_with_one_and_each_reason(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.steps = [step("failed", progress(ready=0, state="failed", reason="exit code 65"), error="1 of 1 failed")]

        result = run("apply", "--yes")

        assert result.exit_code == 1
        assert "iris@1  failed  0/1 ready: exit code 65" in result.stderr
        assert "Error: the apply did not converge: 1 of 1 failed" in result.stderr
        assert "modelfleet logs iris@1" in result.stderr

    def test_that_does_not_converge_is_told_to_scripts_on_both_streams(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.steps = [step("failed", progress(ready=0, state="failed"), error="no")]

        result = run("apply", "--yes", "-o", "json")

        assert result.exit_code == 1
        assert s.OperationStatus.model_validate_json(result.stdout).state == "failed"
        assert s.ErrorBody.model_validate_json(result.stderr).code == "NOT_CONVERGED"

    def test_that_fails_while_preparing_says_that_nothing_changed(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.steps = [step("preparing"), step("failed", revision=None, error="the image could not be built")]

        result = run("apply", "--yes")

        assert result.exit_code == 1
        assert "failed before anything was changed: the image could not be built" in result.stderr

    def test_stops_following_at_the_timeout_and_says_that_it_goes_on(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.steps = [
            step(
                "converging",
                progress(ready=0, state="starting", phase="loading", phase_s=3.21),
                step="waiting for iris@1",
            )
        ]

        result = run("apply", "--yes", "--timeout", "0.3")

        assert result.exit_code == 1
        assert "iris@1  starting  0/1 ready: loading 3.2 s" in result.stderr
        assert "the apply is not done after 0.3 s: waiting for iris@1" in result.stderr
        assert "goes on without this command" in result.stderr

    def test_makes_the_plan_again_when_it_went_stale(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.plans = [plan(change("+", "a@1", "s")), plan(change("+", "b@1", "s"), digest="d2")]
        world.refusals["POST /apply"] = Refused(409, "the plan is stale", "CONFLICT")

        result = run("apply", "--yes")

        assert result.exit_code == 0
        assert [call.body["plan"] for call in api.asked("POST", "/apply")] == ["d1", "d2"]
        assert "cluster changed while the plan was shown" in result.stdout

    def test_reports_a_conflict_that_is_no_stale_plan(
        self, api: FakeAdminApi, world: World, run: Run, manifest: Path
    ) -> None:
        world.refusals["POST /apply"] = Refused(409, "operation op-7 is being prepared", "CONFLICT")

        result = run("apply", "--yes")

        assert result.exit_code == 2
        assert "operation op-7 is being prepared" in result.stderr

    def test_interrupted_says_that_it_goes_on(
        self, api: FakeAdminApi, world: World, spawn: Spawn, manifest: Path
    ) -> None:
        world.steps = [step("converging", progress(ready=0, state="starting"))]
        applying = spawn("apply", "--yes")
        eventually(lambda: api.asked("GET", "/operations/op-1"))

        applying.send_signal(signal.SIGINT)
        _, errors = applying.communicate(timeout=20)

        assert applying.returncode == 130
        assert "goes on without this command" in errors
        assert "Traceback" not in errors

    def test_ends_with_three_when_the_control_plane_ends_in_the_middle(
        self, state_dir: Path, world: World, spawn: Spawn, manifest: Path
    ) -> None:
        world.steps = [step("converging", progress(ready=0, state="starting"))]
        with FakeAdminApi(state_dir, world) as api:
            applying = spawn("apply", "--yes")
            eventually(lambda: api.asked("GET", "/operations/op-1"))

        _, errors = applying.communicate(timeout=30)

        assert applying.returncode == 3
        assert "Traceback" not in errors


class TestApplyOnATerminal:
    def test_asks_and_goes_ahead_on_yes(self, api: FakeAdminApi, world: World, manifest: Path) -> None:
        world.steps = [step("converging", progress(ready=0, state="starting")), step("succeeded", progress())]

        with Terminal(["apply"]) as terminal:
            terminal.wait_for("Apply this? [y/N]")
            assert api.asked("POST", "/apply") == []
            terminal.type("y\n")

            assert terminal.end() == 0

        assert "iris@1" in terminal.text
        assert "1/1 ready" in terminal.text
        assert "Done: revision 2" in terminal.text

    def test_shows_the_bytes_of_a_source_that_is_fetched(self, api: FakeAdminApi, world: World, manifest: Path) -> None:
        world.steps = [step("preparing", fetching=[fetched(1_000_000_000, 5_000_000_000)])]

        with Terminal(["apply", "--yes"]) as terminal:
            terminal.wait_for("1.0 of 5.0 GB")
            world.steps = [step("succeeded", progress())]

            assert terminal.end() == 0

    def test_asks_and_changes_nothing_on_anything_else(self, api: FakeAdminApi, manifest: Path) -> None:
        with Terminal(["apply"]) as terminal:
            terminal.wait_for("Apply this? [y/N]")
            terminal.type("\n")

            assert terminal.end() == 1

        assert "nothing was changed" in terminal.text
        assert api.asked("POST", "/apply") == []

    def test_interrupted_at_the_question_changes_nothing(self, api: FakeAdminApi, manifest: Path) -> None:
        with Terminal(["apply"]) as terminal:
            terminal.wait_for("Apply this? [y/N]")
            terminal.process.send_signal(signal.SIGINT)

            assert terminal.end() == 130

        assert "Traceback" not in terminal.text
        assert api.asked("POST", "/apply") == []


class TestValidate:
    def test_needs_no_control_plane(self, run: Run, manifest: Path) -> None:
        result = run("validate")

        assert (result.exit_code, result.stdout) == (0, "models.yaml is valid: 1 model, 1 version\n")

    def test_warns_of_a_price_that_adds_nothing(self, run: Run, manifest: Path) -> None:
        manifest.write_text(f"{manifest.read_text()}pricing: {{cpu_hour: 0.04, gpu_hour: 2.5}}\n")

        result = run("validate")

        assert result.exit_code == 0
        assert "! pricing.gpu_hour: no replica has a GPU in this release" in result.stdout
        assert json.loads(run("validate", "-o", "json").stdout)["warnings"][0].startswith("pricing.gpu_hour")

    def test_prints_every_error_with_its_place(self, run: Run, manifest: Path) -> None:
        manifest.write_text("cluster: demo\nengine: dokcer\nmodles: {}\nmodels: {}\n")

        result = run("validate")

        assert result.exit_code == 2
        lines = result.stderr.splitlines()
        assert [line.split(" ")[0] for line in lines[:2]] == ["models.yaml:2:9:", "models.yaml:3:1:"]
        assert lines[-1] == "Error: 2 errors in the manifest"

    def test_shows_the_line_with_a_caret_on_a_terminal(self, manifest: Path) -> None:
        manifest.write_text("cluster: demo\nengine: dokcer\nmodels: {}\n")

        with Terminal(["validate"], columns=200) as terminal:
            assert terminal.end() == 2

        assert "     2 | engine: dokcer\n       |         ^\n" in terminal.text

    def test_a_secret_of_a_source_is_not_shown(self, manifest: Path) -> None:
        manifest.write_text('models: {iris: {versions: {"1": {source: "https://ci:s3cret@h/iris/?sig=s3cret"}}}}\n')

        with Terminal(["validate"], columns=200) as terminal:
            assert terminal.end() == 2

        assert "https://***@h/iris/?sig=***" in terminal.text
        assert "s3cret" not in terminal.text

    def test_finds_a_source_that_is_not_there(self, run: Run, manifest: Path) -> None:
        manifest.write_text(manifest.read_text().replace("source: model", "source: nowhere"))

        result = run("validate", "-o", "json")

        assert result.exit_code == 2
        (diagnostic,) = s.ErrorBody.model_validate_json(result.stderr).diagnostics
        assert (diagnostic.line, "nowhere" in diagnostic.message) == (5, True)


class TestRollback:
    def test_returns_to_the_revision_before_and_shows_what_differs(
        self, api: FakeAdminApi, world: World, run: Run
    ) -> None:
        world.revisions = [revision(2, current=True, manifest="a: 2\n"), revision(1, manifest="a: 1\n")]

        result = run("rollback", "--yes")

        assert result.exit_code == 0
        assert api.asked("POST", "/rollback")[0].body == {"revision": 1}
        assert "  -a: 2\n  +a: 1\n" in result.stdout

    @pytest.mark.parametrize(
        ("number", "sentence"), [("2", "revision 2 is in force already"), ("9", "revision 9 is not kept")]
    )
    def test_refuses_a_revision_that_cannot_be_meant(
        self, api: FakeAdminApi, run: Run, number: str, sentence: str
    ) -> None:
        result = run("rollback", number, "--yes")

        assert result.exit_code == 2
        assert sentence in result.stderr

    def test_of_the_first_revision_says_that_there_is_none_before(
        self, api: FakeAdminApi, world: World, run: Run
    ) -> None:
        world.revisions = [revision(1, current=True)]

        assert "no revision before the first" in run("rollback", "--yes").stderr

    def test_without_a_terminal_wants_yes(self, api: FakeAdminApi, run: Run) -> None:
        assert run("rollback").exit_code == 2
        assert api.asked("POST", "/rollback") == []


class TestDelete:
    def test_says_that_the_model_is_still_in_the_manifest(self, api: FakeAdminApi, run: Run) -> None:
        result = run("delete", "iris", "--yes")

        assert result.exit_code == 0
        assert api.asked("DELETE", "/models/iris")
        assert "iris is still in models.yaml" in result.stdout

    def test_proposes_the_nearest_name_before_it_asks(self, api: FakeAdminApi, run: Run) -> None:
        result = run("delete", "irs")

        assert result.exit_code == 2
        assert "did you mean 'iris'?" in result.stderr


class TestInit:
    def test_writes_a_manifest_that_is_valid_and_says_what_next(self, run: Run) -> None:
        _python_model(Path("models/hello/1"))

        result = run("init", "models")

        assert result.exit_code == 0
        assert "modelfleet up models.yaml" in result.stdout
        assert run("validate").exit_code == 0

    def test_never_writes_over_a_file_without_force(self, run: Run, manifest: Path) -> None:
        _python_model(Path("models/hello/1"))
        before = manifest.read_text()

        refused = run("init", "models")

        assert refused.exit_code == 2
        assert "--force" in refused.stderr
        assert manifest.read_text() == before
        assert run("init", "models", "--force").exit_code == 0
        assert "hello" in manifest.read_text()

    def test_of_a_folder_without_models_writes_nothing(self, run: Run) -> None:
        Path("empty").mkdir()

        result = run("init", "empty")

        assert result.exit_code == 2
        assert "no model was recognised" in result.stderr
        assert not Path("models.yaml").exists()

    def test_of_no_folder_is_an_error(self, run: Run) -> None:
        assert run("init", "nowhere").exit_code == 2

    def test_where_it_may_not_write_is_an_error(self, run: Run) -> None:
        _python_model(Path("models/hello/1"))

        result = run("init", "models", "--file", "nowhere/models.yaml")

        assert result.exit_code == 1
        assert "cannot be written" in result.stderr


class TestDoctor:
    def test_fails_with_the_command_that_mends_it(self, api: FakeAdminApi, world: World, run: Run) -> None:
        world.checks = [s.Check(name="gateway", ok=False, detail="does not answer", remedy="modelfleet up")]

        result = run("doctor")

        assert result.exit_code == 1
        assert "FAILED  gateway" in result.stdout
        assert "-> modelfleet up" in result.stdout

    def test_passes_when_all_is_well(self, api: FakeAdminApi, run: Run) -> None:
        result = run("doctor", "-o", "json")

        checks = [s.Check.model_validate(each) for each in json.loads(result.stdout)]
        assert {check.name for check in checks} == {"python", "state dir", "control plane", "engine"}
        assert result.exit_code == 0

    def test_finds_a_state_directory_that_others_can_read(self, api: FakeAdminApi, run: Run, state_dir: Path) -> None:
        state_dir.chmod(0o755)

        result = run("doctor")

        assert result.exit_code == 1
        assert f"-> chmod 700 {state_dir}" in result.stdout

    def test_works_without_a_control_plane(self, run: Run) -> None:
        names = [each["name"] for each in json.loads(run("doctor", "-o", "json").stdout)]

        assert names[:4] == ["python", "state dir", "control plane", "disk"]
        assert "port of gateway" in names
        assert "engine" in names


def _python_model(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(
        "def load(path):\n    return None\n\n\ndef predict(model, inputs):\n    return inputs\n"
    )


def _invalid() -> Refused:
    wrong = s.Diagnostic(file="models.yaml", line=3, column=5, field="models.iris", message="it is wrong")
    return Refused(422, "the manifest is wrong", "INVALID", [wrong])
