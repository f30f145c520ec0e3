"""The file of differing answers: its owner's alone, bounded, and lines that can be read again."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from router.samples import BODY_BYTES, Sample, SampleLog

SAMPLE = Sample(
    "abc", "m", "1", "2", "different", "y: 1 is not 2", b"POST", b"/v2/models/m/infer", b"in", 200, b"1", 200, b"2"
)


def sizes_in(directory: Path) -> dict[str, int]:
    return {each.name: each.stat().st_size for each in directory.iterdir()}


class TestSampleLog:
    async def test_appends_a_line_that_only_its_owner_may_read(self, tmp_path: Path) -> None:
        path = tmp_path / "samples.jsonl"
        path.touch(0o644)
        log = SampleLog(str(path))

        await log.write(SAMPLE)
        await log.write(SAMPLE)

        assert [json.loads(line)["request_id"] for line in path.read_text().splitlines()] == ["abc", "abc"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_keeps_one_file_of_its_size_and_the_one_before(self, tmp_path: Path) -> None:
        path = tmp_path / "samples.jsonl"
        log = SampleLog(str(path), file_bytes=1000)

        for _ in range(50):
            await log.write(SAMPLE)

        sizes = sizes_in(tmp_path)
        assert sizes.keys() == {"samples.jsonl", "samples.jsonl.1"}
        assert all(size < 1500 for size in sizes.values())

    async def test_loses_samples_where_it_cannot_write(self, tmp_path: Path) -> None:
        await SampleLog(str(tmp_path / "missing" / "file")).write(SAMPLE)

    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b"text", {"body": "text"}),
            (b"\xff\x00", {"body_base64": "/wA="}),
            ("ä".encode() * BODY_BYTES, {"bytes": 2 * BODY_BYTES, "body": "ä" * (BODY_BYTES // 2)}),
            (
                b"x" + "ä".encode() * BODY_BYTES,
                {"bytes": 2 * BODY_BYTES + 1, "body": "x" + "ä" * (BODY_BYTES // 2 - 1)},
            ),
            ("ä".encode()[:1], {"body_base64": "ww=="}),
        ],
    )
    def test_shows_bodies_as_text_where_they_are_and_no_more_than_needed(
        self, body: bytes, shown: dict[str, object]
    ) -> None:
        line = json.loads(replace(SAMPLE, live=body).line("now"))

        assert line["live"] == {"version": "1", "status": 200, **shown}
