"""The control plane's log, as a process writes it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

WRITE = """
import os, logging, structlog
from orchestrator.log import configure
configure(os.environ, is_terminal=False)
log = structlog.get_logger("modelfleet")
log.debug("quiet")
log.warning("replica failed", replica="r-1", reason="it 'ended'")
logging.getLogger("uvicorn.error").error("lost %s", "it")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("fault")
"""


def written(**environ: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", WRITE], env=environ, capture_output=True, text=True, check=True)
    return done.stderr.splitlines()


class TestLog:
    def test_is_an_event_a_line_with_the_same_keys_first(self) -> None:
        events = [json.loads(line) for line in written()]

        assert [list(event)[:3] for event in events] == [["ts", "level", "event"]] * 3
        assert [(event["level"], event["event"]) for event in events] == [
            ("warning", "replica failed"), ("error", "lost it"), ("error", "fault"),
        ]  # fmt: skip
        assert events[1]["logger"] == "uvicorn.error"
        assert "ZeroDivisionError" in events[2]["exception"]
        assert all(event["ts"].endswith("Z") for event in events)

    def test_is_for_people_when_it_is_asked_to(self) -> None:
        first, *_ = written(MODELFLEET_LOG_FORMAT="human")

        assert "replica failed" in first
        assert not first.startswith("{")

    @pytest.mark.parametrize(("level", "count"), [("debug", 4), ("error", 2)])
    def test_leaves_out_what_is_below_its_level(self, level: str, count: int) -> None:
        assert len([line for line in written(MODELFLEET_LOG_LEVEL=level) if line.startswith("{")]) == count
