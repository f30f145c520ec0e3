"""What this container may use: CPU cores and bytes of memory, as its cgroup says, version 1 or 2.

The host's core count says nothing in a container. Reads files below `root` only; a limit that cannot be found is None.
Every directory from the process's own cgroup up to the root counts, because the tightest one holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
# Version 1 writes "no limit" as a number near 2^63.
_NO_LIMIT = 1 << 60


def cpus(root: Path = CGROUPS, own: Path = OWN) -> float | None:
    quotas = [_quota(_words(each / "cpu.max")) for each in _directories(root, own, "")]
    quotas += [
        _quota(_words(each / "cpu.cfs_quota_us") + _words(each / "cpu.cfs_period_us"))
        for each in _directories(root, own, "cpu")
    ]
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_bytes(root: Path = CGROUPS, own: Path = OWN) -> int | None:
    limits = [_number(_words(each / "memory.max")) for each in _directories(root, own, "")]
    limits += [_number(_words(each / "memory.limit_in_bytes")) for each in _directories(root, own, "memory")]
    return min((limit for limit in limits if limit is not None and limit < _NO_LIMIT), default=None)


def own_cores() -> int:
    """The cores that this process may run on at all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_bytes(processes: Path = Path("/proc")) -> int:
    """What this process and all below it (instances of the model) hold in memory now; 0 where nobody says."""
    pages, waiting = 0, [processes / "self"]
    while waiting:
        process = waiting.pop()
        words = _words(process / "statm")
        pages += int(words[1]) if len(words) > 1 else 0
        for children in process.glob("task/*/children"):
            waiting += [processes / child for child in _words(children)]
    return pages * os.sysconf("SC_PAGE_SIZE")


def _directories(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """The cgroup's directories, its own first. In a container, where the path is / or the host's, only the root is
    there.
    """
    mount = root / controller
    path = PurePosixPath(_path_of(own, controller))
    for each in (path, *path.parents):
        directory = mount / str(each).lstrip("/")
        if directory.is_dir():
            yield directory


def _path_of(own: Path, controller: str) -> str:
    """Lines are `hierarchy:controllers:path`; version 2 is the one without controllers."""
    for line in _text(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path
    return "/"


def _quota(words: list[str]) -> float | None:
    """`50000 100000` is half a core; `max 100000` and `-1 100000` are no limit."""
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isdecimal():
        return None
    quota, period = int(words[0]), int(words[1])
    return quota / period if quota and period else None


def _number(words: list[str]) -> int | None:
    return int(words[0]) if len(words) == 1 and words[0].isdecimal() else None


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
