"""The gateway's log as its reader finds it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.log import EventLog


class TestEventLog:
    def test_is_an_event_a_line_with_the_same_keys_first(self, capsys: pytest.CaptureFixture[str]) -> None:
        EventLog("").warning("traces not exported", reason="it 'ended'")

        event = json.loads(capsys.readouterr().err)
        assert list(event) == ["ts", "level", "event", "reason"]
        assert event["ts"].endswith("Z")

    def test_is_for_people_when_it_is_asked_to(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELFLEET_LOG_FORMAT", "human")

        EventLog("").error("fault", reason="a b", request_id="r-1", trace="Trace:\n  boom\n")

        first, *trace = capsys.readouterr().err.splitlines()
        assert first[13:] == "error   fault  reason='a b' request_id=r-1"
        assert trace == ["Trace:", "  boom"]

    def test_in_a_file_is_json_whatever_is_asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The control plane reads there why a gateway did not take over new settings."""
        monkeypatch.setenv("MODELFLEET_LOG_FORMAT", "human")
        log = EventLog(str(tmp_path / "log"))

        log.error("gateway not restarted; it goes on as it is", reason="x")
        log.close()

        assert json.loads((tmp_path / "log").read_text())["reason"] == "x"

    def test_leaves_out_what_is_below_its_level(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELFLEET_LOG_LEVEL", "error")
        log = EventLog("")

        log.info("table applied")
        log.error("fault")

        assert json.loads(capsys.readouterr().err)["event"] == "fault"
