"""Pieces of PromQL that the dashboards share, and what a panel says where a query finds nothing.

`$__rate_interval`, `$__range`, `$cluster` and the like are put in by Grafana.
"""

from __future__ import annotations

from scripts.dashboards.look import BAD, WARN, Step

# Two hundred lines are no graph: those that had most within the time shown.
MOST = 10
BURN_STEPS = (Step(1, WARN), Step(14.4, BAD))
ERROR_STEPS = (Step(0.01, WARN), Step(0.05, BAD))

NO_REQUESTS = "no requests yet"
NO_OBJECTIVE = "no requests with an objective"
NO_PRICING = "no pricing in the manifest"


def most(by_model: str, ranked_by: str) -> str:
    """Of series by model, those that rank highest. `ranked_by` is the same at every moment shown, or lines would
    break off."""
    return f"{by_model} and on (model) topk({MOST}, {ranked_by})"


def peak(series: str) -> str:
    """The most that it was within the time shown."""
    return f"max_over_time({series}[$__range] @ end())"


def rate(counter: str, labels: str) -> str:
    return f"rate({counter}{{{labels}}}[$__rate_interval])"


def buckets(histogram: str, labels: str, by: str = "") -> str:
    """The buckets of a histogram, over all that `by` does not name; to be put into `histogram_quantile`."""
    return f"sum by ({by}{', ' if by else ''}le) ({rate(histogram + '_bucket', labels)})"


def mean(histogram: str, labels: str, by: str) -> str:
    total, count = rate(histogram + "_sum", labels), rate(histogram + "_count", labels)
    return f"sum by ({by}) ({total}) / (sum by ({by}) ({count}) > 0)"


def in_state(by: str, state: str, labels: str) -> str:
    """How many replicas are in a state. A version that is in force and has none has zero."""
    return (
        f'sum by ({by}) (modelfleet_replicas{{{labels},state="{state}"}}) '
        f"or 0 * sum by ({by}) (modelfleet_replicas_desired{{{labels}}})"
    )
