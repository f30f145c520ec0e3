"""`modelfleet logs`: which lines are shown, how they read, and what is said of a value that makes no sense."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from orchestrator.api import schemas as s
from orchestrator.core.log_lines import read
from tests.fakes.admin_api import FakeAdminApi, World
from tests.unit.orchestrator.cli.conftest import Run


def line(
    text: str | dict[str, Any], replica: str = "iris-1-a1", age_s: float = 0.0, source: str = "replica"
) -> s.LogEntry:
    """As the control plane tells it."""
    raw = text if isinstance(text, str) else json.dumps(text)
    said = read(raw)
    return s.LogEntry(
        at=time.time() - age_s, replica=replica, version="1" if source == "replica" else "", stream="stderr", text=raw,
        source=source, level=said.level, event=said.event, fields=said.fields,  # type: ignore[arg-type]
    )  # fmt: skip


def event(name: str, level: str = "info", **fields: Any) -> dict[str, Any]:
    return {"ts": "2026-01-01T00:00:00Z", "level": level, "event": name, **fields}


FAILED = event("predict failed", "error", request_id="r-1", reason="it raised x", stack="Trace:\n  boom")


@pytest.fixture
def mixed(world: World) -> World:
    world.logs = [
        line("epoch 7", age_s=3600),
        line(event("model loaded", seconds=0.41), age_s=60),
        line(FAILED, "iris-1-b2"),
        line(event("replica failed", "warning", model="iris", replica="iris-1-b2"), "gateway", source="gateway"),
        line(event("replica failed", "warning", model="text"), "gateway", source="gateway"),
        line(event("plan executed", revision=3), "control-plane", source="control_plane"),
    ]
    return world


class TestLines:
    def test_of_events_are_readable_and_of_prints_as_they_are(self, api: FakeAdminApi, mixed: World, run: Run) -> None:
        shown = [each.partition(" | ")[2] for each in run("logs", "iris").stdout.splitlines()]

        assert shown == [
            "epoch 7",
            "info    model loaded  seconds=0.41",
            "error   predict failed  request_id=r-1 reason='it raised x'",
            "        Trace:",
            "          boom",
        ]

    def test_have_the_name_of_whoever_wrote_them(self, api: FakeAdminApi, mixed: World, run: Run) -> None:
        output = run("logs", "iris", "--gateway", "--control-plane").stdout

        names = [
            each.split(" | ")[0].split()[-1]
            for each in output.splitlines()
            if "Trace" not in each and "boom" not in each
        ]
        assert names == ["iris-1-a1", "iris-1-a1", "iris-1-b2", "gateway", "control-plane"]
        assert "model=text" not in output

    def test_of_gateway_and_control_plane_alone_need_no_model(self, api: FakeAdminApi, mixed: World, run: Run) -> None:
        output = run("logs", "--control-plane").stdout

        assert output.count("\n") == 1
        assert "info    plan executed  revision=3" in output

    def test_as_json_are_an_object_each(self, api: FakeAdminApi, mixed: World, run: Run) -> None:
        lines = [json.loads(each) for each in run("logs", "iris", "--gateway", "-o", "json").stdout.splitlines()]

        assert [each["source"] for each in lines] == ["replica"] * 3 + ["gateway"]
        assert lines[2]["fields"]["request_id"] == "r-1"


class TestChoice:
    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--level", "error"], ["predict failed"]),
            (["--level", "info"], ["epoch 7", "model loaded", "predict failed"]),
            (["--since", "10m"], ["model loaded", "predict failed"]),
            (["--grep", "mod.l lo"], ["model loaded"]),
            (["--request-id", "r-1"], ["predict failed"]),
            (["--level", "warning", "--gateway"], ["predict failed", "replica failed"]),
        ],
    )
    def test_takes_those_lines_and_no_other(
        self, api: FakeAdminApi, mixed: World, run: Run, options: list[str], expected: list[str]
    ) -> None:
        lines = [json.loads(each) for each in run("logs", "iris", "-o", "json", *options).stdout.splitlines()]

        assert [each["event"] or each["text"] for each in lines] == expected
        assert api.asked("GET", "/models/iris/logs")[0].query["tail"] == "10000"

    def test_that_fits_nothing_says_so(self, api: FakeAdminApi, mixed: World, run: Run) -> None:
        result = run("logs", "iris", "--request-id", "nobody")

        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No lines that fit.\n")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ([], "of nobody; name a model, or ask with --gateway or --control-plane"),
            (["iris", "--level", "loud"], "--level 'loud': not a level; they are debug, info, warning, error"),
            (["iris", "--grep", "("], "--grep '(': not a regular expression: missing ), unterminated subpattern"),
            (["iris", "--since", "soon"], "duration 'soon': not a number with a unit"),
        ],
    )
    def test_of_nonsense_is_a_sentence(self, api: FakeAdminApi, run: Run, options: list[str], said: str) -> None:
        result = run("logs", *options)

        assert result.exit_code == 2
        assert said in result.stderr
