"""Events are one JSON line each."""

from __future__ import annotations

import json
from typing import ClassVar

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

    def test_for_people_it_is_a_line_of_words_but_the_last_word_of_a_server(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELFLEET_LOG_FORMAT", "human")

        log.event("predict failed", "error", reason="it raised x", rows=2, stack="Trace:\n  boom")
        log.model_failed("why", "MODEL_RAISED")

        said, *stack, last = capsys.readouterr().err.splitlines()
        assert said[13:] == "error   predict failed  reason='it raised x' rows=2"
        assert stack == ["Trace:", "  boom"]
        assert json.loads(last)["event"] == "model failed"

    def test_what_is_below_the_level_is_left_out(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MODELFLEET_LOG_LEVEL", "warning")

        log.event("model loaded")
        log.event("model hangs", "error")

        assert json.loads(capsys.readouterr().err)["event"] == "model hangs"


class TestRequests:
    FIELDS: ClassVar = {b"x-request-id": b"r-1", b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"}

    def test_an_event_inside_one_has_its_ids(self, capsys: pytest.CaptureFixture[str]) -> None:
        token = log.asking.set((self.FIELDS,))
        log.event("happened")
        log.asking.reset(token)
        log.event("outside")

        inside, outside = map(json.loads, capsys.readouterr().err.splitlines())
        assert (inside["request_id"], inside["trace_id"]) == ("r-1", "a" * 32)
        assert outside.keys() == {"ts", "level", "event"}

    def test_an_event_inside_a_batch_names_some_of_its_requests(self, capsys: pytest.CaptureFixture[str]) -> None:
        batch = tuple({b"x-request-id": b"r-%d" % number} for number in range(20))
        token = log.asking.set(batch)
        log.event("happened")
        log.asking.reset(token)

        event = json.loads(capsys.readouterr().err)
        assert event["batch_requests"] == 20
        assert event["request_ids"] == [f"r-{number}" for number in range(8)]
