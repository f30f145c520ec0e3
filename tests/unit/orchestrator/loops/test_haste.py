"""How long the last look may stand for a new one, and what is done on its word."""

from __future__ import annotations

from orchestrator.adapters.engine import EngineReplica
from orchestrator.core.entities import VersionKey
from orchestrator.core.plan import DrainReplica, PauseReplica, RemoveReplica, StartReplica, StopReplica, WakeReplica
from orchestrator.loops.haste import LONGEST_S, LastLook, urgent
from tests.unit.orchestrator.core.builders import version

KEY = VersionKey("m", "1")


def listed(*ids: str) -> list[EngineReplica]:
    return [EngineReplica(id_, KEY, "d", 1, 0.0, running=True, paused=True) for id_ in ids]


def hurried() -> LastLook:
    look = LastLook()
    look.keep(listed("r1", "r2"))
    look.hurry(10.0)
    return look


def test_stands_for_a_moment_while_somebody_hurries() -> None:
    look = hurried()

    assert look.left_s(10.0) == LONGEST_S
    assert look.left_s(10.0 + LONGEST_S) == 0.0


def test_without_a_look_or_haste_it_does_not() -> None:
    blind, calm = LastLook(), LastLook()
    blind.hurry(10.0)
    blind.unpaused("r1")
    calm.keep(listed("r1"))

    assert blind.left_s(10.0) == 0.0
    assert calm.left_s(10.0) == 0.0


def test_haste_upon_haste_does_not_put_off_a_real_look() -> None:
    look = hurried()

    look.hurry(10.4)

    assert look.left_s(10.0 + LONGEST_S) == 0.0


def test_after_a_real_look_it_may_again() -> None:
    look = hurried()
    look.end()
    assert look.left_s(10.1) == 0.0

    look.keep(listed("r1"))
    look.hurry(11.0)

    assert look.left_s(11.0) == LONGEST_S


def test_knows_what_was_unpaused_since() -> None:
    look = hurried()

    look.unpaused("r2")

    assert [(r.id, r.paused) for r in look.listed] == [("r1", True), ("r2", False)]


def test_only_wakings_and_drains_are_urgent() -> None:
    wake, drain = WakeReplica("r1", KEY, "needed"), DrainReplica("r2", KEY, "surplus")
    others = (
        StartReplica(version("m@1"), 1, "missing"),
        PauseReplica("r3", KEY, "drained"),
        StopReplica("r4", KEY, 1.0, "drained"),
        RemoveReplica("r5", KEY, "killed"),
    )

    assert urgent((others[0], wake, *others[1:], drain)) == (wake, drain)
