"""`modelfleet top`: what a key does, what a picture is, and a real terminal that is left as it was."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.api import schemas_console as console
from orchestrator.cli.client import decode
from orchestrator.cli.screen import plain_text
from orchestrator.cli.top_frame import frame
from orchestrator.cli.top_keys import named
from orchestrator.cli.top_state import Fleet, View, press
from tests.fakes.admin_api import FakeAdminApi, World, fleet, fleet_row, model_update
from tests.unit.orchestrator.cli.conftest import Run
from tests.unit.orchestrator.cli.terminal import Terminal

NOW = 1_800_000_000.0
LEFT_SCREEN, SHOWN_CURSOR = "\x1b[?1049l", "\x1b[?25h"


def known(*rows: console.FleetRow, model: console.ModelUpdate | None = None, **facts: Any) -> Fleet:
    found = Fleet()
    found.take("fleet", decode(fleet(*rows, **facts).model_dump_json().encode()))
    if model is not None:
        found.take("model", decode(model.model_dump_json().encode()))
    return found


def pressed(fleet_: Fleet, *keys: str, view: View | None = None) -> View:
    view = view or View()
    for key in keys:
        view = press(view, key, fleet_)
    return view


def shown(found: Fleet, view: View | None = None, width: int = 120, height: int | None = 24) -> list[str]:
    return [plain_text(line) for line in frame(found, view or View(), width=width, height=height, now=NOW)]


THREE = known(
    fleet_row(name="a", rate_per_s=1, p95_ms=9, error_ratio=None, memory_bytes=5, cost_per_hour=None),
    fleet_row(name="b", rate_per_s=3, p95_ms=None, error_ratio=0.5, memory_bytes=9, cost_per_hour=0.1),
    fleet_row(name="c", rate_per_s=2, p95_ms=20, error_ratio=0.0, memory_bytes=7, cost_per_hour=0.3),
)


class TestKeys:
    @pytest.mark.parametrize(
        ("keys", "order"),
        [("", "bca"), ("r", "acb"), ("e", "bca"), ("l", "cab"), ("ll", "acb"), ("m", "bca"), ("c", "cba"), ("n", "abc"),
         ("nn", "cba")],
    )  # fmt: skip
    def test_sort_and_turn_round_and_put_what_is_unknown_last(self, keys: str, order: str) -> None:
        view = pressed(THREE, *keys)

        assert "".join(row.name for row in view.rows(THREE)) == order

    def test_move_within_what_there_is_and_open(self) -> None:
        down = pressed(THREE, "n", "down", "j", "down", "down")
        assert down.chosen == "c"
        assert pressed(THREE, "up", view=down).chosen == "b"
        opened = pressed(THREE, "up", "enter", view=down)
        assert opened.opened == "b"
        assert pressed(THREE, "escape", view=opened).opened == ""

    def test_filter_by_what_is_typed(self) -> None:
        view = pressed(THREE, "/", "q", "backspace", "b")
        assert ([row.name for row in view.rows(THREE)], view.typing, view.has_ended) == (["b"], True, False)
        kept = pressed(THREE, "enter", "down", view=view)
        assert (kept.filter, kept.typing, kept.chosen) == ("b", False, "b")
        assert pressed(THREE, "escape", view=kept).filter == ""

    def test_quit_and_help(self) -> None:
        assert pressed(THREE, "q").has_ended
        assert pressed(THREE, "?").help
        assert not pressed(THREE, "?", "x").help

    @given(
        st.lists(st.sampled_from(["up", "down", "enter", "escape", "/", "a", "n", "r", "?", "page down", "backspace"]))
    )
    def test_in_any_order_leave_something_to_see(self, keys: list[str]) -> None:
        view = pressed(THREE, *keys)

        assert view.chosen in ("", "a", "b", "c")
        assert len(shown(THREE, view, 80, 24)) == 24

    @pytest.mark.parametrize(
        ("text", "keys"),
        [
            ("q", ["q"]), ("\r", ["enter"]), ("\x7f", ["backspace"]), ("\x1b", ["escape"]), ("\x1b[A", ["up"]),
            ("\x1bOB", ["down"]), ("\x1b[5~j", ["page up", "j"]), ("\x1b[1;5Cq", ["q"]), ("\x1b[", []), ("\x01\t", []),
            ("\x1b\x1b[A", ["escape", "up"]), ("é", ["é"]),
        ],
    )  # fmt: skip
    def test_are_told_from_what_a_terminal_sends(self, text: str, keys: list[str]) -> None:
        assert named(text) == keys


class TestPicture:
    def test_has_totals_and_a_line_for_each_model(self) -> None:
        lines = shown(known(fleet_row()))

        assert lines[0].startswith("demo  converged  revision 2  process")
        assert (
            "1 model  ready 2/2  123 req/s  errors 1.2%  queue 3  in flight 7  CPU 1.2  mem 300M  cost 0.085/h"
            in lines[1]
        )
        titles, row = lines[2].split(), lines[3].split()
        assert titles == [
            "MODEL",
            "STATE",
            "READY",
            "REQ/S",
            "ERR",
            "P50",
            "P95",
            "P99",
            "QUEUE",
            "INFL",
            "CPU",
            "MEM",
            "COST/H",
        ]
        assert row == [">iris", "ready", "2/2", "123", "1.2%", "4.0", "61.0!", "80.0", "3", "7", "1.2", "300M", "0.085"]

    def test_what_nobody_knows_is_a_dash_and_no_zero(self) -> None:
        unknown = dict.fromkeys(
            ("rate_per_s", "error_ratio", "p50_ms", "p95_ms", "p99_ms", "queued", "in_flight", "cpu_cores",
             "memory_bytes", "cost_per_hour")
        )  # fmt: skip
        lines = shown(known(fleet_row(**unknown)))

        assert lines[3].split()[3:] == ["-"] * 10

    def test_leaves_out_columns_where_there_is_no_room(self) -> None:
        found = known(fleet_row(name="a-model-with-a-rather-long-name"))
        wide, narrow, tiny = (shown(found, width=width) for width in (120, 80, 40))

        assert "a-model-with-a-rather-long-name" in wide[3]
        titles = next(line for line in narrow if "MODEL" in line).split()
        assert titles == ["MODEL", "STATE", "READY", "REQ/S", "ERR", "P95", "QUEUE", "INFL", "CPU", "MEM", "COST/H"]
        assert next(line for line in tiny if "MODEL" in line).split() == ["MODEL", "READY", "REQ/S", "ERR"]

    @given(st.integers(20, 250), st.integers(1, 60), st.integers(0, 80), st.sampled_from(["", "m1", "?"]))
    def test_fits_any_terminal(self, width: int, height: int, models: int, look: str) -> None:
        found = known(
            *(fleet_row(name=f"m{n}", ready=n, standby=n % 3) for n in range(models)), model=model_update("m1")
        )
        view = View(help=True) if look == "?" else View(opened=look)

        lines = shown(found, view, width, height)

        assert len(lines) == height
        table = [line for line in lines if line.startswith((">m", " MODEL", " VERSION", " REPLICA"))]
        assert all(len(line) <= width for line in table)

    def test_keeps_the_chosen_model_in_sight(self) -> None:
        found = known(*(fleet_row(name=f"m{n:03}") for n in range(200)))

        lines = shown(found, View(sort="n", chosen="m150"), 80, 20)

        assert any(line.startswith(">m150") for line in lines)

    def test_of_a_model_shows_versions_and_replicas(self) -> None:
        lines = shown(known(fleet_row(), model=model_update()), View(opened="iris"))

        assert "iris  ready  objective p95 < 50 ms" in lines[2]
        version = next(line for line in lines if line.startswith(" 1 "))
        assert version.split()[:5] == ["1", "ready", "100%", "1/1", "123"]
        assert "61.0!" in version
        replica = next(line for line in lines if "iris-1-a1" in line)
        assert replica.split()[1:6] == ["ready", "4", "40%", "150M", "512M"]

    def test_says_that_a_control_plane_is_lost_and_keeps_what_it_said(self) -> None:
        found = known(fleet_row())
        found.lose("it has ended", NOW - 12)
        found.lose("it has ended", NOW)

        lines = shown(found)

        assert any("control plane lost for 12s: what runs goes on" in line for line in lines)
        assert any("iris" in line for line in lines)
        found.take("fleet", decode(fleet(fleet_row()).model_dump_json().encode()))
        assert not any("lost" in line for line in shown(found))

    def test_takes_rows_that_changed_and_those_that_are_gone(self) -> None:
        found = known(fleet_row(name="a"), fleet_row(name="b"))
        later = fleet(fleet_row(name="b", rate_per_s=9), whole=False, gone=("a",))
        found.take("fleet", decode(later.model_dump_json().encode()))

        assert {name: row.rate_per_s for name, row in found.models.items()} == {"b": 9}

    def test_of_a_reason_has_no_escape_sequences_of_others(self) -> None:
        lines = shown(known(fleet_row(reason="\x1b[2Jgone")), View(opened="iris"))

        assert not any("\x1b" in line for line in lines)


class TestOnce:
    def test_in_a_pipe_prints_one_whole_picture(self, api: FakeAdminApi, run: Run, world: World) -> None:
        world.fleet = fleet(*(fleet_row(name=f"m{n}") for n in range(60)))

        result = run("top")

        assert result.exit_code == 0
        assert len([line for line in result.stdout.splitlines() if line.startswith(" m")]) == 60
        assert "COST/H" in result.stdout

    def test_as_json(self, api: FakeAdminApi, run: Run) -> None:
        found = json.loads(run("top", "--once", "-o", "json").stdout)

        assert [row["name"] for row in found["models"]] == ["iris"]

    def test_without_a_control_plane_says_so(self, run: Run) -> None:
        result = run("top")

        assert result.exit_code == 3
        assert "no control plane is running" in result.stderr

    def test_on_a_dumb_terminal(self, api: FakeAdminApi, state_dir: Path) -> None:
        with Terminal(["top"], environment={"TERM": "dumb"}) as terminal:
            assert terminal.end() == 0
            assert "iris" in terminal.text
            assert "\x1b" not in terminal.raw


class TestTerminal:
    @pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50), (40, 8), (20, 3)])
    def test_quits_and_leaves_the_terminal_as_it_was(self, api: FakeAdminApi, columns: int, lines: int) -> None:
        with Terminal(["top"], columns=columns, lines=lines) as terminal:
            before = terminal.mode
            terminal.wait_for("demo")
            assert terminal.mode != before, "keys come one by one"
            terminal.type("q")

            assert terminal.end() == 0
            assert terminal.mode == before
            assert terminal.raw.rfind(LEFT_SCREEN) > terminal.raw.rfind("demo")
            assert SHOWN_CURSOR in terminal.raw[terminal.raw.rfind("demo") :]

    @pytest.mark.parametrize(
        ("end", "code"),
        [
            (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 143),
            (lambda terminal: terminal.process.send_signal(signal.SIGHUP), 129),
            (lambda terminal: terminal.process.send_signal(signal.SIGINT), 130),
        ],
    )
    def test_leaves_it_so_when_it_is_ended(self, api: FakeAdminApi, end: Callable[[Terminal], None], code: int) -> None:
        with Terminal(["top"], lines=24) as terminal:
            before = terminal.mode
            terminal.wait_for("iris")
            end(terminal)

            assert terminal.end() == code
            assert terminal.mode == before
            assert LEFT_SCREEN in terminal.raw
            assert "Traceback" not in terminal.text

    def test_opens_a_model_with_the_keys(self, api: FakeAdminApi, world: World) -> None:
        world.fleet, world.model = fleet(fleet_row(name="a"), fleet_row(name="iris", rate_per_s=1)), model_update()
        with Terminal(["top"], lines=24) as terminal:
            terminal.wait_for("iris")
            terminal.type("\x1b[B\r")
            terminal.wait_for("iris-1-a1")
            terminal.type("\x1b")
            terminal.wait_for("/ filter")
            terminal.type("?")
            terminal.wait_for("any key goes back")
            terminal.type("xq")

            assert terminal.end() == 0

    def test_follows_the_size_of_the_terminal_at_once(self, api: FakeAdminApi) -> None:
        with Terminal(["top", "-n", "3600"], lines=24) as terminal:
            terminal.wait_for("iris")
            terminal.forget()
            terminal.resize(160, 24)
            terminal.wait_for("P99")
            terminal.type("q")
            assert terminal.end() == 0

    def test_without_colour_the_chosen_one_is_marked(self, api: FakeAdminApi) -> None:
        with Terminal(["top", "--no-color"], lines=24) as terminal:
            terminal.wait_for(">iris")
            assert "\x1b[1m" not in terminal.raw
            assert "\x1b[32m" not in terminal.raw
            terminal.type("q")
            assert terminal.end() == 0

    def test_outlives_the_control_plane(self, state_dir: Path, world: World) -> None:
        first = FakeAdminApi(state_dir, world)
        with first, Terminal(["top"], lines=24) as terminal:
            terminal.wait_for("iris")
            first.__exit__()
            terminal.wait_for("control plane lost for")
            with FakeAdminApi(state_dir, World(fleet=fleet(fleet_row(name="after")))):
                terminal.forget()
                terminal.wait_for("after")
                terminal.type("q")
                assert terminal.end() == 0
