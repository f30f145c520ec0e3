"""*Control plane*: whether what decides is well: its turns, its numbers, its starts, what failed, and the alerts."""

from __future__ import annotations

from scripts.dashboards.frame import REVISIONS, SERIES_PAGE, Board, Section
from scripts.dashboards.look import (
    BAD,
    COUNT,
    GOOD,
    PER_S,
    SECONDS,
    WARN,
    Ask,
    Column,
    Step,
    distribution,
    graph,
    grid,
    link,
    number,
)
from scripts.dashboards.queries import most

CLUSTER = 'cluster="$cluster"'
OF = f'role="control_plane",{CLUSTER}'
TO_MODEL = [link("Open the model", SERIES_PAGE)]
AWAY = "no control plane answers"
# An alert about a control plane that is absent names no cluster.
ALERTS = 'cluster=~"$cluster|"'


def board() -> Board:
    return Board(
        uid="modelfleet-control-plane",
        title="Modelfleet: Control plane",
        says="Reconciliation, decisions, the numbers that they rest on, starts, failures and alerts.",
        sections=[_now(), _turns(), _decisions(), _alerts()],
        marks=[REVISIONS],
    )


def _now() -> Section:
    firing = f'count(ALERTS{{alertstate="firing",{ALERTS}}}) or 0 * max(up{{{CLUSTER}}})'
    slow = f"histogram_quantile(0.99, sum by (le) (rate(modelfleet_reconcile_seconds_bucket{{{OF}}}[5m])))"
    errors = f"sum(increase(modelfleet_engine_errors_total{{{OF}}}[$__range]))"
    failed = f"sum(increase(modelfleet_replica_failures_total{{{OF}}}[$__range]))"
    return Section(
        "Now",
        [
            number(
                "Answers",
                "Whether Prometheus could read it last.",
                Ask(f"max(up{{{OF}}})"),
                unit=COUNT,
                words={"1": ("yes", GOOD), "0": ("no", BAD)},
                empty=AWAY,
            ),
            number(
                "Revision",
                "In force.",
                Ask(f"max(modelfleet_revision{{{OF}}})"),
                unit="none",
                empty="nothing was applied yet",
            ),
            number(
                "Alerts",
                "That fire; they are listed below.",
                Ask(firing),
                unit=COUNT,
                steps=(Step(1, BAD),),
                empty="nothing is scraped",
            ),
            number(
                "Slowest turns",
                "The 99th percentile of one turn of reconciliation, of five minutes.",
                Ask(slow),
                unit=SECONDS,
                steps=(Step(1, WARN), Step(5, BAD)),
                empty="no turn within five minutes",
            ),
            number(
                "Age of the numbers",
                "Of the newest source that the autoscaler reads. From ten seconds on nothing is scaled down.",
                Ask(f"min(modelfleet_signals_age_seconds{{{OF}}})"),
                unit=SECONDS,
                steps=(Step(10, WARN), Step(60, BAD)),
                empty="no numbers yet",
            ),
            number(
                "Failed replicas",
                "Within the time shown.",
                Ask(failed),
                unit=COUNT,
                steps=(Step(1, WARN), Step(10, BAD)),
                empty=AWAY,
                decimals=0,
            ),
            number(
                "Engine errors",
                "Turns within the time shown in which the engine did not answer.",
                Ask(errors),
                unit=COUNT,
                steps=(Step(1, BAD),),
                empty=AWAY,
                decimals=0,
            ),
            number(
                "Replicas",
                "Of all models, in any state.",
                Ask(f"sum(modelfleet_replicas{{{OF}}})"),
                unit=COUNT,
                empty="no replica",
            ),
        ],
    )


def _turns() -> Section:
    buckets = f"sum by (le) (rate(modelfleet_reconcile_seconds_bucket{{{OF}}}[$__rate_interval]))"
    return Section(
        "Reconciliation",
        [
            graph(
                "Length of a turn",
                "Observing, deciding, and beginning to act.",
                *(Ask(f"histogram_quantile({q / 100}, {buckets})", f"p{q}") for q in (50, 95, 99)),
                unit=SECONDS,
                limits=(Step(5, BAD),),
                empty=AWAY,
            ),
            distribution("Turns", "How many took how long.", buckets, SECONDS, empty=AWAY),
            graph(
                "Turns and engine errors",
                "Turns per second; engine errors are those in which the engine did not answer.",
                Ask(f"sum(rate(modelfleet_reconcile_seconds_count{{{OF}}}[$__rate_interval]))", "turns"),
                Ask(f"sum(rate(modelfleet_engine_errors_total{{{OF}}}[$__rate_interval]))", "engine errors"),
                unit=PER_S,
                empty=AWAY,
            ),
        ],
    )


def _decisions() -> Section:
    def by_model(counter: str) -> str:
        series = f"{counter}{{{OF}}}"
        ranked = f"sum by (model) (increase({series}[$__range] @ end()))"
        return most(f"sum by (model) (increase({series}[$__rate_interval]))", ranked)

    def slow(histogram: str) -> str:
        return f"histogram_quantile(0.9, sum by (le) (increase({histogram}_bucket{{{OF}}}[$__range])))"

    decided = f"sum by (direction) (increase(modelfleet_scale_decisions_total{{{OF}}}[$__rate_interval]))"
    return Section(
        "Decisions, starts and failures",
        [
            graph(
                "Scale decisions",
                "Changes of a version's count, of all models.",
                Ask(decided, "{{direction}}"),
                unit=COUNT,
                bars=True,
                stacked=True,
                empty="no version is in force",
            ),
            graph(
                "Age of the numbers",
                "How old the newest numbers of each source are.",
                Ask(f"max by (source) (modelfleet_signals_age_seconds{{{OF}}})", "{{source}}"),
                unit=SECONDS,
                limits=(Step(10, WARN),),
                empty="no numbers yet",
            ),
            graph(
                "Failed replicas by model",
                "Those that ended, hung or did not become ready though they were wanted. The ten models with most.",
                Ask(by_model("modelfleet_replica_failures_total"), "{{model}}"),
                unit=COUNT,
                bars=True,
                stacked=True,
                empty="no version is in force",
                links=TO_MODEL,
            ),
            graph(
                "Starts by model",
                "Replicas that became ready after a start. The ten models with most.",
                Ask(by_model("modelfleet_cold_start_seconds_count"), "{{model}}"),
                unit=COUNT,
                bars=True,
                stacked=True,
                empty="no version is in force",
                links=TO_MODEL,
            ),
            graph(
                "How long starts and wakes take",
                "From the decision to readiness, p90 of the time shown, over all models.",
                Ask(slow("modelfleet_cold_start_seconds"), "start"),
                Ask(slow("modelfleet_wake_seconds"), "wake"),
                unit=SECONDS,
                limits=(Step(60, WARN),),
                empty="no replica started within the time shown",
            ),
            graph(
                "Replica seconds",
                "Replicas that are awake or starting, as they are counted for cost.",
                Ask(f"sum(rate(modelfleet_replica_seconds_total{{{OF}}}[$__rate_interval]))", "replicas"),
                unit=COUNT,
                empty=AWAY,
            ),
        ],
    )


def _alerts() -> Section:
    by = "alertname, severity, alertstate, model, version"
    return Section(
        "Alerts and scraping",
        [
            grid(
                "Alerts",
                "That fire, or are about to (pending).",
                {
                    "alertname": "Alert",
                    "severity": "Severity",
                    "alertstate": "State",
                    "model": "Model",
                    "version": "Version",
                },
                Column("Count", f"sum by ({by}) (ALERTS{{{ALERTS}}})"),
                sort_by="Alert",
                width=12,
                height=8,
                empty="no alert fires",
            ),
            graph(
                "What answers",
                "The share of what there is to scrape that answered, by role.",
                Ask(f"avg by (role) (up{{{CLUSTER}}})", "{{role}}"),
                unit="percentunit",
                width=6,
                empty="nothing is scraped",
            ),
            graph(
                "Series",
                "That were read with the last scrape, by role.",
                Ask(f"sum by (role) (scrape_samples_post_metric_relabeling{{{CLUSTER}}})", "{{role}}"),
                unit=COUNT,
                width=6,
                empty="nothing is scraped",
            ),
            grid(
                "Build",
                "The release that runs.",
                {"instance": "Address", "release": "Release"},
                Column("Up", f"sum by (instance, release) (modelfleet_build_info{{{OF}}})"),
                sort_by="Address",
                width=12,
                height=5,
                empty=AWAY,
            ),
            graph(
                "A scrape of it",
                "How long its page of metrics takes to make and read.",
                Ask(f"max(scrape_duration_seconds{{{OF}}})", "time"),
                unit=SECONDS,
                width=12,
                height=5,
                empty="nothing is scraped",
            ),
        ],
    )
