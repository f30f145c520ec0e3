"""The transition table of a replica."""

from __future__ import annotations

import pytest

from orchestrator.core.states import LIVE, PENDING, TRANSITIONS, ReplicaState, may_become


class TestTransitions:
    def test_every_state_has_a_row(self):
        assert TRANSITIONS.keys() == set(ReplicaState)

    @pytest.mark.parametrize("state", ReplicaState)
    def test_staying_is_always_allowed(self, state):
        assert may_become(state, state)

    @pytest.mark.parametrize("state", [s for s in ReplicaState if s is not ReplicaState.FAILED])
    def test_any_replica_may_fail(self, state):
        assert may_become(state, ReplicaState.FAILED)

    @pytest.mark.parametrize("state", [s for s in ReplicaState if s is not ReplicaState.FAILED])
    def test_a_failed_replica_stays_failed(self, state):
        assert not may_become(ReplicaState.FAILED, state)

    @pytest.mark.parametrize("state", sorted(LIVE))
    def test_a_draining_replica_never_serves_again(self, state):
        assert not may_become(ReplicaState.DRAINING, state)

    def test_a_pending_replica_is_live_but_not_ready(self):
        assert LIVE > PENDING
        assert ReplicaState.READY not in PENDING
