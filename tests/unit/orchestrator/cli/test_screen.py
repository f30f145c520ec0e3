"""Plain text, tables and JSON on a stream that is no terminal."""

from __future__ import annotations

import io

from orchestrator.cli.screen import Column, Grid, Screen


def test_a_plain_table_is_as_wide_as_its_values_and_no_wider() -> None:
    stream = io.StringIO()
    grid = Grid([Column("NAME"), Column("N", right=True), Column("NOTE", wraps=True)])
    grid.add(("a", "bold"), "10", "x" * 200)
    grid.add("long-name", "9", ["two\n", ("lines", "red")])

    Screen(stream).table(grid)

    assert stream.getvalue().splitlines() == [
        "NAME        N  NOTE",
        "a          10  " + "x" * 200,
        "long-name   9  two lines",
    ]


def test_an_empty_cell_still_counts_as_a_field() -> None:
    stream = io.StringIO()
    grid = Grid([Column("A"), Column("B"), Column("C")])
    grid.add("1", "", "3")

    Screen(stream).table(grid)

    assert stream.getvalue().splitlines()[1].split() == ["1", "-", "3"]


def test_control_characters_are_shown_and_not_sent() -> None:
    stream = io.StringIO()

    Screen(stream).line("a\x1b[31mb\x07\x9bc\td")

    assert stream.getvalue() == "a\\x1b[31mb\\x07\\x9bc\td\n"


def test_a_character_that_the_stream_cannot_hold_ends_nothing() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")

    Screen(stream).line("Modell für München")

    assert raw.getvalue() == b"Modell f\\xfcr M\\xfcnchen\n"


def test_json_of_a_stream_is_one_line_each() -> None:
    stream = io.StringIO()

    Screen(stream).json({"a": [1, 2]}, one_line=True)

    assert stream.getvalue() == '{"a":[1,2]}\n'
