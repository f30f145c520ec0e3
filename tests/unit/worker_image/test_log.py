"""Events are one JSON line each."""

from __future__ import annotations

import json

import pytest

from worker_image.server import log


class TestEvents:
    def test_an_event_is_one_json_line_on_standard_error(self, capsys: pytest.CaptureFixture[str]) -> None:
        log.event("model loaded", seconds=0.5)

        line = json.loads(capsys.readouterr().err)
        assert (line["event"], line["level"], line["seconds"]) == ("model loaded", "info", 0.5)
        assert line["ts"].endswith("Z")

    def test_a_failed_model_says_just_what_the_contract_says(self, capsys: pytest.CaptureFixture[str]) -> None:
        log.model_failed("why", "MODEL_RAISED")

        assert json.loads(capsys.readouterr().err) == {"event": "model failed", "reason": "why", "code": "MODEL_RAISED"}
