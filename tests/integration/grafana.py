"""What Grafana does with a dashboard's queries: variables put in, Prometheus asked, and "no data" told from data.

As its Prometheus data source does it: `$__rate_interval` is four scrape intervals at least, several chosen values are an
alternative of a regular expression, and `label_values(…)` and `query_result(…)` are words of variables alone.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from orchestrator.adapters.companions.grafana import SCRAPED_EVERY

STEP_S = 15
RANGE_S = 300
TIME = {"__rate_interval": f"{4 * int(SCRAPED_EVERY.removesuffix('s'))}s", "__range": f"{RANGE_S}s"}


@dataclass(frozen=True, slots=True)
class Query:
    """One target of a panel, or one annotation."""

    panel: str
    name: str
    expr: str
    is_instant: bool = False

    def __str__(self) -> str:
        return f"{self.panel} [{self.name}]: {self.expr}"


class Dashboard:
    """One that is checked in."""

    def __init__(self, path: Path) -> None:
        self._json: dict[str, Any] = json.loads(path.read_text())

    @property
    def queries(self) -> list[Query]:
        found = [
            Query(panel["title"], target["refId"], target["expr"], target.get("instant", False))
            for panel in self._json["panels"]
            if panel["type"] != "row"
            for target in panel["targets"]
        ]
        return [
            *found,
            *(Query("annotations", mark["name"], mark["expr"]) for mark in self._json["annotations"]["list"]),
        ]

    @property
    def variables(self) -> Iterator[tuple[str, str, str]]:
        """Name, query and regular expression of those that are filled by a query."""
        for variable in self._json["templating"]["list"]:
            if variable["type"] == "query":
                yield variable["name"], variable["query"]["query"], variable.get("regex", "")


class PrometheusSource:
    """Grafana's Prometheus data source, as far as the dashboards use it."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, trust_env=False, timeout=20)

    def close(self) -> None:
        self._client.close()

    def values(self, query: str, regex: str, chosen: Mapping[str, str]) -> list[str]:
        """What a variable offers, in its order."""
        if found := re.fullmatch(r"label_values\((.*), (\w+)\)", query):
            selector, label = interpolated(found[1], chosen), found[2]
            since = {"start": time.time() - RANGE_S, "end": time.time()}
            return list(self._ask(f"label/{label}/values", {"match[]": selector, **since}))
        found = re.fullmatch(r"query_result\((.*)\)", query)
        assert found, f"{query}: neither label_values nor query_result"
        texts = [
            "{"
            + ",".join(f'{k}="{v}"' for k, v in each["metric"].items())
            + "} "
            + " ".join(map(str, each["value"][::-1]))
            for each in self._ask("query", {"query": interpolated(found[1], chosen)})["result"]
        ]
        matches = [re.search(regex.strip("/"), text) for text in texts]
        return [match[1] for match in matches if match]

    def has_data(self, query: Query, chosen: Mapping[str, str]) -> bool:
        """Whether the panel would show something: a number that is one. A query that is wrong is an error."""
        expr = interpolated(query.expr, chosen)
        if query.is_instant:
            samples = [each["value"] for each in self._ask("query", {"query": expr})["result"]]
        else:
            now = time.time()
            span = {"start": now - RANGE_S, "end": now, "step": STEP_S}
            found = self._ask("query_range", {"query": expr, **span})["result"]
            samples = [sample for each in found for sample in each["values"]]
        return any(math.isfinite(float(value)) for _, value in samples)

    def _ask(self, path: str, parameters: dict[str, Any]) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer.get('error')}"
        return answer["data"]


def interpolated(text: str, chosen: Mapping[str, str]) -> str:
    """With the variables put in; one that is not chosen is an error."""
    return re.sub(r"\$(\w+)", lambda found: {**TIME, **chosen}[found[1]], text)
