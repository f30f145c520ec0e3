"""The spec digest decides what is replaced: it must move with every field, and with nothing else."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.entities import Desired, Observed, ReplicaSpec, VersionKey
from tests.unit.orchestrator.core.builders import desired, observed, replica, version

SPEC = ReplicaSpec("iris", "1", "sklearn", "artifact", "runtime")


class TestSpecDigest:
    def test_is_the_same_in_every_process_and_release(self):
        """Labels of running containers carry it: if it moved, an upgrade would replace every replica."""
        assert SPEC.digest() == "649c0b6368e053e3"

    def test_is_equal_for_equal_specs(self):
        assert replace(SPEC).digest() == SPEC.digest()

    def test_differs_when_a_field_differs(self):
        assert replace(SPEC, egress=True).digest() != SPEC.digest()


class TestDesired:
    def test_lists_the_versions_of_all_models_by_key(self):
        want = desired(version("iris@1"), version("text@1"))

        assert sorted(want.versions()) == [VersionKey("iris", "1"), VersionKey("text", "1")]

    def test_is_empty_before_anything_was_applied(self):
        assert Desired().versions() == {}


class TestObserved:
    def test_finds_the_replicas_of_one_version(self):
        world: Observed = observed(replica("r1", "iris@1"), replica("r2", "iris@2"))

        assert [r.id for r in world.of(VersionKey("iris", "2"))] == ["r2"]
