"""Timelines as text, SVG, page and PNG."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import pytest

from orchestrator.core.scaling.distributions import Service
from orchestrator.core.scaling.facts import Objective, Settings
from orchestrator.core.scaling.pool import Setup
from orchestrator.core.scaling.simulation import Point
from orchestrator.whatif import chart, figure, runs
from orchestrator.whatif.png import png
from orchestrator.whatif.words import clock


@pytest.fixture(scope="module")
def outcomes() -> list[runs.Outcome]:
    times = sorted([t * 0.5 for t in range(300)] + [60 + t * 0.05 for t in range(600)])
    setup = Setup(service=Service.fixed(0.2), latency_s=1.0)
    settings = Settings(maximum=8, objective=Objective(1.0))
    return [
        runs.by_settings("slo <1 s> & more", times, settings, setup),
        *runs.of_equal_cost(times, runs.by_settings("p", times, settings, setup), setup),
    ]


def point(at: float, arrivals: int, ready: int, late: int = 0, standby: int = 0) -> Point:
    return Point(at, arrivals, late, 0, 0, ready, 0, standby, ready)


class TestText:
    def test_has_a_column_for_each_tick_while_there_is_room(self) -> None:
        timeline = [point(2, 0, 1), point(4, 8, 1, late=8), point(6, 4, 2), point(8, 4, 2, late=1)]

        lines = chart.draw(timeline, width=40, height=2)

        assert lines == [
            "requests/s",
            "        4  █",
            "        0  ███",
            "     late  █ ▂",
            "replicas ready",
            "        2   ██",
            "        0 ████",
            "          0 8 s",
        ]

    def test_joins_ticks_where_there_is_none(self) -> None:
        timeline = [point(2.0 * n, 2, n, standby=1) for n in range(1, 101)]

        lines = chart.draw(timeline, width=30, height=3)

        assert max(map(len, lines)) <= 30
        assert any("standby" in line for line in lines)

    def test_without_unicode_is_ascii(self) -> None:
        assert "".join(chart.draw([point(2, 4, 1, late=1)], width=30, unicode=False)).isascii()

    def test_of_nothing_is_nothing(self) -> None:
        assert chart.draw([], width=80) == []

    @pytest.mark.parametrize(("seconds", "said"), [(0, "0 s"), (45, "45 s"), (600, "10:00"), (9000.4, "2:30:00")])
    def test_says_moments_as_a_clock(self, seconds: float, said: str) -> None:
        assert clock(seconds) == said


class TestSvg:
    def test_is_well_formed_and_stays_within_its_frame(self, outcomes: list[runs.Outcome]) -> None:
        root = ElementTree.fromstring(figure.svg("iris@2 <now>", outcomes))

        texts = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "iris@2 <now>" in texts
        assert "slo <1 s> & more" in texts
        for shape in root.iter():
            for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", shape.get("points", "")):
                assert 0 <= float(x) <= figure.WIDTH
                assert 0 <= float(y) <= figure.HEIGHT


class TestPage:
    def test_holds_all_that_it_needs(self, outcomes: list[runs.Outcome]) -> None:
        page = figure.html("iris@2", outcomes, ["SETTINGS", "LATE"], [["as it is", "5"], ["<b>", "6"]])

        assert "<script" not in page
        assert not re.search(r'(src|href)="', page)
        assert "<td>&lt;b&gt;</td>" in page
        assert f"<li>{next(outcomes[0].decisions).split('  ')[0]}" in page


class TestPng:
    def test_is_one(self, outcomes: list[runs.Outcome]) -> None:
        from PIL import Image

        picture = png("iris@2", outcomes)

        with Image.open(io.BytesIO(picture)) as opened:
            assert opened.format == "PNG"
            assert opened.size == (2 * figure.WIDTH, 2 * figure.HEIGHT)
            assert len(opened.convert("RGB").getcolors(1 << 24)) > 5
