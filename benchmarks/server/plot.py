"""Lines over connections as an SVG: for docs, readable in light and dark, made of text alone.

Pure: figures in, a string out. Both axes are logarithmic, for connections double and gains reach from 1 to 100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 190, 30, 50
# Told apart also without colour vision (Okabe and Ito), and on white as on black.
_COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#24292f}.grid{stroke:#8c959f;stroke-opacity:.35}.bar{stroke:#cf222e;"
    "stroke-dasharray:4 3}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
)


def svg(title: str, lines: Mapping[str, Points], *, y_title: str, limit: float, x_title: str = "connections") -> str:
    """`limit` is drawn as a dashed line: what no figure may be below. Raises `ValueError` without any point."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    ys = [y for points in lines.values() for _, y in points]
    if not xs:
        raise ValueError("a plot of no points")
    low, high = min(*ys, limit) * 0.9, max(*ys, limit) * 1.1
    scale = _Scale(xs[0], xs[-1], low, high)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">',
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="18">{title}</text>',
        *(_vertical(scale, x) for x in xs),
        *(_horizontal(scale, y) for y in _ticks(low, high)),
        f'<path class="bar" d="M{_LEFT} {scale.y(limit):.1f}H{_WIDTH - _RIGHT}"/>',
        f'<text x="{_WIDTH - _RIGHT + 8}" y="{scale.y(limit) + 4:.1f}">bar: {limit:g}</text>',
        *_curves(scale, lines),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{x_title}</text>',
        f'<text transform="translate(16 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{y_title}</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self._x = (math.log(x_low), math.log(max(x_high, x_low * 1.01)))
        self._y = (math.log(y_low), math.log(y_high))

    def x(self, value: float) -> float:
        share = (math.log(value) - self._x[0]) / (self._x[1] - self._x[0])
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (math.log(value) - self._y[0]) / (self._y[1] - self._y[0])
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _ticks(low: float, high: float) -> list[float]:
    steps = [factor * 10.0**power for power in range(-3, 6) for factor in (1, 2, 5)]
    return [step for step in steps if low <= step <= high]


def _vertical(scale: _Scale, x: float) -> str:
    at = scale.x(x)
    return (
        f'<path class="grid" d="M{at:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
        f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>'
    )


def _horizontal(scale: _Scale, y: float) -> str:
    at = scale.y(y)
    return (
        f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>'
        f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>'
    )


def _curves(scale: _Scale, lines: Mapping[str, Points]) -> list[str]:
    parts = []
    for index, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        path = "L".join(f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in points)
        row = _TOP + 14 + index * 18
        parts += [
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>',
            *(f'<circle cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3" fill="{colour}"/>' for x, y in points),
            f'<path d="M{_WIDTH - _RIGHT + 10} {row - 4}h18" stroke="{colour}" stroke-width="2"/>',
            f'<text x="{_WIDTH - _RIGHT + 34}" y="{row}">{name}</text>',
        ]
    return parts
