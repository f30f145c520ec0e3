"""What a managed Prometheus runs with; the real one is in tests/integration/test_observability.py."""

from __future__ import annotations

from pathlib import Path

from orchestrator.adapters.companions.prometheus import PrometheusSettings

SETTINGS = PrometheusSettings(port=9091, retention_s=3600, max_disk_bytes=2**30, control="127.0.0.1:7171")
RECIPE = SETTINGS.recipe(Path("/home"))


def test_its_configuration_asks_this_control_plane_and_brings_the_rules() -> None:
    text = RECIPE.files["prometheus.yml"].decode()

    assert text.count("http://127.0.0.1:7171/prometheus/targets?role=") == 3
    assert "7070" not in "".join(line for line in text.splitlines() if not line.startswith("#"))
    assert set(RECIPE.files) == {"prometheus.yml", "rules/alerts.yml", "rules/requests.yml"}


def test_it_listens_on_loopback_alone_keeps_what_it_may_and_takes_exemplars() -> None:
    assert {
        "--web.listen-address=127.0.0.1:9091",
        "--storage.tsdb.path=/home/data",
        "--storage.tsdb.retention.time=3600s",
        "--storage.tsdb.retention.size=1073741824B",
        "--enable-feature=exemplar-storage",
    } <= set(RECIPE.arguments)
