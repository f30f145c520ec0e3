"""*Model*: one model by version: canary beside stable, where time goes, what was decided, started and used for it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard

from scripts.dashboards import model_replicas, model_traffic
from scripts.dashboards.frame import DECISIONS, REVISIONS, ROLLOUTS, Board, Section, choice
from scripts.dashboards.look import (
    BAD,
    COUNT,
    MONEY,
    RATIO,
    REQUESTS_PER_S,
    SECONDS,
    WARN,
    Ask,
    Column,
    Step,
    grid,
    number,
)
from scripts.dashboards.model_labels import (
    BURN_1H,
    BY,
    ERRORS,
    MODEL,
    OBJECTIVE,
    OF,
    QUEUED,
    REQUESTS,
)
from scripts.dashboards.queries import (
    BURN_STEPS,
    ERROR_STEPS,
    NO_OBJECTIVE,
    NO_PRICING,
    NO_REQUESTS,
    in_state,
)


def board() -> Board:
    return Board(
        uid="modelfleet-model",
        title="Modelfleet: Model",
        says="One model by version: traffic, latency, queue, scaling, batches, resources, shadow and cost.",
        sections=[
            _now(),
            _versions(),
            model_traffic.traffic(),
            model_traffic.latency(),
            model_traffic.canary(),
            model_replicas.scaling(),
            model_replicas.starts(),
            model_replicas.batches(),
            model_replicas.resources(),
            model_replicas.shadow(),
            model_replicas.cost(),
        ],
        variables=[
            choice("model", "Model", 'label_values(modelfleet_replicas_desired{cluster="$cluster"}, model)'),
            choice(
                "version", "Version", f"label_values(modelfleet_replicas_desired{{{MODEL}}}, version)", several=True
            ),
            _by_traffic("stable", "Stable", "sort_desc"),
            _by_traffic("canary", "Canary", "sort"),
        ],
        marks=[DECISIONS, REVISIONS, ROLLOUTS],
    )


def _by_traffic(name: str, label: str, order: str) -> dashboard.QueryVariable:
    """A version that has the most requests, or the least, unless another is chosen."""
    counted = f'sum by (version) (increase(modelfleet_requests_total{{role="gateway",{MODEL}}}[$__range]))'
    return choice(name, label, f"query_result({order}({counted}))", regex='/version="([^"]*)"/', keeps_order=True)


def _now() -> Section:
    requests = f"sum({REQUESTS})"
    errors = f"(sum({ERRORS}) or 0 * {requests}) / ({requests} > 0)"
    p95 = f"histogram_quantile(0.95, sum by (le) (model_version_le:modelfleet_request_seconds_bucket:rate5m{{{OF}}}))"
    wanted = f"sum(modelfleet_replicas_desired{{{OF}}})"
    replicas = [
        Ask(in_state("", "ready", OF), "ready"),
        Ask(wanted, "desired"),
        Ask(in_state("", "standby", OF), "standby"),
    ]
    return Section(
        "Now",
        [
            number(
                "Requests",
                "Answered requests per second, mean of five minutes.",
                Ask(requests),
                unit=REQUESTS_PER_S,
                empty=NO_REQUESTS,
            ),
            number(
                "Errors",
                "The share of requests that were answered 5xx, of the last five minutes.",
                Ask(errors),
                unit=RATIO,
                steps=ERROR_STEPS,
                empty="no requests",
            ),
            number(
                "p95 and objective",
                "The 95th percentile of latency over five minutes, and the tightest latency "
                "objective of the chosen versions.",
                Ask(p95, "p95"),
                Ask(f"min({OBJECTIVE})", "objective"),
                unit=SECONDS,
                width=4,
                empty=NO_REQUESTS,
            ),
            number(
                "Burn",
                "How fast the version that misses its objective most spends its error budget, over an hour. At 1 "
                "the budget lasts as long as it should; 14.4 alerts.",
                Ask(f"max({BURN_1H})"),
                unit=COUNT,
                steps=BURN_STEPS,
                empty=NO_OBJECTIVE,
                decimals=2,
            ),
            number(
                "Replicas",
                "Replicas that may take requests, that should be awake, and that stand by paused.",
                *replicas,
                unit=COUNT,
                width=5,
                empty="no control plane",
            ),
            number(
                "Waiting",
                "Requests that wait for a free slot in a replica.",
                Ask(f"sum({QUEUED})"),
                unit=COUNT,
                steps=(Step(10, WARN), Step(100, BAD)),
                empty=NO_REQUESTS,
            ),
            number(
                "Cost per hour",
                "What runs now, at the manifest's prices.",
                Ask(f"sum(modelfleet_cost_per_hour{{{OF}}})"),
                unit=MONEY,
                empty=NO_PRICING,
                decimals=2,
            ),
        ],
    )


def _versions() -> Section:
    latency = "model_version:modelfleet_request_seconds:p"
    return Section(
        "Versions side by side",
        [
            grid(
                "Versions",
                "Rates and latencies of the last five minutes, the burn of an hour. Share: of the requests of "
                "the chosen versions.",
                {"version": "Version"},
                Column("Share", f"{BY} ({REQUESTS}) / on () group_left () (sum({REQUESTS}) > 0)", RATIO),
                Column("Requests/s", f"{BY} ({REQUESTS})", REQUESTS_PER_S),
                Column(
                    "Errors",
                    f"({BY} ({ERRORS}) or 0 * {BY} ({REQUESTS})) / ({BY} ({REQUESTS}) > 0)",
                    RATIO,
                    ERROR_STEPS,
                ),
                Column("p50", f"{BY} ({latency}50_5m{{{OF}}})", SECONDS),
                Column("p95", f"{BY} ({latency}95_5m{{{OF}}})", SECONDS),
                Column("p99", f"{BY} ({latency}99_5m{{{OF}}})", SECONDS),
                Column("Objective", f"max by (version) ({OBJECTIVE})", SECONDS),
                Column("Burn 1 h", f"max by (version) ({BURN_1H})", COUNT, BURN_STEPS, 2),
                Column("Ready", in_state("version", "ready", OF)),
                Column("Desired", f"{BY} (modelfleet_replicas_desired{{{OF}}})"),
                Column("Most", f"max by (version) (modelfleet_replicas_max{{{OF}}})"),
                Column("Waiting", f"{BY} ({QUEUED})"),
                Column("Cost/h", f"{BY} (modelfleet_cost_per_hour{{{OF}}})", MONEY, (), 2),
                sort_by="Share",
                height=6,
                empty="no version is in force",
            ),
        ],
    )
