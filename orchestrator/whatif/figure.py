"""A timeline as a picture: what is drawn, apart from how. `svg` and `html` need nothing; a PNG is `png.py`'s.

Pure: outcomes in, strings out. A page holds all it needs (no script, no style sheet, nothing from elsewhere).
"""

from __future__ import annotations

import html as text_of_html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from orchestrator.whatif.runs import Outcome
from orchestrator.whatif.words import clock

WIDTH, HEIGHT = 960, 560
_LEFT, _RIGHT = 64, 16
_PANELS: Final = ((44, 250), (300, 506))  # top and bottom, in pixels
# Told apart also without colour vision (Okabe and Ito), and on white as on black.
RATE, LATE, STARTING = "#56b4e9", "#d55e00", "#f0e442"
COUNTS: Final = ("#0072b2", "#009e73", "#cc79a7", "#e69f00")
INK, GRID = "#24292f", "#c8ccd1"
# So many points are as many as a screen shows.
_MOST_POINTS = 1200


@dataclass(frozen=True, slots=True)
class Line:
    points: tuple[tuple[float, float], ...]
    colour: str
    width: float = 1.5


@dataclass(frozen=True, slots=True)
class Area:
    points: tuple[tuple[float, float], ...]
    colour: str


@dataclass(frozen=True, slots=True)
class Words:
    x: float
    y: float
    text: str
    colour: str = INK
    anchor: str = "start"


Shape: TypeAlias = Line | Area | Words


def shapes(title: str, outcomes: Sequence[Outcome]) -> list[Shape]:
    """Above: requests per second of the first outcome, and its late ones. Below: awake replicas of each."""
    first = outcomes[0].result.timeline
    length_s = max((outcome.length_s for outcome in outcomes), default=0.0) or 1.0
    tick_s = first[0].at if first else 1.0
    rates = [(p.at, p.arrivals / tick_s) for p in first]
    lates = [(p.at, p.late / tick_s) for p in first]
    above = _Panel(*_PANELS[0], length_s, max((rate for _, rate in rates + lates), default=0.0))
    below = _Panel(*_PANELS[1], length_s, float(max((outcome.most_replicas for outcome in outcomes), default=0)))
    found: list[Shape] = [Words(_LEFT, 18, title)]
    found += above.frame("requests/s (orange: late)")
    found += [Area(above.steps(rates), RATE), Area(above.steps(lates), LATE)]
    found += below.frame("replicas, awake or starting")
    for outcome, colour in zip(outcomes, COUNTS, strict=False):
        counts = [(p.at, float(p.ready + p.starting)) for p in outcome.result.timeline]
        found.append(Line(below.steps(counts)[1:-1], colour))
    found += _legend(outcomes)
    return found + [Words(x, _PANELS[1][1] + 18, said, anchor="middle") for x, said in _times(length_s)]


def svg(title: str, outcomes: Sequence[Outcome]) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *(_svg_of(shape) for shape in shapes(title, outcomes)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def html(title: str, outcomes: Sequence[Outcome], header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A page with the picture, the figures as a table, and each decision of the first outcome in words."""
    head = "".join(f"<th>{text_of_html.escape(cell)}</th>" for cell in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{text_of_html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    said = "\n".join(f"<li>{text_of_html.escape(line)}</li>" for line in outcomes[0].decisions)
    escaped = text_of_html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escaped}</title>\n'
        "<style>body{font:14px sans-serif;max-width:1000px;margin:2em auto;color:#24292f}"
        "td,th{padding:.2em .8em;text-align:right}td:first-child,th:first-child{text-align:left}"
        "li{margin:.2em 0}</style>\n"
        f"<h1>{escaped}</h1>\n{svg(title, outcomes)}<table>\n<tr>{head}</tr>\n{body}\n</table>\n"
        f"<h2>Decisions: {text_of_html.escape(outcomes[0].name)}</h2>\n<ol>\n{said}\n</ol>\n</html>\n"
    )


@dataclass(frozen=True, slots=True)
class _Panel:
    top: float
    bottom: float
    length_s: float
    most: float

    def x(self, at: float) -> float:
        return _LEFT + at / self.length_s * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.bottom - value / (self.most or 1.0) * (self.bottom - self.top)

    def steps(self, values: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
        """The outline of a staircase that begins and ends at zero; of many points the largest of each few."""
        size = max(1, math.ceil(len(values) / _MOST_POINTS))
        thinned = [max(values[i : i + size], key=lambda value: value[1]) for i in range(0, len(values), size)]
        made, before = [(self.x(0), self.bottom)], 0.0
        for at, value in thinned:
            made += [(self.x(before), self.y(value)), (self.x(at), self.y(value))]
            before = at
        return (*made, (self.x(before), self.bottom))

    def frame(self, title: str) -> list[Shape]:
        found: list[Shape] = [Words(_LEFT, self.top - 8, title)]
        for value in sorted({0.0, self.most / 2, self.most}):
            y = self.y(value)
            found.append(Line(((_LEFT, y), (WIDTH - _RIGHT, y)), GRID, 1))
            found.append(Words(_LEFT - 8, y + 4, f"{value:.3g}", anchor="end"))
        return found


def _legend(outcomes: Sequence[Outcome]) -> Iterator[Shape]:
    x = float(_LEFT)
    for outcome, colour in zip(outcomes, COUNTS, strict=False):
        yield Line(((x, HEIGHT - 14), (x + 20, HEIGHT - 14)), colour, 3)
        yield Words(x + 26, HEIGHT - 10, outcome.name)
        x += 60 + 7 * len(outcome.name)


def _times(length_s: float) -> list[tuple[float, str]]:
    panel = _Panel(0, 1, length_s, 1)
    return [(panel.x(length_s * part / 6), clock(length_s * part / 6)) for part in range(1, 6)]


def _svg_of(shape: Shape) -> str:
    match shape:
        case Words(x, y, text, colour, anchor):
            place = f'x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}"'
            return f"<text {place}>{text_of_html.escape(text)}</text>"
        case Line(points, colour, width):
            return f'<polyline points="{_svg_points(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>'
        case Area(points, colour):
            return f'<polygon points="{_svg_points(points)}" fill="{colour}"/>'


def _svg_points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
