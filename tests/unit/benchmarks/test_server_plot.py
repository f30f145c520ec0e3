"""The plot is well-formed SVG that shows each line."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.server.plot import svg

SPACE = "{http://www.w3.org/2000/svg}"


class TestSvg:
    def test_each_point_of_each_line_lies_inside_the_picture(self) -> None:
        lines = {"50 µs/call": [(1, 1.0), (128, 90.0)], "20 ms/row": [(1, 0.99), (128, 1.01)]}

        picture = ElementTree.fromstring(svg("on / off", lines, y_title="ratio", limit=0.97))

        circles = picture.findall(f"{SPACE}circle")
        assert len(circles) == 4
        assert all(
            0 < float(circle.get("cx", "-1")) < 760 and 0 < float(circle.get("cy", "-1")) < 400 for circle in circles
        )
        assert {"50 µs/call", "20 ms/row", "bar: 0.97"} <= {text.text for text in picture.findall(f"{SPACE}text")}

    def test_refuses_a_plot_of_nothing(self) -> None:
        with pytest.raises(ValueError, match="no points"):
            svg("empty", {}, y_title="y", limit=1)
