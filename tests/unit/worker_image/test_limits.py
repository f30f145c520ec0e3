"""What a container may use, from the files of both versions of cgroups."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker_image.server import limits

Files = dict[str, str]


def written(directory: Path, files: Files, own: str) -> tuple[Path, Path]:
    for name, text in files.items():
        (directory / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "fs" / name).write_text(text)
    (directory / "own").write_text(own)
    return directory / "fs", directory / "own"


VERSION_1 = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n"


class TestCpus:
    @pytest.mark.parametrize(
        ("files", "own", "wanted"),
        [
            ({"cpu.max": "150000 100000\n"}, "0::/\n", 1.5),
            ({"cpu.max": "max 100000\n"}, "0::/\n", None),
            ({"a/cpu.max": "100000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b\n", 1.0),
            ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, VERSION_1, 0.5),
            ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, VERSION_1, None),
            (
                {
                    "cpu/docker/abc/cpu.cfs_quota_us": "200000",
                    "cpu/docker/abc/cpu.cfs_period_us": "100000",
                    "cpu/docker/cpu.cfs_quota_us": "100000",
                    "cpu/docker/cpu.cfs_period_us": "100000",
                },
                VERSION_1,
                1.0,
            ),
            ({"cpu.max": "nonsense"}, "", None),
            ({}, "", None),
        ],
    )
    def test_are_the_tightest_limit_on_the_way_up(
        self, tmp_path: Path, files: Files, own: str, wanted: float | None
    ) -> None:
        assert limits.cpus(*written(tmp_path, files, own)) == wanted


class TestMemory:
    @pytest.mark.parametrize(
        ("files", "own", "wanted"),
        [
            ({"memory.max": "536870912\n"}, "0::/\n", 2**29),
            ({"memory.max": "max\n"}, "0::/\n", None),
            ({"a/memory.max": "max", "memory.max": "1000000"}, "0::/a\n", 1_000_000),
            ({"memory/memory.limit_in_bytes": "536870912\n"}, VERSION_1, 2**29),
            ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, VERSION_1, None),
            ({}, "", None),
        ],
    )
    def test_is_the_tightest_limit_on_the_way_up(
        self, tmp_path: Path, files: Files, own: str, wanted: int | None
    ) -> None:
        assert limits.memory_bytes(*written(tmp_path, files, own)) == wanted


def test_a_process_knows_what_it_holds() -> None:
    assert limits.resident_bytes() > 1_000_000


def test_what_its_children_hold_counts_too() -> None:
    before = limits.resident_bytes()
    hold = "held = bytearray(b'x' * (64 << 20)); print('held', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"

        assert limits.resident_bytes() - before > 60 << 20

        child.communicate(b"\n")
