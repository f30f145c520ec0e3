"""What the kernel counts for one container: the files of its control group, version 1 or 2, on this machine.

Found by the container's first process; a group counts as the container's only when its path has the container's id, so
that a process id that was given away meanwhile is never taken for it. Reads, and never writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
PROC = Path("/proc")
_NS, _US = 1e-9, 1e-6


@dataclass(frozen=True, slots=True)
class Counts:
    """Seconds of CPU since the group was made, those it had to wait at its limit, and its working set: memory in use
    but for file pages that the kernel can drop at once. None: this kernel does not say."""

    cpu_s: float | None
    throttled_s: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The directories of one group, by controller; version 2 has one for all."""

    unified: bool
    directories: Mapping[str, Path]

    def read(self) -> Counts:
        """Raises `OSError` once the group is gone."""
        return self._read_unified() if self.unified else self._read_split()

    def _read_unified(self) -> Counts:
        group = self.directories[""]
        cpu, memory = _table(group / "cpu.stat"), _table(group / "memory.stat")
        used = _number(group / "memory.current")
        return Counts(
            cpu_s=_scaled(cpu.get("usage_usec"), _US),
            throttled_s=_scaled(cpu.get("throttled_usec"), _US),
            memory_bytes=_working_set(used, memory.get("inactive_file")),
        )

    def _read_split(self) -> Counts:
        cpu = _table(self.directories["cpu"] / "cpu.stat")
        memory = _table(self.directories["memory"] / "memory.stat")
        used = _number(self.directories["memory"] / "memory.usage_in_bytes")
        return Counts(
            cpu_s=_scaled(_number(self.directories["cpuacct"] / "cpuacct.usage"), _NS),
            throttled_s=_scaled(cpu.get("throttled_time"), _NS),
            memory_bytes=_working_set(used, memory.get("total_inactive_file")),
        )


def find(pid: int, container: str, *, root: Path = ROOT, proc: Path = PROC) -> Cgroup | None:
    """The group of the container whose first process is `pid`; None where its files are out of reach from here: an
    engine in a virtual machine, or this process in a namespace of its own."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    unified = (root / "cgroup.controllers").is_file()
    found: dict[str, Path] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if container not in path or ".." in path:
            continue
        directory = root / controllers / path.lstrip("/")
        found |= dict.fromkeys(controllers.split(","), directory)
    needed = ("",) if unified else ("cpu", "cpuacct", "memory")
    if any(name not in found or not found[name].is_dir() for name in needed):
        return None
    return Cgroup(unified, {name: found[name] for name in needed})


def _table(path: Path) -> dict[str, int]:
    """`name number` a line; {} where the controller is off."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return {}
    return {name: int(value) for name, _, value in (line.partition(" ") for line in text.splitlines())}


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return None


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit


def _working_set(used: int | None, inactive_file: int | None) -> int | None:
    return None if used is None else max(0, used - (inactive_file or 0))
