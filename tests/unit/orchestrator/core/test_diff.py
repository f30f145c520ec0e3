"""What people read before they apply: every kind of change as the line they see."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from orchestrator.core.diff import SCALING_NAMES, Change, digest, preview, render
from orchestrator.core.entities import (
    ClusterLimits,
    Desired,
    DesiredVersion,
    ModelSettings,
    Observed,
    RateLimit,
    ReplicaSpec,
    Resources,
    RouteSettings,
    Scaling,
    ScheduledMinimum,
    Shadow,
    SignalSource,
)
from orchestrator.core.sources import unfetched
from tests.unit.orchestrator.core.builders import desired, observed, replica, version

HASH_A, HASH_B = "a1" * 32, "b2" * 32
SETTINGS = ModelSettings("header:x-user", Shadow("2", percent=10), RateLimit(50, 50))
SPEC = ReplicaSpec("iris", "1", "sklearn", HASH_A, f"sha256:{HASH_A}", settings='{"batching":null}')


def lines(before: Desired, after: Desired, world: Observed | None = None) -> list[str]:
    return [str(change) for change in preview(before, after, world or Observed())]


def of(spec: ReplicaSpec, replicas: int = 1) -> Desired:
    return desired(DesiredVersion(spec=spec, digest=spec.digest(), replicas=replicas))


class TestVersions:
    def test_a_new_model_shows_its_versions_traffic_and_labels(self):
        after = desired(version("iris@1", 2), version("iris@2"), traffic={"1": 90, "2": 10}, labels={"stable": "1"})

        assert lines(Desired(), after) == [
            "+ iris@1  start 2 replicas  (new version, replicas 2, sklearn, source a, spec a)",
            "+ iris@2  start 1 replica  (new version, replicas 1, sklearn, source a, spec a)",
            "+ iris  traffic 1=90 2=10  (new model)",
            "+ iris  labels stable=1  (new model)",
        ]

    def test_digests_are_shown_by_their_first_digits(self):
        assert f"source {HASH_A[:8]}…" in lines(Desired(), of(SPEC))[0]

    def test_what_is_not_fetched_yet_is_shown_by_its_size_and_has_no_spec_yet(self):
        after = of(replace(SPEC, artifact=unfetched(5_100_000_000, "9c1d0e2f77")))

        assert lines(Desired(), after)[0] == (
            "+ iris@1  start 1 replica  (new version, replicas 1, sklearn, source to fetch: 5.1 GB seen as 9c1d0e2f)"
        )
        assert lines(of(SPEC), after) == [
            "~ iris@1  replace 1 replica, start before stop  "
            f"(source changed {HASH_A[:8]}… -> to fetch: 5.1 GB seen as 9c1d0e2f)"
        ]

    def test_a_runtime_that_rests_on_what_is_not_fetched_yet_is_not_called_changed(self):
        after = of(replace(SPEC, artifact=unfetched(None, "9c1d0e2f77"), runtime=f"sha256:{HASH_B}"))

        assert "image or environment" not in lines(of(SPEC), after)[0]

    def test_an_image_of_the_users_own_is_named(self):
        assert "image shop/iris:1" in lines(Desired(), of(replace(SPEC, backend="", runtime="shop/iris:1")))[0]

    def test_replicas_that_run_already_are_adopted(self):
        world = observed(replica("r1", "iris@1"))

        sentences = [c.sentence for c in preview(Desired(), desired(version("iris@1", 3)), world)]

        assert sentences[0] == "adopt 1 replica already running, start 2 replicas"

    def test_a_removed_version_says_how_many_replicas_stop(self):
        before, after = desired(version("iris@1"), version("iris@2"), traffic={"1": 100}), desired(version("iris@1"))

        assert lines(before, after, observed(replica("r1", "iris@2"))) == [
            "- iris@2  drain and stop 1 replica  (version removed)"
        ]

    def test_a_removed_model_stops_being_routed(self):
        assert lines(desired(version("iris@1")), Desired()) == [
            "- iris  stop routing  (model removed)",
            "- iris@1  drain and stop 0 replicas  (model removed)",
        ]

    def test_scaling_starts_or_stops_the_difference(self):
        one, three = desired(version("iris@1", 1)), desired(version("iris@1", 3))

        assert lines(one, three) == ["~ iris@1  start 2 replicas  (replicas 1 -> 3)"]
        assert lines(three, one) == ["~ iris@1  drain and stop 2 replicas  (replicas 3 -> 1)"]

    def test_settings_of_the_gateway_restart_nothing(self):
        after = desired(version("iris@1", concurrency=64, drain_timeout_s=45.0))

        assert lines(desired(version("iris@1")), after) == [
            "~ iris@1  change settings, no restart  (concurrency 32 -> 64; drain_timeout_s 30 -> 45)"
        ]

    def test_settings_of_retries_and_balancing_restart_nothing(self):
        settings = {"retry_on": ("connect", "reset", "503"), "retry_max": 0, "eject": False, "balance": "least"}

        assert lines(desired(version("iris@1")), desired(version("iris@1", **settings))) == [
            "~ iris@1  change settings, no restart  (retry_max 2 -> 0; retry_on [connect, reset] -> [connect, reset, 503]; "
            "eject true -> false; balance two_choices -> least)"
        ]

    @pytest.mark.parametrize("name", RouteSettings.__slots__)
    def test_no_setting_of_the_gateway_can_change_unseen(self, name):
        values = {"idempotent": False, "eject": False, "websocket": True, "retry_on": (), "balance": "least"}
        after = desired(version("iris@1", **{name: values.get(name, 7)}))

        (line,) = lines(desired(version("iris@1")), after)

        assert "no restart" in line
        assert name in line

    def test_the_same_twice_changes_nothing(self):
        assert preview(of(SPEC), of(SPEC), Observed()) == ()


class TestReplacing:
    @pytest.mark.parametrize(
        ("after", "cause"),
        [
            ({"artifact": HASH_B}, "source changed a1a1a1a1… -> b2b2b2b2…"),
            ({"runtime": f"sha256:{HASH_B}"}, "image or environment changed a1a1a1a1… -> b2b2b2b2…"),
            ({"runtime": "shop/iris:2"}, "image or environment changed a1a1a1a1… -> shop/iris:2"),
            ({"backend": "onnx"}, "backend sklearn -> onnx"),
            ({"env": (("LOG_LEVEL", "x"),)}, "env LOG_LEVEL added"),
            ({"secrets": (("TOKEN", "keyed"),)}, "secret TOKEN added"),
            ({"resources": Resources(memory_bytes=1024**3)}, "memory 512Mi -> 1Gi"),
            ({"resources": Resources(cpus=2.5, pids=9)}, "cpus 1 -> 2.5; pids 256 -> 9"),
            ({"port": 9000}, "port 8000 -> 9000"),
            ({"egress": True}, "egress false -> true"),
            ({"settings": '{"batching":{"max_size":64}}'}, 'batching none -> {"max_size": 64}'),
        ],
    )
    def test_names_each_changed_field_as_the_cause(self, after, cause):
        changed = replace(SPEC, **after)

        assert lines(of(SPEC), of(changed)) == [
            f"~ iris@1  replace 1 replica, start before stop  ({cause}; spec {changed.digest()[:8]})"
        ]

    @pytest.mark.parametrize("name", [f.name for f in fields(ReplicaSpec) if f.name not in ("model", "version")])
    def test_no_field_of_the_spec_can_change_unseen(self, name):
        values = {
            "env": (("A", "1"),), "secrets": (("A", "1"),), "resources": Resources(9), "port": 1, "egress": True,
            "settings": '{"a": 1}',
        }  # fmt: skip
        changed = replace(SPEC, **{name: values.get(name, "other")})

        (change,) = preview(of(SPEC), of(changed), Observed())

        assert change.cause.count(";") >= 1

    def test_all_causes_stand_in_one_line(self):
        before = replace(SPEC, env=(("A", "1"), ("B", "1")))
        after = replace(before, artifact=HASH_B, env=(("B", "2"), ("C", "1")))

        (change,) = preview(of(before), of(after, replicas=2), Observed())

        assert change.cause == (
            "source changed a1a1a1a1… -> b2b2b2b2…; env A removed; env B changed; env C added; replicas 1 -> 2; "
            f"spec {after.digest()[:8]}"
        )

    def test_never_shows_values_of_the_environment(self):
        before, after = (of(replace(SPEC, env=(("PASSWORD", value),))) for value in ("hunter2", "correct horse"))

        text = render(preview(before, after, Observed()))

        assert "hunter2" not in text
        assert "correct" not in text

    def test_shows_the_one_setting_that_changed_inside_batching(self):
        before, after = (replace(SPEC, settings=f'{{"batching":{{"max_size":{n},"x":1}}}}') for n in (8, 64))

        (change,) = preview(of(before), of(after), Observed())

        assert change.cause.startswith("batching.max_size 8 -> 64; spec ")


class TestTraffic:
    def test_shows_weights_and_labels_before_and_after(self):
        versions = version("iris@1"), version("iris@2")
        before = desired(*versions, traffic={"1": 90, "2": 10}, labels={})
        after = desired(*versions, traffic={"1": 50, "2": 50}, labels={"stable": "2"})

        assert lines(before, after) == [
            "~ iris  traffic 1=90 2=10 -> 1=50 2=50",
            "~ iris  labels none -> stable=2",
        ]


class TestSettingsOfAModel:
    def test_are_shown_before_and_after(self):
        bare = desired(version("iris@1"), version("iris@2"))
        models = {"iris": replace(bare.models["iris"], settings=SETTINGS)}

        assert lines(bare, replace(bare, models=models)) == [
            "~ iris  sticky none -> header:x-user  (no restart)",
            "~ iris  shadow none -> {version: 2, percent: 10, queue_max: 100, tolerance: 0, samples_per_minute: 10}  "
            "(no restart)",
            "~ iris  rate_limit none -> {requests_per_s: 50, burst: 50}  (no restart)",
        ]
        assert lines(replace(bare, models=models), bare)[0] == "~ iris  sticky header:x-user -> none  (no restart)"

    def test_of_a_new_model_are_shown(self):
        bare = desired(version("iris@1"), version("iris@2"))
        models = {"iris": replace(bare.models["iris"], settings=SETTINGS)}

        assert "+ iris  sticky header:x-user  (new model)" in lines(Desired(), replace(bare, models=models))


class TestRender:
    def test_lines_up_the_columns(self):
        changes = (Change("+", "iris@10", "start 1 replica", "new version"), Change("~", "iris", "traffic 1=1 -> 1=2"))

        assert render(changes) == "+ iris@10  start 1 replica  (new version)\n~ iris     traffic 1=1 -> 1=2"

    def test_says_that_nothing_changes(self):
        assert render(()) == "nothing changes"


class TestDigest:
    def test_differs_when_the_plan_differs_though_no_value_is_shown(self):
        before = of(replace(SPEC, env=(("A", "1"),)))

        digests = {digest(preview(before, of(replace(SPEC, env=(("A", n),))), Observed())) for n in ("2", "3")}

        assert len(digests) == 2

    def test_stays_when_a_replica_crashes_between_showing_and_applying(self):
        before = desired(version("iris@1", 2))
        both, one = observed(replica("r1", "iris@1"), replica("r2", "iris@1")), observed(replica("r1", "iris@1"))

        assert digest(preview(before, Desired(), both)) == digest(preview(before, Desired(), one))


class TestScaling:
    def test_says_what_may_be_chosen_now_and_that_nothing_restarts(self) -> None:
        before = desired(version("iris@1", 2, scaling=Scaling(minimum=2, maximum=2)))
        after = desired(version("iris@1", 2, scaling=Scaling(minimum=1, maximum=5, is_capped=True)))

        assert [str(change) for change in preview(before, after, Observed())] == [
            "~ iris@1  change settings, no restart  (scaling.min 2 -> 1; scaling.max 2 -> 5)"
        ]

    def test_says_every_field_by_its_name_in_the_manifest(self) -> None:
        before = desired(version("iris@1", scaling=Scaling(maximum=5)))
        fields_ = Scaling(
            maximum=5, idle_after_s=60, gone_after_s=90.0, schedule=(ScheduledMinimum("0 8 * * *", 2),), worth_s=3,
            latency_s=0.05, percentile=99,
        )  # fmt: skip
        after = desired(version("iris@1", scaling=fields_))

        assert [change.cause for change in preview(before, after, Observed())] == [
            "scaling.idle_after 600s -> 60s; scaling.gone_after none -> 90s; "
            "scaling.schedule [] -> [{cron: 0 8 * * *, minimum: 2, zone: UTC}]; scaling.worth 10 -> 3; "
            "slo.latency_ms none -> 50; slo.percentile 95 -> 99"
        ]

    def test_no_field_of_scaling_is_left_unsaid(self) -> None:
        assert {f.name for f in fields(Scaling)} - SCALING_NAMES.keys() == {"is_capped"}

    def test_a_fixed_count_is_said_once(self) -> None:
        """A revision of an earlier release says of a fixed count only how many run."""
        before = desired(version("iris@1", 2))
        after = desired(version("iris@1", 3, scaling=Scaling(minimum=3, maximum=3)))

        assert [change.sentence for change in preview(before, after, Observed())] == ["start 1 replica"]

    def test_shows_no_password_of_a_prometheus(self) -> None:
        one = desired(version("iris@1"))
        other = replace(one, signals=SignalSource("auto", "http://anna:hush@127.0.0.1:9090"))

        text = render(preview(one, other, Observed()))

        assert "prometheus none -> http://***@127.0.0.1:9090" in text
        assert "hush" not in text

    def test_says_the_limits_of_the_cluster_and_the_source_of_signals(self) -> None:
        one = desired(version("iris@1"))
        other = replace(one, limits=ClusterLimits(max_cpus=8), signals=SignalSource("direct"))

        assert [str(change) for change in preview(one, other, Observed())] == [
            "~ cluster  change settings, no restart  (max_cpus none -> 8)",
            "~ autoscaler  change settings, no restart  (kind auto -> direct)",
        ]
