"""How many processes a gateway runs when nobody says: as many as can really run at a time.

Reads the scheduler's mask and the control group's limit; of a container with two cores of sixty-four only two count.
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path
from typing import Final

from router.config import Config

# Beyond, the replicas need the cores more.
MOST_BY_ITSELF: Final = 8


def processes_for(config: Config) -> int:
    return config.processes or usable_cores()


def usable_cores() -> int:
    """How many processes can really run at a time here: by the scheduler's mask and the control group's limit."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(MOST_BY_ITSELF, cores, math.ceil(_control_group_cpus())))


def _control_group_cpus() -> float:
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return float(MOST_BY_ITSELF) if quota == "max" else int(quota) / int(period)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (Path(f"/sys/fs/cgroup/cpu/cpu.cfs_{word}_us").read_text() for word in ("quota", "period"))
        if int(quota) > 0:
            return int(quota) / int(period)
    return float(MOST_BY_ITSELF)
