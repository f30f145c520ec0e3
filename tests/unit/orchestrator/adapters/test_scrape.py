"""The metrics page of a gateway, read strictly, and gateways that answer or do not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.scrape import Exposition, Scrape
from orchestrator.adapters.signals import Round, SignalsUnavailable
from orchestrator.core.entities import VersionKey
from orchestrator.core.scaling.series import Series
from tests.unit.orchestrator.adapters.pages import Pages, serving

IRIS = VersionKey("iris", "1")
PAGE = """# HELP modelfleet_arrivals_total Requests.
# TYPE modelfleet_arrivals_total counter
modelfleet_arrivals_total{model="iris",version="1"} 12
modelfleet_queued{model="iris",version="1"} 3
unknown_metric 7
modelfleet_gateway_started_at_seconds 1764276000.125
"""


def read(text: str) -> list[tuple[Series, float]]:
    return list(Exposition().read(text))


def scraped(urls: Mapping[str, str]) -> Round:
    async def ask() -> Round:
        with ThreadPoolExecutor(1) as threads:
            async with httpx.AsyncClient(trust_env=False) as client:
                return await Scrape(client, lambda: urls, threads).read()

    return asyncio.run(ask())


@pytest.fixture
def gateway() -> Iterator[Pages]:
    with serving() as pages:
        pages.page = PAGE
        yield pages


class TestExposition:
    def test_reads_the_series_that_matter(self) -> None:
        assert read(PAGE) == [
            (Series("modelfleet_arrivals_total", IRIS), 12),
            (Series("modelfleet_queued", IRIS), 3),
            (Series("modelfleet_gateway_started_at_seconds"), 1764276000.125),
        ]

    def test_reads_the_same_page_again_as_it_did_before(self) -> None:
        page = Exposition()

        assert list(page.read(PAGE)) == list(page.read(PAGE))

    @given(st.text(min_size=1), st.text(min_size=1))
    def test_reads_labels_as_the_official_parser_does(self, model: str, version: str) -> None:
        def escaped(value: str) -> str:
            return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")

        line = f'modelfleet_queued{{version="{escaped(version)}",model="{escaped(model)}"}} 1\n'

        (family,) = text_string_to_metric_families(line)
        (series, _) = read(line)[0]
        assert series.key is not None
        assert family.samples[0].labels == {"model": series.key.model, "version": series.key.version}

    @pytest.mark.parametrize(
        "line",
        [
            'modelfleet_queued{model="iris",version="1"} many',
            'modelfleet_queued{model="iris",version="1"}',
            'modelfleet_queued{model="iris" 3',
            "modelfleet_queued{model=iris} 3",
            'modelfleet_queued{model="iris\\x"} 3',
            "<html> 404",
            "3",
        ],
    )
    def test_refuses_a_page_with_a_line_that_is_no_metric(self, line: str) -> None:
        with pytest.raises(ValueError, match="line 8"):
            read(f"{PAGE}\n{line}\n")


class TestScrape:
    def test_reads_every_gateway(self, gateway: Pages) -> None:
        found = scraped({"a": gateway.url, "b": gateway.url})

        assert {name: each.of(IRIS).arrivals for name, each in found.gateways.items()} == {"a": 12, "b": 12}
        assert found.missing == ()

    def test_names_a_gateway_that_does_not_answer(self, gateway: Pages) -> None:
        found = scraped({"a": gateway.url, "b": "http://127.0.0.1:1"})

        assert (list(found.gateways), found.missing) == (["a"], ("b",))

    @pytest.mark.parametrize(
        ("page", "status", "says"),
        [
            (PAGE.replace("} 3", "} x"), 200, "gateway a: its metrics page cannot be read: line 4: 'x' is no number"),
            ("", 200, "gateway a: its metrics page cannot be read: it does not say when its gateway started"),
            ("", 503, "gateway a: its metrics page answers 503"),
        ],
    )
    def test_says_why_there_are_no_signals(self, gateway: Pages, page: str, status: int, says: str) -> None:
        gateway.page, gateway.status = page, status

        with pytest.raises(SignalsUnavailable, match=says):
            scraped({"a": gateway.url})

    def test_does_not_wait_long_for_a_gateway_that_is_stuck(self, gateway: Pages) -> None:
        gateway.is_stuck = True

        with pytest.raises(SignalsUnavailable, match="gateway a: "):
            scraped({"a": gateway.url})

    def test_says_that_there_is_no_gateway_yet(self) -> None:
        with pytest.raises(SignalsUnavailable, match="no gateway yet"):
            scraped({})


class TestDetails:
    PAGE = "".join(
        f'modelfleet_queue_seconds_{part}{{model="{model}",version="1"{le}}} 4\n'
        for model in ("iris", "text")
        for part, le in (("bucket", ',le="0.1"'), ("bucket", ',le="+Inf"'), ("sum", ""))
    )

    def test_are_read_of_models_that_somebody_looks_at(self) -> None:
        page = Exposition()

        read = [[series for series, _ in page.read(self.PAGE, watched)] for watched in ((), {"iris"}, {"text"}, ())]

        assert [{series.key.model for series in each if series.key} for each in read] == [
            set(),
            {"iris"},
            {"text"},
            set(),
        ]
        assert [len(each) for each in read] == [0, 3, 3, 0]
