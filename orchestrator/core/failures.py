"""Counts failures of a spec and says when its next replica may start.

    first failure of a replica that had been ready    replaced at once (a crash or kill of something that works)
    each further one in a row                         backoff_first_s, doubled each time, up to backoff_max_s
    a spec that never became ready                    waits from the first failure on

"In a row" ends once a replica stayed ready for stable_after_s. Each replica counts once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.core.entities import Replica
from orchestrator.core.plan import Failures, Memory, Policy
from orchestrator.core.roster import History, Roster, Rosters, ending

# 2**30 first delays are above any cap; more would overflow a float after months of failing.
MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Failures by spec digest, and the ids of replicas that were counted."""

    by_digest: Mapping[str, Failures]
    counted: frozenset[str]

    def of(self, roster: Roster) -> Failures | None:
        return self.by_digest.get(roster.wanted.digest) if roster.wanted else None


def count_failures(rosters: Rosters, memory: Memory, history: History, now: float, policy: Policy) -> FailureCount:
    """Takes in the replicas that failed since the last decision. Specs that nobody wants are forgotten."""
    by_digest: dict[str, Failures] = {}
    counted: set[str] = set()
    for roster in rosters.values():
        counted.update(r.id for r in roster.failed)
        failures = _of_version(roster, memory, history, now, policy)
        if failures is not None and roster.wanted is not None:
            by_digest[roster.wanted.digest] = failures
    return FailureCount(by_digest, frozenset(counted))


def _of_version(roster: Roster, memory: Memory, history: History, now: float, policy: Policy) -> Failures | None:
    if roster.wanted is None:
        return None
    failures = memory.failures.get(roster.wanted.digest)
    if failures is not None and _has_recovered(failures, roster, history, now - policy.stable_after_s):
        failures = None
    for replica in roster.failed:
        is_ours = replica.digest == roster.wanted.digest and replica.id not in memory.draining
        if is_ours and replica.id not in memory.counted:
            failures = _one_more(failures, replica, roster, history, memory.proven, now, policy)
    return failures


def _has_recovered(failures: Failures, roster: Roster, history: History, stable_since: float) -> bool:
    """Whether a replica that became ready after the last failure has stayed so for long."""
    loaded = (history.ready_since.get(r.id) for r in (*roster.ready, *roster.standby))
    return any(since is not None and failures.failed_at < since <= stable_since for since in loaded)


def _one_more(
    before: Failures | None,
    replica: Replica,
    roster: Roster,
    history: History,
    proven: frozenset[str],
    now: float,
    policy: Policy,
) -> Failures:
    was_ready = history.was_ready(replica.id)
    tail = replica.exit.log_tail if replica.exit else ()
    if was_ready and now - history.ready_since[replica.id] >= policy.stable_after_s:
        before = None
    if before is not None and replica.id in before.peers:
        return replace(before, reason=ending(replica), log_tail=tail)
    count = before.count + 1 if before else 1
    return Failures(
        count=count,
        retry_at=now + _delay_s(count - 1 if was_ready else count, policy),
        reason=ending(replica),
        log_tail=tail,
        failed_at=now,
        is_proven=was_ready or replica.digest in proven,
        peers=frozenset(r.id for r in (*roster.ready, *roster.pending, *roster.standby, *roster.failed)),
    )


def _delay_s(delays: int, policy: Policy) -> float:
    """0, first, 2 × first, 4 × first, ... for the 0th, 1st, 2nd, 3rd delay in a row, up to the cap."""
    if delays == 0:
        return 0.0
    return min(policy.backoff_max_s, policy.backoff_first_s * 2.0 ** min(delays - 1, MAX_DOUBLINGS))
