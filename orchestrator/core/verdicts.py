"""Says where a version stands: one word, the counts, and one sentence when the word is not "ready".

Reads the decision that was made and changes nothing. Sentences are for people and hold no rule.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from orchestrator.core.plan import Failures, Verdict
from orchestrator.core.roster import Roster, progress
from orchestrator.core.staffing import Situation, Staffing
from orchestrator.core.traffic import Traffic


def judge(roster: Roster, decision: Staffing, starts: int, traffic: Traffic | None, at: Situation) -> Verdict:
    """The verdict on one version after this plan, which starts `starts` more of its replicas."""
    verdict = _judge(roster, decision, starts, traffic, at)
    if traffic is None or not traffic.paused:
        return verdict
    return replace(verdict, paused=True, reason=_paused(roster, verdict))


def _paused(roster: Roster, verdict: Verdict) -> str:
    """What a pause keeps as it is, before what else there is to say."""
    others = len(roster.old_ready) + len(roster.old_pending) + len(roster.old_standby)
    surplus = max(0, len(roster.ready) - verdict.desired) if roster.wanted else 0
    kept = [_count(others, "replica") + " of an earlier spec"] if others and roster.wanted else []
    kept += [_count(others, "replica") + " of a version that was removed"] if others and not roster.wanted else []
    kept += [f"{surplus} more than wanted"] if surplus else []
    told = f"rollout paused; {' and '.join(kept)} stay" if kept else "rollout paused"
    if verdict.state in ("starting", "failed"):
        return f"{told}; {verdict.reason}"
    return told


def _judge(roster: Roster, decision: Staffing, starts: int, traffic: Traffic | None, at: Situation) -> Verdict:
    if roster.wanted is None:
        return _stopping(roster, traffic)
    leaving = {drain.replica_id for drain in decision.drains}
    ready = sum(1 for r in roster.ready if r.id not in leaving)
    verdict = partial(Verdict, roster.key, ready=ready, desired=roster.wanted.replicas, standby=len(roster.standby))
    desired = roster.wanted.replicas
    failed = at.failures.of(roster)
    if (ready < desired or decision.missing) and failed is not None and not failed.is_blip:
        return verdict(state="failed", reason=_failing(roster, ready, desired, failed, at.now))
    if ready < desired:
        reason = f"{_ready_of(ready, desired)}; {_progress(roster, decision, starts, at)}"
        return verdict(state="updating" if roster.old_ready else "starting", reason=reason)
    leftover = len(roster.serving) + len(roster.old_pending) + len(roster.old_standby) + len(roster.draining) - ready
    if leftover:
        reason = (
            f"{_ready_of(ready, desired)}; {_count(leftover, 'outdated or surplus replica')} to be drained and stopped"
        )
        return verdict(state="updating", reason=reason)
    if not desired:
        return verdict(state="asleep", reason=roster.wanted.held or _resting(roster))
    return verdict(state="ready", reason=_left_alone(roster))


def _resting(roster: Roster) -> str:
    depth = f"{_count(len(roster.standby), 'replica')} in standby" if roster.standby else "no replica is kept"
    return f"a request wakes it; {depth}"


def _left_alone(roster: Roster) -> str:
    """Which of the ready ones the gateway does not use, "" when it uses all."""
    reasons = [replica.ejected for replica in roster.ready if replica.ejected]
    if not reasons:
        return ""
    why = ", ".join(sorted(set(reasons)))
    return f"{len(reasons)} of {_count(len(roster.ready), 'replica')} ejected by the gateway: {why}"


def _stopping(roster: Roster, traffic: Traffic | None) -> Verdict:
    if traffic is not None and traffic.holds(roster.key.version):
        waits_for = ", ".join(f"{roster.key.model}@{version}" for version in traffic.waits_for)
        reason = f"serves until {waits_for} can carry its share"
        return Verdict(roster.key, "stopping", len(roster.old_ready), 0, reason)
    draining = roster.draining + roster.old_ready
    in_flight = sum(r.in_flight or 0 for r in draining)
    removed = "model removed" if traffic is None else "version removed"
    reason = f"{removed}; {_count(len(draining), 'replica')} draining, {_count(in_flight, 'request')} in flight"
    return Verdict(roster.key, "stopping", 0, 0, reason)


def _failing(roster: Roster, ready: int, desired: int, failed: Failures, now: float) -> str:
    wait_s = math.ceil(failed.retry_at - now)
    attempt = f"next try in {wait_s} s" if wait_s > 0 else "trying again"
    serving = f"; {_count(len(roster.old_ready), 'replica')} of the old spec still serving" if roster.old_ready else ""
    after = f"{attempt} after {_count(failed.count, 'failure')}"
    return f"{_ready_of(ready, desired)}{serving}; {after}: {failed.reason}"


def _progress(roster: Roster, decision: Staffing, starts: int, at: Situation) -> str:
    if roster.pending:
        oldest = roster.pending[0]
        return progress(oldest, at.now, at.history.pending_since[oldest.id])
    if starts:
        return f"starting {starts}"
    if decision.may_start:
        return f"waiting for its turn: {at.policy.max_starting} replicas start at once in the cluster"
    return "waiting for replicas that stop to make room"


def _ready_of(ready: int, desired: int) -> str:
    return f"{ready} of {_count(desired, 'replica')} ready"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
