"""*Gateway*: what it carries, what it refuses, sends again and takes out, and whether it is well itself."""

from __future__ import annotations

from scripts.dashboards.frame import REVISIONS, SERIES_PAGE, Board, Section
from scripts.dashboards.look import (
    BAD,
    COUNT,
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
)
from scripts.dashboards.queries import NO_REQUESTS, most, peak, rate

OF = 'role="gateway",cluster="$cluster"'
OF_MODELS = f'{OF},model!=""'
TO_MODEL = [link("Open the model", SERIES_PAGE)]
AWAY = "no gateway answers"


def board() -> Board:
    return Board(
        uid="modelfleet-gateway",
        title="Modelfleet: Gateway",
        says="What the gateway carries, refuses, sends again and takes out of use, and how it is itself.",
        sections=[_now(), _traffic(), _refusals(), _inside(), _itself()],
        marks=[REVISIONS],
    )


def _now() -> Section:
    age = f"time() - max(modelfleet_gateway_table_applied_at_seconds{{{OF}}})"
    failed = f'sum(rate(modelfleet_requests_total{{{OF},code=~"5.."}}[1m]))'
    answered = f"sum(rate(modelfleet_requests_total{{{OF}}}[1m]))"
    return Section(
        "Now",
        [
            number(
                "Answers",
                "Per second, of the last minute, those that belong to no model too.",
                Ask(answered),
                unit=REQUESTS_PER_S,
                empty=NO_REQUESTS,
            ),
            number(
                "Failed",
                "Answered 5xx per second, of the last minute.",
                Ask(f"{failed} or 0 * {answered}"),
                unit=REQUESTS_PER_S,
                steps=(Step(0.1, WARN), Step(1, BAD)),
                empty=NO_REQUESTS,
            ),
            number(
                "Inside",
                "Requests in replicas now, and those that wait for a free slot.",
                Ask(f"sum(modelfleet_inflight{{{OF}}})", "inside"),
                Ask(f"sum(modelfleet_queued{{{OF}}})", "waiting"),
                unit=COUNT,
                width=4,
                empty=NO_REQUESTS,
            ),
            number(
                "Connections",
                "Clients' connections that are open.",
                Ask(f"sum(modelfleet_gateway_connections{{{OF}}})"),
                unit=COUNT,
                empty=AWAY,
            ),
            number(
                "Processes",
                "That serve.",
                Ask(f"sum(modelfleet_gateway_processes{{{OF}}})"),
                unit=COUNT,
                width=2,
                empty=AWAY,
            ),
            number(
                "Models",
                "In the routing table.",
                Ask(f"max(modelfleet_gateway_models{{{OF}}})"),
                unit=COUNT,
                width=2,
                empty=AWAY,
            ),
            number(
                "Age of the table",
                "Since a routing table was last applied. One comes when replicas or weights change: an "
                "old table is well while nothing changes.",
                Ask(age),
                unit=SECONDS,
                empty="no table yet",
            ),
            number(
                "Up for",
                "Since this gateway started.",
                Ask(f"time() - min(modelfleet_gateway_started_at_seconds{{{OF}}})"),
                unit=SECONDS,
                width=4,
                empty=AWAY,
            ),
        ],
    )


def _traffic() -> Section:
    whole, answered = "modelfleet_request_seconds", f"(sum({rate('modelfleet_request_seconds_count', OF)}) > 0)"
    rest = " - ".join(
        f"sum({rate(name + '_sum', OF)})" for name in (whole, "modelfleet_queue_seconds", "modelfleet_model_seconds")
    )
    return Section(
        "Throughput",
        [
            graph(
                "Answers by status",
                "499: the client left.",
                Ask(f"sum by (code) ({rate('modelfleet_requests_total', OF)})", "{{code}}"),
                unit=REQUESTS_PER_S,
                stacked=True,
                empty=NO_REQUESTS,
            ),
            graph(
                "Arrivals and answers",
                "Arrivals are counted at admission. Where the lines part, requests pile up.",
                Ask(f"sum({rate('modelfleet_arrivals_total', OF)})", "arrivals"),
                Ask(f"sum({rate('modelfleet_requests_total', OF_MODELS)})", "answers"),
                unit=REQUESTS_PER_S,
                empty=NO_REQUESTS,
            ),
            graph(
                "Time in the gateway",
                "The mean of a request beside waiting for a slot and being in a replica: reading, "
                "sending, and a slow client's own pace.",
                Ask(f"clamp_min(({rest}) / {answered}, 0)", "in the gateway"),
                unit=SECONDS,
                empty=NO_REQUESTS,
            ),
        ],
    )


def _refusals() -> Section:
    nobody = f'{OF},model=""'
    return Section(
        "Refused, sent again, taken out",
        [
            graph(
                "Refused by reason",
                "Requests of a model that it refused: the queue was full, the time ran out in it, no "
                "replica was ready, a rate limit.",
                Ask(f"sum by (reason) ({rate('modelfleet_shed_total', OF)})", "{{reason}}"),
                unit=REQUESTS_PER_S,
                width=6,
                stacked=True,
                empty="nothing was refused",
            ),
            graph(
                "Answers of no model",
                "Unknown models and paths, wrong keys, and the gateway's own pages.",
                Ask(f"sum by (code) ({rate('modelfleet_requests_total', nobody)})", "{{code}}"),
                unit=REQUESTS_PER_S,
                width=6,
                stacked=True,
                empty="all requests were for models",
            ),
            graph(
                "Sent again by reason",
                "To another replica; the client does not notice.",
                Ask(f"sum by (reason) ({rate('modelfleet_retries_total', OF)})", "{{reason}}"),
                unit=REQUESTS_PER_S,
                width=6,
                stacked=True,
                empty="nothing was sent again",
            ),
            graph(
                "Replicas taken out by reason",
                "Ejected for a while, because requests to them failed or hung.",
                Ask(f"sum by (reason) (increase(modelfleet_ejections_total{{{OF}}}[$__rate_interval]))", "{{reason}}"),
                unit=COUNT,
                width=6,
                bars=True,
                empty="no replica was ejected",
            ),
        ],
    )


def _inside() -> Section:
    inside, waiting = f"modelfleet_inflight{{{OF}}}", f"modelfleet_queued{{{OF}}}"
    oldest = f"modelfleet_queue_oldest_seconds{{{OF}}}"
    return Section(
        "In flight and waiting",
        [
            graph(
                "Inside replicas",
                "Requests in flight. The ten models with most.",
                Ask(most(f"sum by (model) ({inside})", f"sum by (model) ({peak(inside)})"), "{{model}}"),
                unit=COUNT,
                width=6,
                stacked=True,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            graph(
                "Waiting for a slot",
                "The ten models where most waited.",
                Ask(most(f"sum by (model) ({waiting})", f"sum by (model) ({peak(waiting)})"), "{{model}}"),
                unit=COUNT,
                width=6,
                stacked=True,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            graph(
                "Longest wait",
                "How long the first in a queue has waited. The ten models where it waited longest.",
                Ask(most(f"max by (model) ({oldest})", f"max by (model) ({peak(oldest)})"), "{{model}}"),
                unit=SECONDS,
                width=6,
                empty=NO_REQUESTS,
                links=TO_MODEL,
            ),
            graph(
                "Requests by API key",
                "By the key's public id.",
                Ask(f"topk(10, sum by (key) ({rate('modelfleet_key_requests_total', OF)}))", "{{key}}"),
                unit=REQUESTS_PER_S,
                width=6,
                empty="no request had an API key",
            ),
        ],
    )


def _itself() -> Section:
    return Section(
        "The gateway itself",
        [
            graph(
                "Connections",
                "Clients' connections that are open.",
                Ask(f"sum(modelfleet_gateway_connections{{{OF}}})", "connections"),
                unit=COUNT,
                width=4,
                empty=AWAY,
            ),
            graph(
                "Processes",
                "That serve. One that ends is replaced at once.",
                Ask(f"sum(modelfleet_gateway_processes{{{OF}}})", "processes"),
                unit=COUNT,
                width=4,
                empty=AWAY,
            ),
            graph(
                "Spans of traces",
                "What became of them, per second: sent to the collector, dropped for it took none, dropped for they "
                "were too many.",
                Ask(f"sum by (outcome) ({rate('modelfleet_trace_spans_total', OF)})", "{{outcome}}"),
                unit=COUNT,
                width=4,
                empty="the manifest asks for no traces",
            ),
            graph(
                "Changes of the table",
                "Routing tables that were applied within a minute, at least: two of the same scrape count as one.",
                Ask(f"max(changes(modelfleet_gateway_table_applied_at_seconds{{{OF}}}[1m]))", "tables"),
                unit=COUNT,
                width=4,
                bars=True,
                empty=AWAY,
            ),
            graph(
                "A scrape of it",
                "How long its page of metrics takes to make and read.",
                Ask(f"max(scrape_duration_seconds{{{OF}}})", "time"),
                unit=SECONDS,
                width=4,
                empty="nothing is scraped",
            ),
            grid(
                "Build",
                "The release that runs.",
                {"instance": "Address", "release": "Release"},
                Column(
                    "Processes",
                    f"sum by (instance) (modelfleet_gateway_processes{{{OF}}}) * on (instance) group_right () "
                    f"max by (instance, release) (modelfleet_build_info{{{OF}}})",
                ),
                sort_by="Address",
                width=4,
                height=8,
                empty=AWAY,
            ),
        ],
    )
