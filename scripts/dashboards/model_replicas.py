"""The part of *Model* that is about its replicas: decisions, starts, batches, what they use, shadow and cost."""

from __future__ import annotations

from scripts.dashboards.frame import Section
from scripts.dashboards.look import (
    BYTES,
    COUNT,
    MONEY,
    PER_S,
    RATIO,
    SECONDS,
    Ask,
    distribution,
    graph,
)
from scripts.dashboards.model_labels import (
    AT_GATEWAY,
    AT_REPLICAS,
    BY,
    OF,
)
from scripts.dashboards.queries import (
    NO_PRICING,
    buckets,
    mean,
    rate,
)

NO_BATCHES = "no batches: replicas are away, or of an image of one's own"


def scaling() -> Section:
    decided = f"sum by (version, direction) (increase(modelfleet_scale_decisions_total{{{OF}}}[$__rate_interval]))"
    return Section(
        "Replicas and decisions",
        [
            graph(
                "Replicas by state",
                "Of the chosen versions. Standby: loaded and paused. Desired: those that should be awake.",
                Ask(f"sum by (state) (modelfleet_replicas{{{OF}}})", "{{state}}"),
                Ask(f"sum(modelfleet_replicas_desired{{{OF}}})", "desired", dashed=True),
                unit=COUNT,
                stacked=True,
                empty="no replica",
            ),
            graph(
                "Desired by version",
                "What the load, a hand or the manifest chose, below the most that may be.",
                Ask(f"{BY} (modelfleet_replicas_desired{{{OF}}})", "{{version}}"),
                Ask(f"max by (version) (modelfleet_replicas_max{{{OF}}})", "most of {{version}}", dashed=True),
                unit=COUNT,
                empty="no version is in force",
            ),
            graph(
                "Scale decisions",
                "Changes of a version's count. `modelfleet autoscale explain` has the reasons.",
                Ask(decided, "{{version}} {{direction}}"),
                unit=COUNT,
                bars=True,
                empty="no decision yet",
            ),
        ],
    )


def starts() -> Section:
    cold, woken = "modelfleet_cold_start_seconds", "modelfleet_wake_seconds"
    window = "[$__range]"
    cold_buckets = f"sum by (version, le) (increase({cold}_bucket{{{OF}}}{window}))"
    wake_buckets = f"sum by (version, le) (increase({woken}_bucket{{{OF}}}{window}))"
    return Section(
        "Starts",
        [
            graph(
                "Starts and wakes",
                "Replicas that became ready after a start, and those that were woken from standby.",
                Ask(f"{BY} (increase({cold}_count{{{OF}}}[$__rate_interval]))", "{{version}} started"),
                Ask(f"{BY} (increase({woken}_count{{{OF}}}[$__rate_interval]))", "{{version}} woken"),
                unit=COUNT,
                width=6,
                bars=True,
                empty="no replica started",
            ),
            graph(
                "How long a start takes",
                "From the decision to the first readiness, p90 of the time shown.",
                Ask(f"histogram_quantile(0.9, {cold_buckets})", "{{version}} start"),
                Ask(f"histogram_quantile(0.9, {wake_buckets})", "{{version}} wake"),
                unit=SECONDS,
                width=6,
                empty="no replica started within the time shown",
            ),
            graph(
                "What a start is spent on",
                "By phase, of the replicas that run: the longest of each.",
                Ask(
                    f"max by (version, phase) (modelfleet_server_load_seconds{{{AT_REPLICAS}}})",
                    "{{version}} {{phase}}",
                ),
                unit=SECONDS,
                width=6,
                empty="replicas are away, or of an image of one's own",
            ),
            graph(
                "Failed replicas",
                "Those that ended, hung or did not become ready though they were wanted.",
                Ask(f"{BY} (increase(modelfleet_replica_failures_total{{{OF}}}[$__rate_interval]))", "{{version}}"),
                unit=COUNT,
                width=6,
                bars=True,
                empty="no version is in force",
            ),
        ],
    )


def batches() -> Section:
    size, predict = "modelfleet_batch_size", "modelfleet_server_predict_seconds"
    asked = rate("modelfleet_server_cache_requests_total", AT_REPLICAS)
    saved = rate("modelfleet_server_cache_requests_total", AT_REPLICAS + ',outcome!="miss"')
    return Section(
        "Batches, streams and cache",
        [
            graph(
                "Rows of a batch",
                "Predicted together: the mean, beside the most that the next batch may have.",
                Ask(mean(size, AT_REPLICAS, "version"), "{{version}}"),
                Ask(
                    f"max by (version) (modelfleet_server_batch_limit{{{AT_REPLICAS}}})",
                    "most of {{version}}",
                    dashed=True,
                ),
                unit=COUNT,
                width=6,
                empty=NO_BATCHES,
            ),
            distribution(
                "Batch sizes",
                "How many batches had how many rows.",
                buckets(size, AT_REPLICAS),
                COUNT,
                width=6,
                empty=NO_BATCHES,
            ),
            graph(
                "One call of the model, p95",
                "A whole batch.",
                Ask(f"histogram_quantile(0.95, {buckets(predict, AT_REPLICAS, 'version')})", "{{version}}"),
                unit=SECONDS,
                width=6,
                empty=NO_BATCHES,
            ),
            graph(
                "What batches reach",
                "Rows per second by the size of the batch, as the server learned it.",
                Ask(
                    f"max by (version, rows) (modelfleet_server_batch_rows_per_second{{{AT_REPLICAS}}})",
                    "{{version}}: {{rows}} rows",
                ),
                unit=PER_S,
                width=6,
                empty="no batching in the manifest",
            ),
            graph(
                "Answers from the cache",
                "The share of the requests that were answered from memory, or by another's computation.",
                Ask(f"{BY} ({saved}) / ({BY} ({asked}) > 0)", "{{version}}"),
                unit=RATIO,
                width=12,
                empty="no cache in the manifest",
            ),
            graph(
                "Open streams",
                "Streams that are open now, and answers a second that they give.",
                Ask(f"{BY} (modelfleet_server_streams{{{AT_REPLICAS}}})", "{{version}} open"),
                Ask(f"{BY} ({rate('modelfleet_server_stream_answers_total', AT_REPLICAS)})", "{{version}} answers/s"),
                unit=COUNT,
                width=12,
                empty="the model has no streams",
            ),
        ],
    )


def resources() -> Section:
    cpu, memory = "modelfleet_replica_cpu", "modelfleet_replica_memory"
    throttled = rate(cpu + "_throttled_seconds_total", OF)
    return Section(
        "CPU and memory",
        [
            graph(
                "CPU by replica",
                "Cores that each replica uses, beside the limit of one.",
                Ask(f"sum by (replica) ({rate(cpu + '_seconds_total', OF)})", "{{replica}}"),
                Ask(f"max by (version) ({cpu}_limit_cores{{{OF}}})", "limit of {{version}}", dashed=True),
                unit=COUNT,
                width=6,
                empty="the engine says nothing of CPU",
            ),
            graph(
                "Throttled",
                "The share of the time in which the engine held a replica back because it was at its CPU limit, "
                "summed over its threads.",
                Ask(f"sum by (replica) ({throttled})", "{{replica}}"),
                unit=RATIO,
                width=6,
                empty="the engine sets no CPU limit (process), or holds nobody back",
            ),
            graph(
                "Memory by replica",
                "What each replica needs, without what could be dropped, beside the limit of one.",
                Ask(f"sum by (replica) ({memory}_bytes{{{OF}}})", "{{replica}}"),
                Ask(f"max by (version) ({memory}_limit_bytes{{{OF}}})", "limit of {{version}}", dashed=True),
                unit=BYTES,
                width=6,
                empty="the engine says nothing of memory",
            ),
            graph(
                "Killed for memory",
                "Replicas, or processes in them, that were killed because they were out of memory.",
                Ask(f"{BY} (increase(modelfleet_oom_kills_total{{{OF}}}[$__rate_interval]))", "{{version}}"),
                unit=COUNT,
                width=6,
                bars=True,
                empty="none was killed",
            ),
        ],
    )


def shadow() -> Section:
    results = f"sum by (result) ({rate('modelfleet_shadow_total', AT_GATEWAY)})"
    compared = f"{BY} ({rate('modelfleet_shadow_total', AT_GATEWAY)})"
    different = rate("modelfleet_shadow_total", AT_GATEWAY + ',result="different"')
    lost = [
        Ask(f"sum by (reason) ({rate('modelfleet_shadow_dropped_total', AT_GATEWAY)})", "dropped: {{reason}}"),
        Ask(f"sum by (reason) ({rate('modelfleet_shadow_failed_total', AT_GATEWAY)})", "failed: {{reason}}"),
    ]
    none = "no version is a shadow"
    return Section(
        "Shadow",
        [
            graph(
                "Copies by result",
                "What became of the two answers.",
                Ask(results, "{{result}}"),
                unit=PER_S,
                width=6,
                stacked=True,
                empty=none,
            ),
            graph(
                "Differences",
                "The share of the compared copies whose answer differed from the live one. Some of them are "
                "in the file of shadow samples.",
                Ask(f"({BY} ({different}) or 0 * {compared}) / ({compared} > 0)", "{{version}}"),
                unit=RATIO,
                width=6,
                empty=none,
            ),
            graph(
                "Copies that were not compared",
                "Dropped: there was no free slot or no room. Failed: the shadow did not answer well.",
                *lost,
                unit=PER_S,
                width=6,
                empty="no copy was dropped, none failed",
            ),
            graph(
                "Time in the shadow, p95",
                "Inside its replica, beside the live versions'.",
                Ask(
                    f"histogram_quantile(0.95, {buckets('modelfleet_shadow_seconds', AT_GATEWAY, 'version')})",
                    "shadow {{version}}",
                ),
                Ask(
                    f"histogram_quantile(0.95, {buckets('modelfleet_model_seconds', AT_GATEWAY, 'version')})",
                    "live {{version}}",
                ),
                unit=SECONDS,
                width=6,
                empty=none,
            ),
        ],
    )


def cost() -> Section:
    spent, idle = rate("modelfleet_cost_total", OF), rate("modelfleet_idle_cost_total", OF)
    answered = f"{BY} ({rate('modelfleet_requests_total', AT_GATEWAY)})"
    return Section(
        "Cost",
        [
            graph(
                "Cost per hour by version",
                "What runs, at the manifest's prices.",
                Ask(f"{BY} (modelfleet_cost_per_hour{{{OF}}})", "{{version}}"),
                unit=MONEY,
                stacked=True,
                empty=NO_PRICING,
            ),
            graph(
                "Idle share",
                "The part of the cost that no request used.",
                Ask(f"{BY} ({idle}) / ({BY} ({spent}) > 0)", "{{version}}"),
                unit=RATIO,
                empty=NO_PRICING,
            ),
            graph(
                "Cost per 1,000 requests",
                "At the manifest's prices.",
                Ask(f"1000 * {BY} ({spent}) / ({answered} > 0)", "{{version}}"),
                unit=MONEY,
                empty=NO_PRICING,
            ),
        ],
    )
