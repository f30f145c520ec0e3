"""A picture of `figure.py` as a PNG, drawn with Pillow: the extra `modelfleet[plot]`."""

from __future__ import annotations

import io
from collections.abc import Sequence

from orchestrator.core.errors import UserError
from orchestrator.whatif.figure import HEIGHT, WIDTH, Area, Line, Words, shapes
from orchestrator.whatif.runs import Outcome

# Twice as many pixels as the picture has units, for screens that show them.
_SCALE = 2
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(title: str, outcomes: Sequence[Outcome]) -> bytes:
    """Raises `UserError` where Pillow is not installed."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as exc:
        raise UserError(
            "a PNG needs Pillow, which is not installed; `pip install 'modelfleet[plot]'`, or name a .html or .svg file"
        ) from exc
    picture = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12 * _SCALE)
    for shape in shapes(title, outcomes):
        match shape:
            case Words(x, y, text, colour, anchor):
                pen.text((x * _SCALE, y * _SCALE), text, fill=colour, font=font, anchor=_ANCHORS[anchor])
            case Line(points, colour, width):
                pen.line(_scaled(points), fill=colour, width=round(width * _SCALE))
            case Area(points, colour):
                pen.polygon(_scaled(points), fill=colour)
    into = io.BytesIO()
    picture.save(into, "PNG", optimize=True)
    return into.getvalue()


def _scaled(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * _SCALE, y * _SCALE) for x, y in points]
