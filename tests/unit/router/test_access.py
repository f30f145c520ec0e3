"""The access log's lines, and which requests get one."""

from __future__ import annotations

import json
from pathlib import Path

from router.access import FLUSH_LINES, AccessLog


class TestAccessLog:
    async def test_writes_one_json_line_a_request(self, tmp_path: Path) -> None:
        log = AccessLog(str(tmp_path / "log"), 1.0, lambda: 0.5)

        log.write({"status": 200, "path": "/v2"})
        log.close()

        (line,) = (tmp_path / "log").read_text().splitlines()
        assert json.loads(line).items() >= {"status": 200, "path": "/v2"}.items()

    async def test_writes_a_burst_before_it_is_closed(self, tmp_path: Path) -> None:
        log = AccessLog(str(tmp_path / "log"), 1.0, lambda: 0.5)

        for _ in range(FLUSH_LINES):
            log.write({})

        assert len((tmp_path / "log").read_text().splitlines()) == FLUSH_LINES
        log.close()

    def test_wants_a_share_of_the_requests_and_every_failure(self, tmp_path: Path) -> None:
        log = AccessLog(str(tmp_path / "log"), 0.3, iter([0.2, 0.4]).__next__)

        assert (log.wants(200), log.wants(200), log.wants(502)) == (True, False, True)
        log.close()
