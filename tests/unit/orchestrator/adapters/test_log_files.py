"""The ends of log files, on a real disk, while they are written, replaced and emptied."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.engine import LogLine
from orchestrator.adapters.log_files import follow, last_lines


def event(second: int, text: str) -> str:
    return f'{{"ts": "2026-01-01T00:00:{second:02d}Z", "level": "info", "event": "{text}"}}\n'


BASE = 1_767_225_600.0


@pytest.fixture
def stopped() -> Iterator[threading.Event]:
    found = threading.Event()
    yield found
    found.set()


class TestLastLines:
    def test_have_their_own_times_and_plain_ones_that_of_the_line_before(self, tmp_path: Path) -> None:
        file = tmp_path / "log"
        file.write_text("begin\n" + event(1, "a") + "Traceback:\n  x\n" + event(9, "b") + "not comple")

        found = last_lines(file, "gateway", 10)

        assert [line.at - BASE for line in found] == [1, 1, 1, 1, 9]
        assert found[2] == LogLine(BASE + 1, "gateway", "stderr", "Traceback:")

    def test_are_the_last(self, tmp_path: Path) -> None:
        file = tmp_path / "log"
        file.write_text("".join(event(n, str(n)) for n in range(9)))

        assert [line.at - BASE for line in last_lines(file, "g", 2)] == [7, 8]
        assert last_lines(file, "g", 0) == []

    def test_of_a_file_that_is_not_there_are_none(self, tmp_path: Path) -> None:
        assert last_lines(tmp_path / "none", "g", 5) == []


class TestFollow:
    def test_goes_on_over_a_file_that_comes_late_is_emptied_and_replaced(
        self, tmp_path: Path, stopped: threading.Event
    ) -> None:
        file = tmp_path / "log"
        lines = follow(file, "g", 5, stopped)
        seen: list[str] = []

        def one() -> None:
            seen.append(next(lines).text)

        reading = threading.Thread(target=one)
        reading.start()
        file.write_text("late\n")
        reading.join(10)
        with file.open("a") as more:
            more.write("more\n")
        one()
        file.write_text("x\n")
        one()
        (tmp_path / "new").write_text("replaced\n")
        (tmp_path / "new").replace(file)
        one()

        assert seen == ["late", "more", "x", "replaced"]
