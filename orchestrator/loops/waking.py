"""Wakes versions that are asleep, as soon as a gateway says that requests wait for them.

Owns the way from that call to a count in force: at once, not at the autoscaler's next turn. How many it is the scaling
policy says (`choose`); who is woken or started for it is reconcile's. The same call again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from orchestrator.core.entities import Desired, DesiredVersion, Target, VersionKey
from orchestrator.loops.journal import Journal
from orchestrator.loops.targets import Targets

# How many replicas a version needs that so many requests wait for.
Choose = Callable[[DesiredVersion, int], int]


class Reconciler(Protocol):
    """The part of `reconcile.py`'s loop that this one works with."""

    desired: Desired

    def retarget(self) -> None: ...

    def hurry(self) -> None: ...


class Waking:
    """`wake` is what the gateway's call comes to."""

    def __init__(self, loop: Reconciler, targets: Targets, journal: Journal, choose: Choose) -> None:
        self._loop = loop
        self._targets = targets
        self._journal = journal
        self._choose = choose

    def wake(self, asked: Mapping[VersionKey, int]) -> None:
        """`asked`: how many requests wait for each version. One that is awake, held or gone by now is left as it is:
        the gateway's next table says so."""
        versions = self._loop.desired.versions()
        asleep = {key: versions[key] for key in asked if key in versions and versions[key].is_asleep}
        chosen = {key: max(1, self._choose(version, asked[key])) for key, version in asleep.items()}
        if not chosen:
            return
        self._targets.set({key: Target(count, asleep[key].scaling.standby) for key, count in chosen.items()})
        self._loop.retarget()
        self._loop.hurry()
        for key, count in chosen.items():
            waiting = "1 request waits" if asked[key] == 1 else f"{asked[key]} requests wait"
            self._journal.record("version_woken", f"0 -> {count}: {waiting}", key=key)
