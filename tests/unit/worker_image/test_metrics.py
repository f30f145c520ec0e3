"""Metrics are Prometheus text that Prometheus' own parser reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from worker_image.server.metrics import Metrics


class TestRender:
    def test_is_read_by_prometheus_own_parser(self) -> None:
        metrics = Metrics('a"b', "1")
        metrics.observe_batch(3, 0.002)
        metrics.observe_response(200, 0.003)

        families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}

        batch = {
            (sample.name, sample.labels.get("le")): sample.value for sample in families["modelfleet_batch_size"].samples
        }
        assert batch["modelfleet_batch_size_bucket", "2"] == 0
        assert batch["modelfleet_batch_size_bucket", "4"] == 1
        assert batch["modelfleet_batch_size_bucket", "+Inf"] == 1
        assert batch["modelfleet_batch_size_sum", None] == 3
        assert families["modelfleet_server_responses"].samples[0].labels == {
            "model": 'a"b',
            "version": "1",
            "code": "200",
        }
