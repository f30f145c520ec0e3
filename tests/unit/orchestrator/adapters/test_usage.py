"""Where the numbers of containers and processes come from: files of the kernel as both versions have them, and the API."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestrator.adapters import _cgroups, _process_table
from orchestrator.adapters._cgroups import Counts
from orchestrator.adapters._docker_usage import counts_of

ID = "5731703f7477fbf477b8cbe4f06b6418e4e1224c39aefbcd63de6434e2c49e87"


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def proc(tmp_path: Path, *lines: str) -> Path:
    write(tmp_path / "proc" / "7", cgroup="".join(f"{line}\n" for line in lines))
    return tmp_path / "proc"


def split_tree(tmp_path: Path, path: str) -> Path:
    root = tmp_path / "cgroup"
    write(
        root / "cpu,cpuacct" / path, cpuacct__usage="24497729\n", cpu__stat="nr_periods 4\nthrottled_time 1500000000\n"
    )
    write(
        root / "memory" / path, memory__usage_in_bytes="1978368\n", memory__stat="cache 9\ntotal_inactive_file 122880\n"
    )
    return root


def unified_tree(tmp_path: Path, path: str, **more: str) -> Path:
    root = write(tmp_path / "cgroup", cgroup__controllers="cpu memory\n")
    files = {
        "cpu__stat": "usage_usec 2500000\nuser_usec 1\nthrottled_usec 40000\n",
        "memory__current": "5000000\n",
        "memory__stat": "anon 3\ninactive_file 1000000\n",
    }
    write(root / path, **{**files, **more})
    return root


class TestCgroups:
    def test_of_version_1(self, tmp_path: Path) -> None:
        root = split_tree(tmp_path, f"docker/{ID}")
        told = proc(tmp_path, f"4:memory:/docker/{ID}", f"2:cpu,cpuacct:/docker/{ID}", f"0::/docker/{ID}")

        group = _cgroups.find(7, ID, root=root, proc=told)

        assert group is not None
        assert group.read() == Counts(pytest.approx(0.024497729), pytest.approx(1.5), 1978368 - 122880)

    def test_of_version_2_with_the_driver_systemd(self, tmp_path: Path) -> None:
        path = f"system.slice/docker-{ID}.scope"
        root, told = unified_tree(tmp_path, path), proc(tmp_path, f"0::/{path}")

        group = _cgroups.find(7, ID, root=root, proc=told)

        assert group is not None
        assert group.read() == Counts(pytest.approx(2.5), pytest.approx(0.04), 4_000_000)

    def test_without_a_limit_nothing_is_said_of_throttling(self, tmp_path: Path) -> None:
        root = unified_tree(tmp_path, ID, cpu__stat="usage_usec 1\n")
        group = _cgroups.find(7, ID, root=root, proc=proc(tmp_path, f"0::/{ID}"))

        assert group is not None
        assert group.read().throttled_s is None

    @pytest.mark.parametrize(
        "line",
        [
            "0::/user.slice",  # the process id belongs to somebody else by now
            f"0::/../{ID}",  # this process is in a namespace of its own
            f"0::/elsewhere/{ID}",  # an engine in a virtual machine
        ],
    )
    def test_what_is_not_the_containers_is_not_taken_for_it(self, tmp_path: Path, line: str) -> None:
        root = unified_tree(tmp_path, f"docker/{ID}")

        assert _cgroups.find(7, ID, root=root, proc=proc(tmp_path, line)) is None
        assert _cgroups.find(8, ID, root=root, proc=tmp_path / "proc") is None

    def test_says_so_when_the_group_is_gone(self, tmp_path: Path) -> None:
        root = unified_tree(tmp_path, ID)
        group = _cgroups.find(7, ID, root=root, proc=proc(tmp_path, f"0::/{ID}"))
        for file in (root / ID).iterdir():
            file.unlink()
        (root / ID).rmdir()

        assert group is not None
        with pytest.raises(OSError, match=ID):
            group.read()


class TestApi:
    def test_takes_file_pages_off_that_can_be_dropped(self) -> None:
        stats = {
            "cpu_stats": {
                "cpu_usage": {"total_usage": 3_000_000_000},
                "throttling_data": {"throttled_time": 500_000_000},
            },
            "memory_stats": {"usage": 900, "stats": {"total_inactive_file": 100}},
        }

        assert counts_of(stats) == Counts(pytest.approx(3.0), pytest.approx(0.5), 800)

    def test_version_2_has_another_name_for_them(self) -> None:
        stats = {
            "cpu_stats": {"cpu_usage": {"total_usage": 1}},
            "memory_stats": {"usage": 9, "stats": {"inactive_file": 4}},
        }

        found = counts_of(stats)

        assert found is not None
        assert (found.memory_bytes, found.throttled_s) == (5, None)

    def test_zeros_of_a_container_that_ended_are_nothing(self) -> None:
        stats = {"read": "0001-01-01T00:00:00Z", "cpu_stats": {"cpu_usage": {"total_usage": 0}}, "memory_stats": {}}

        assert counts_of(stats) is None


class TestProcesses:
    def test_knows_this_process_and_its_parent(self) -> None:
        me = _process_table.read()[os.getpid()]

        assert me.parent == os.getppid()
        assert me.cpu_s > 0
        assert me.resident_bytes > 2**20

    def test_adds_children_up(self) -> None:
        code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
            try:
                table = _process_table.read()
                deadline = time.monotonic() + 20
                while not (children := [p for p in table.values() if p.parent == parent.pid]):
                    assert time.monotonic() < deadline
                    table = _process_table.read()
                found = _process_table.with_children(table, [parent.pid, 2**22 + 1])
                assert list(found) == [parent.pid]
                own = table[parent.pid].resident_bytes
                assert found[parent.pid].resident_bytes == own + sum(p.resident_bytes for p in children)
            finally:
                parent.communicate(b"\n")

    def test_where_there_is_no_proc_psutil_says_the_same(self) -> None:
        burn = "import time\nwhile time.process_time() < 2: pass"
        subprocess.run([sys.executable, "-c", burn], check=True)  # a child that has ended

        ours, theirs = _process_table._read_proc()[os.getpid()], _process_table._ask_psutil()[os.getpid()]

        assert ours.parent == theirs.parent
        assert theirs.resident_bytes == pytest.approx(ours.resident_bytes, rel=0.2)
        assert theirs.cpu_s == pytest.approx(ours.cpu_s, abs=1.0)
