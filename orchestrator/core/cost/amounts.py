"""What replicas took: time, cores, memory, money and predictions, as amounts that add up. Pure.

All times are seconds, or seconds times a quantity. What nobody knows is an amount of its own (`unknown_s`,
`unpriced_s`, and what is missing from `judged_s`), never a zero in another.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import add, attrgetter
from typing import Self

from orchestrator.core.entities import Pricing, Resources

HOUR_S = 3600.0
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Amounts:
    """Sums over some time, for one version or for many.

    `replica_s`: of replicas that started, were ready or drained; `standby_s`: of paused ones, which hold memory and no
    CPU. `cpu_s` and `memory_gib_s` are what was asked for, whether or not it was used. `judged_s` is the part of
    `replica_s` in which it is known whether a request was inside, `idle_s` the part of that without one; `idle_cost`
    is that of `idle_s` and of standby. `unpriced_s`: replica time, standby too, while there were no prices.
    `unknown_s`: time in which a replica may have run and nobody saw; it is in none of the others.
    """

    replica_s: float = 0.0
    standby_s: float = 0.0
    cpu_s: float = 0.0
    memory_gib_s: float = 0.0
    judged_s: float = 0.0
    idle_s: float = 0.0
    cost: float = 0.0
    idle_cost: float = 0.0
    unpriced_s: float = 0.0
    unknown_s: float = 0.0
    predictions: float = 0.0

    def __add__(self, other: Self) -> Amounts:
        return Amounts(*map(add, _VALUES(self), _VALUES(other)))

    def share(self, part: float) -> Amounts:
        """That part of each amount."""
        return self if part == 1.0 else Amounts(*(value * part for value in _VALUES(self)))

    @property
    def is_priced(self) -> bool:
        """Whether anything of it was counted while there were prices. Nothing at all is known to cost nothing."""
        held_s = self.replica_s + self.standby_s
        return held_s - self.unpriced_s > 1e-6 * held_s or held_s == 0

    @property
    def idle_share(self) -> float | None:
        """Of the time of replicas that were awake, the part in which no request was inside. None: nobody knows."""
        return self.idle_s / self.judged_s if self.judged_s > 0 else None

    @property
    def cost_per_1000(self) -> float | None:
        """None while nothing was predicted, or for want of a price."""
        return self.cost / self.predictions * 1000 if self.is_priced and self.predictions > 0 else None


NAMES = tuple(each.name for each in fields(Amounts))
_VALUES = attrgetter(*NAMES)


def cost_per_hour(resources: Resources, pricing: Pricing, *, is_awake: bool) -> float:
    """Of one replica. Standby holds its memory and no CPU."""
    cpu = resources.cpus * pricing.cpu_hour if is_awake else 0.0
    return cpu + resources.memory_bytes / GIB * pricing.memory_gib_hour


def of_replica(
    seconds: float, resources: Resources, pricing: Pricing, *, is_awake: bool, is_busy: bool | None
) -> Amounts:
    """What one replica took in `seconds`. `is_busy`: whether a request was inside (None: nobody knows)."""
    cost = cost_per_hour(resources, pricing, is_awake=is_awake) * seconds / HOUR_S
    is_idle = not is_awake or is_busy is False
    return Amounts(
        replica_s=seconds if is_awake else 0.0,
        standby_s=0.0 if is_awake else seconds,
        cpu_s=seconds * resources.cpus if is_awake else 0.0,
        memory_gib_s=seconds * resources.memory_bytes / GIB,
        judged_s=seconds if is_awake and is_busy is not None else 0.0,
        idle_s=seconds if is_awake and is_idle else 0.0,
        cost=cost,
        idle_cost=cost if is_idle else 0.0,
        unpriced_s=0.0 if pricing.is_set else seconds,
    )
