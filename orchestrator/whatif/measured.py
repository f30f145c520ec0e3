"""A version's service times as a gateway's metrics page tells them. Pure: text in, a distribution out."""

from __future__ import annotations

import re

from orchestrator.core.scaling.distributions import Service, scaled

_BUCKET = re.compile(r'^modelfleet_model_seconds_bucket\{(.*),?le="([^"]+)"\} (\S+)$', re.MULTILINE)
_SUM = re.compile(r"^modelfleet_model_seconds_sum\{(.*)\} (\S+)$", re.MULTILINE)


def service_times(page: str, model: str, version: str) -> Service | None:
    """None while the gateway has answered nothing of this version."""
    wanted = {f'model="{model}"', f'version="{version}"'}
    buckets = [(float(le), float(n)) for labels, le, n in _BUCKET.findall(page) if _labels(labels) == wanted]
    totals = [float(total) for labels, total in _SUM.findall(page) if _labels(labels) == wanted]
    if not buckets or not totals or buckets[-1][1] <= 0 or totals[0] <= 0:
        return None
    rough = Service.of_histogram([bound for bound, _ in buckets], [count for _, count in buckets])
    return scaled(rough, totals[0] / buckets[-1][1])


def _labels(text: str) -> set[str]:
    return {each for each in text.split(",") if each}
