"""*Fleet*: whether all models are well, which are not, and what they cost. A model's name leads to its own page."""

from __future__ import annotations

from scripts.dashboards.frame import CELL_PAGE, REVISIONS, SERIES_PAGE, Board, Section
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
    graph,
    grid,
    link,
    number,
    ranking,
)
from scripts.dashboards.queries import (
    BURN_STEPS,
    ERROR_STEPS,
    MOST,
    NO_OBJECTIVE,
    NO_PRICING,
    NO_REQUESTS,
    in_state,
    most,
    peak,
)

OF = 'cluster="$cluster"'
AT_GATEWAY = f'role="gateway",{OF},model!=""'
REQUESTS = f"model_version:modelfleet_requests:rate5m{{{OF}}}"
ERRORS = f"model_version:modelfleet_request_errors:rate5m{{{OF}}}"
BURN_1H = f"model_version:modelfleet_slo_burn:rate1h{{{OF}}}"
QUEUED = f"model_version:modelfleet_queued:sum{{{OF}}}"
TO_MODEL = [link("Open the model", SERIES_PAGE)]


def board() -> Board:
    return Board(
        uid="modelfleet-fleet",
        title="Modelfleet: Fleet",
        says="All models of a cluster: traffic, errors, latency against the objectives, replicas, queues and cost.",
        sections=[_now(), _traffic(), _replicas(), _top(), _models(), _cost()],
        marks=[REVISIONS],
    )


def _now() -> Section:
    requests = f"sum({REQUESTS})"
    errors = f"(sum({ERRORS}) or 0 * {requests}) / ({requests} > 0)"
    replicas = [
        Ask(in_state("", "ready", OF), "ready"),
        Ask(f"sum(modelfleet_replicas_desired{{{OF}}})", "desired"),
        Ask(in_state("", "standby", OF), "standby"),
    ]
    alerts = f'count(ALERTS{{alertstate="firing",cluster=~"$cluster|"}}) or 0 * max(up{{{OF}}})'
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
                "Worst burn",
                "How fast the version that misses its objective most spends its error budget, over an "
                "hour. At 1 the budget lasts as long as it should; 14.4 alerts.",
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
                width=6,
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
            number(
                "Alerts",
                "Alerts that fire. The dashboard Control plane lists them.",
                Ask(alerts),
                unit=COUNT,
                steps=(Step(1, BAD),),
                empty="nothing is scraped",
            ),
        ],
    )


def _traffic() -> Section:
    rate = f"sum by (model) (rate(modelfleet_requests_total{{{AT_GATEWAY}}}[$__rate_interval]))"
    total = f"sum by (model) (increase(modelfleet_requests_total{{{AT_GATEWAY}}}[$__range] @ end()))"
    failed = f'modelfleet_requests_total{{{AT_GATEWAY},code=~"5.."}}'
    error_rate = f"(sum by (model) (rate({failed}[$__rate_interval])) or 0 * {rate}) / ({rate} > 0)"
    error_total = f"(sum by (model) (increase({failed}[$__range] @ end())) or 0 * {total})"
    buckets = f"sum by (le) (model_version_le:modelfleet_request_seconds_bucket:rate5m{{{OF}}})"
    objective = f"max by (cluster, model, version) (modelfleet_slo_latency_seconds{{{OF}}})"
    p95 = f"model_version:modelfleet_request_seconds:p95_5m{{{OF}}}"
    against = f"max by (model) ({p95} / on (cluster, model, version) {objective})"
    worst_against = f"max by (model) ({peak(p95)} / on (cluster, model, version) {objective})"
    return Section(
        "Traffic and latency",
        [
            graph(
                "Requests by model",
                f"Answered requests per second. The {MOST} models with most requests.",
                Ask(most(rate, total), "{{model}}"),
                unit=REQUESTS_PER_S,
                stacked=True,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            graph(
                "Errors by model",
                f"The share of a model's requests that were answered 5xx. The {MOST} models with most of them.",
                Ask(most(error_rate, error_total), "{{model}}"),
                unit=RATIO,
                limits=(Step(0.05, BAD),),
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            graph(
                "Answers by status",
                "Of all models. 499: the client left. Those that belong to no model are on the dashboard Gateway.",
                Ask(f"sum by (code) (rate(modelfleet_requests_total{{{AT_GATEWAY}}}[$__rate_interval]))", "{{code}}"),
                unit=REQUESTS_PER_S,
                stacked=True,
                empty=NO_REQUESTS,
            ),
            graph(
                "Latency of all requests",
                "From arrival to the last byte, of all models in five minutes, beside the tightest objective of any.",
                *(Ask(f"histogram_quantile({q / 100}, {buckets})", f"p{q}") for q in (50, 95, 99)),
                Ask(f"min({objective})", "tightest objective", dashed=True),
                unit=SECONDS,
                empty=NO_REQUESTS,
            ),
            graph(
                "p95 against the objective",
                "The 95th percentile of latency as a share of the latency objective, a "
                f"model's worst version. Above the line is too slow. The {MOST} that came nearest.",
                Ask(most(against, worst_against), "{{model}}"),
                unit=RATIO,
                limits=(Step(1, BAD),),
                empty=NO_OBJECTIVE,
                links=TO_MODEL,
            ),
            graph(
                "Burn of the error budget",
                "The share of late and failed requests over an hour, as a multiple of what "
                "the objective allows, a model's worst version. At 1 the budget lasts; at 14.4 somebody is paged. "
                f"The {MOST} that burnt most.",
                Ask(most(f"max by (model) ({BURN_1H})", f"max by (model) ({peak(BURN_1H)})"), "{{model}}"),
                unit=COUNT,
                limits=BURN_STEPS,
                empty=NO_OBJECTIVE,
                links=TO_MODEL,
            ),
        ],
    )


def _replicas() -> Section:
    oldest = f"modelfleet_queue_oldest_seconds{{{AT_GATEWAY}}}"
    return Section(
        "Replicas and queues",
        [
            graph(
                "Replicas by state",
                "Of all models. Standby: loaded and paused. Desired: those that should be awake.",
                Ask(f"sum by (state) (modelfleet_replicas{{{OF}}})", "{{state}}"),
                Ask(f"sum(modelfleet_replicas_desired{{{OF}}})", "desired", dashed=True),
                unit=COUNT,
                stacked=True,
                empty="no replica",
            ),
            graph(
                "Waiting requests",
                f"Requests that wait for a free slot. The {MOST} models where most waited.",
                Ask(most(f"sum by (model) ({QUEUED})", f"sum by (model) ({peak(QUEUED)})"), "{{model}}"),
                unit=COUNT,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            graph(
                "Longest wait",
                f"How long the first in a queue has waited. The {MOST} models where it waited longest.",
                Ask(most(f"max by (model) ({oldest})", f"max by (model) ({peak(oldest)})"), "{{model}}"),
                unit=SECONDS,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
        ],
    )


def _top() -> Section:
    total = f"sum by (model) (increase(modelfleet_requests_total{{{AT_GATEWAY}}}[$__range]))"
    cost = f"sum by (model) (increase(modelfleet_cost_total{{{OF}}}[$__range]))"
    return Section(
        "Top models",
        [
            ranking(
                "By requests",
                "Requests within the time shown.",
                Ask(f"sort_desc(topk({MOST}, {total}))", "{{model}}"),
                unit=COUNT,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            ranking(
                "By burn of the error budget",
                "Burn over the last hour, a model's worst version.",
                Ask(f"sort_desc(topk({MOST}, max by (model) ({BURN_1H})))", "{{model}}"),
                unit=COUNT,
                steps=BURN_STEPS,
                empty=NO_OBJECTIVE,
                links=TO_MODEL,
            ),
            ranking(
                "By cost",
                "What it cost within the time shown.",
                Ask(f"sort_desc(topk({MOST}, {cost}))", "{{model}}"),
                unit=MONEY,
                empty=NO_PRICING,
                links=TO_MODEL,
            ),
        ],
    )


def _models() -> Section:
    by = "sum by (model, version)"
    latency = "model_version:modelfleet_request_seconds:p"
    return Section(
        "All models",
        [
            grid(
                "Versions",
                "Each version now. Rates and latencies are of the last five minutes, the burn of an hour. A "
                "click on a model opens its page.",
                {"model": "Model", "version": "Version"},
                Column("Requests/s", f"{by} ({REQUESTS})", REQUESTS_PER_S),
                Column(
                    "Errors",
                    f"({by} ({ERRORS}) or 0 * {by} ({REQUESTS})) / ({by} ({REQUESTS}) > 0)",
                    RATIO,
                    ERROR_STEPS,
                ),
                Column("p50", f"{by} ({latency}50_5m{{{OF}}})", SECONDS),
                Column("p95", f"{by} ({latency}95_5m{{{OF}}})", SECONDS),
                Column("p99", f"{by} ({latency}99_5m{{{OF}}})", SECONDS),
                Column("Objective", f"max by (model, version) (modelfleet_slo_latency_seconds{{{OF}}})", SECONDS),
                Column("Burn 1 h", f"max by (model, version) ({BURN_1H})", COUNT, BURN_STEPS, 2),
                Column("Ready", in_state("model, version", "ready", OF)),
                Column("Desired", f"{by} (modelfleet_replicas_desired{{{OF}}})"),
                Column("Standby", in_state("model, version", "standby", OF)),
                Column("Waiting", f"{by} ({QUEUED})"),
                Column("Cost/h", f"{by} (modelfleet_cost_per_hour{{{OF}}})", MONEY, (), 2),
                sort_by="Requests/s",
                empty="no model is in force",
                links={"Model": link("Open the model", CELL_PAGE)},
            ),
        ],
    )


def _cost() -> Section:
    cost = f"sum by (model) (modelfleet_cost_per_hour{{{OF}}})"
    spent = f"sum by (model) (increase(modelfleet_cost_total{{{OF}}}[$__range] @ end()))"
    rate = f"sum(rate(modelfleet_cost_total{{{OF}}}[$__rate_interval]))"
    idle = f"sum(rate(modelfleet_idle_cost_total{{{OF}}}[$__rate_interval]))"
    answered = f"sum(rate(modelfleet_requests_total{{{AT_GATEWAY}}}[$__rate_interval]))"
    return Section(
        "Cost",
        [
            graph(
                "Cost per hour by model",
                f"What runs, at the manifest's prices. The {MOST} models that cost most.",
                Ask(most(cost, spent), "{{model}}"),
                unit=MONEY,
                stacked=True,
                empty=NO_PRICING,
                links=TO_MODEL,
            ),
            graph(
                "Idle share",
                "The part of the cost that no request used.",
                Ask(f"{idle} / ({rate} > 0)", "idle"),
                unit=RATIO,
                empty=NO_PRICING,
            ),
            graph(
                "Cost per 1,000 requests",
                "Of all models together.",
                Ask(f"1000 * {rate} / ({answered} > 0)", "all models"),
                unit=MONEY,
                empty=NO_PRICING,
            ),
        ],
    )
