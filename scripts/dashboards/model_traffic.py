"""The part of *Model* that is about requests: their number, latency, and canary beside stable."""

from __future__ import annotations

from grafana_foundation_sdk.builders import timeseries

from scripts.dashboards.frame import Section
from scripts.dashboards.look import (
    BAD,
    COUNT,
    PER_S,
    RATIO,
    REQUESTS_PER_S,
    SECONDS,
    WARN,
    Ask,
    Step,
    distribution,
    graph,
)
from scripts.dashboards.model_labels import (
    AT_GATEWAY,
    BURN_1H,
    BY,
    MODEL,
    OBJECTIVE,
    OF,
)
from scripts.dashboards.queries import (
    BURN_STEPS,
    NO_OBJECTIVE,
    NO_REQUESTS,
    buckets,
    rate,
)


def traffic() -> Section:
    answers = f"{BY} ({rate('modelfleet_requests_total', AT_GATEWAY)})"
    any_version = f'role="gateway",{MODEL},version=~"$version|"'
    failed = rate("modelfleet_requests_total", AT_GATEWAY + ',code=~"5.."')
    refused = f"sum by (reason) ({rate('modelfleet_shed_total', any_version)})"
    again = [
        Ask(f"sum by (reason) ({rate('modelfleet_retries_total', AT_GATEWAY)})", "sent again: {{reason}}"),
        Ask(f"sum by (reason) ({rate('modelfleet_ejections_total', AT_GATEWAY)})", "taken out: {{reason}}"),
    ]
    return Section(
        "Traffic",
        [
            graph(
                "Requests by version",
                "Answered requests per second.",
                Ask(answers, "{{version}}"),
                unit=REQUESTS_PER_S,
                width=6,
                stacked=True,
                empty=NO_REQUESTS,
            ),
            graph(
                "Traffic split",
                "The share of the requests that each version answered.",
                Ask(answers, "{{version}}"),
                unit=REQUESTS_PER_S,
                width=6,
                as_shares=True,
                empty=NO_REQUESTS,
            ),
            graph(
                "Errors by version",
                "The share of the requests that were answered 5xx. From 5 % on an alert fires.",
                Ask(f"({BY} ({failed}) or 0 * {answers}) / ({answers} > 0)", "{{version}}"),
                unit=RATIO,
                width=6,
                limits=(Step(0.05, BAD),),
                empty=NO_REQUESTS,
            ),
            graph(
                "Answers by status",
                "499: the client left.",
                Ask(f"sum by (code) ({rate('modelfleet_requests_total', AT_GATEWAY)})", "{{code}}"),
                unit=REQUESTS_PER_S,
                width=6,
                stacked=True,
                empty=NO_REQUESTS,
            ),
            graph(
                "Waiting requests",
                "Requests that wait for a free slot, and those inside replicas.",
                Ask(f"{BY} (modelfleet_queued{{{AT_GATEWAY}}})", "{{version}} waiting"),
                Ask(f"{BY} (modelfleet_inflight{{{AT_GATEWAY}}})", "{{version}} inside"),
                unit=COUNT,
                empty=NO_REQUESTS,
            ),
            graph(
                "Refused",
                "Requests that the gateway refused, by reason: the queue was full, their time ran out in it, no "
                "replica was ready, a rate limit.",
                Ask(refused, "{{reason}}"),
                unit=REQUESTS_PER_S,
                stacked=True,
                empty="nothing was refused",
            ),
            graph(
                "Sent again and taken out",
                "Requests that went to a second replica, and replicas that were ejected.",
                *again,
                unit=PER_S,
                empty="nothing was sent again, no replica was ejected",
            ),
        ],
    )


def latency() -> Section:
    whole = "modelfleet_request_seconds"
    answered = f"sum({rate(whole + '_count', AT_GATEWAY)})"
    queue = f"(sum({rate('modelfleet_queue_seconds_sum', AT_GATEWAY)}) / ({answered} > 0))"
    inside = f"(sum({rate('modelfleet_model_seconds_sum', AT_GATEWAY)}) / ({answered} > 0))"
    all_of_it = f"(sum({rate(whole + '_sum', AT_GATEWAY)}) / ({answered} > 0))"
    parts = [
        Ask(queue, "waiting for a slot"),
        Ask(inside, "in the model"),
        Ask(f"clamp_min({all_of_it} - {queue} - {inside}, 0)", "in the gateway"),
    ]
    return Section(
        "Latency",
        [
            *(_percentile(q, "modelfleet_request_seconds", "from arrival to the last byte") for q in (50, 95, 99)),
            graph(
                "Where the time goes",
                "The mean of a request by what it was spent on: waiting for a slot, inside a replica, "
                "and the rest (reading, sending, the client's own pace).",
                *parts,
                unit=SECONDS,
                stacked=True,
                empty=NO_REQUESTS,
            ),
            graph(
                "Wait in the queue, p95",
                "Of the requests that had to wait.",
                Ask(
                    f"histogram_quantile(0.95, {buckets('modelfleet_queue_seconds', AT_GATEWAY, 'version')})",
                    "{{version}}",
                ),
                unit=SECONDS,
                empty="no request had to wait",
            ),
            graph(
                "Time in the model, p95",
                "Inside a replica, batching and waiting for its batch with it.",
                Ask(
                    f"histogram_quantile(0.95, {buckets('modelfleet_model_seconds', AT_GATEWAY, 'version')})",
                    "{{version}}",
                ),
                unit=SECONDS,
                empty=NO_REQUESTS,
            ),
            distribution(
                "Latency, all of it",
                "How many requests took how long.",
                buckets(whole, AT_GATEWAY),
                SECONDS,
                width=12,
                empty=NO_REQUESTS,
            ),
            graph(
                "Burn of the error budget",
                "The share of late and failed requests as a multiple of what the objective "
                "allows, over five minutes and over an hour. At 1 the budget lasts; at 14.4 in both somebody is paged.",
                Ask(f"max by (version) (model_version:modelfleet_slo_burn:rate5m{{{OF}}})", "{{version}} 5 m"),
                Ask(f"max by (version) ({BURN_1H})", "{{version}} 1 h"),
                unit=COUNT,
                width=12,
                limits=BURN_STEPS,
                empty=NO_OBJECTIVE,
            ),
        ],
    )


def _percentile(q: int, histogram: str, what: str) -> timeseries.Panel:
    return graph(
        f"Latency p{q}",
        f"The {q}th percentile {what}, beside the latency objective.",
        Ask(
            f"histogram_quantile({q / 100}, {buckets(histogram, AT_GATEWAY, 'version')})",
            "{{version}}",
            exemplars=q > 90,
        ),
        Ask(f"max by (version) ({OBJECTIVE})", "objective of {{version}}", dashed=True),
        unit=SECONDS,
        empty=NO_REQUESTS,
    )


def canary() -> Section:
    """The same three panels for two versions, the axes as they come: a canary has less traffic."""
    panels = []
    for role in ("stable", "canary"):
        labels = f'role="gateway",{MODEL},version="${role}"'
        answers = f"sum by (code) ({rate('modelfleet_requests_total', labels)})"
        counts = buckets("modelfleet_request_seconds", labels)
        objective = f'max(modelfleet_slo_latency_seconds{{{MODEL},version="${role}"}})'
        panels.append(
            (
                graph(
                    f"Answers of ${role} ({role})",
                    f"By status, of the version that is chosen as {role}.",
                    Ask(answers, "{{code}}"),
                    unit=REQUESTS_PER_S,
                    width=12,
                    stacked=True,
                    empty=NO_REQUESTS,
                ),
                graph(
                    f"Latency of ${role} ({role})",
                    f"Of the version that is chosen as {role}, beside its objective.",
                    *(Ask(f"histogram_quantile({q / 100}, {counts})", f"p{q}") for q in (50, 95, 99)),
                    Ask(objective, "objective", dashed=True),
                    unit=SECONDS,
                    width=12,
                    empty=NO_REQUESTS,
                ),
            )
        )
    (stable_answers, stable_latency), (canary_answers, canary_latency) = panels
    return Section(
        "Canary against stable", [stable_answers, canary_answers, stable_latency, canary_latency, *_compared()]
    )


def _compared() -> list[timeseries.Panel]:
    """The canary as a multiple of stable: above the line it is worse."""

    def of(role: str, q: float) -> str:
        labels = f'role="gateway",{MODEL},version="${role}"'
        return f"histogram_quantile({q}, {buckets('modelfleet_request_seconds', labels)})"

    def errors(role: str) -> str:
        labels = f'role="gateway",{MODEL},version="${role}"'
        answered = f"sum({rate('modelfleet_requests_total', labels)})"
        failed = rate("modelfleet_requests_total", labels + ',code=~"5.."')
        return f"(sum({failed}) or 0 * {answered}) / ({answered} > 0)"

    return [
        graph(
            "Latency of the canary by that of stable",
            "Above 1 the canary is slower.",
            *(Ask(f"{of('canary', q / 100)} / {of('stable', q / 100)}", f"p{q}") for q in (50, 95, 99)),
            unit=COUNT,
            width=12,
            limits=(Step(1, WARN),),
            empty=NO_REQUESTS,
        ),
        graph(
            "Errors",
            "The share of the requests of each that were answered 5xx.",
            Ask(errors("stable"), "stable $stable"),
            Ask(errors("canary"), "canary $canary"),
            unit=RATIO,
            width=12,
            limits=(Step(0.05, BAD),),
            empty=NO_REQUESTS,
        ),
    ]
