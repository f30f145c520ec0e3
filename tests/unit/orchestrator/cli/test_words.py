"""How values read."""

from __future__ import annotations

import pytest

from orchestrator.cli import words
from orchestrator.cli.errors import UsageError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.4, "0s"), (75, "75s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (90_000, "1d")],
)
def test_an_age_has_one_unit(seconds: float, text: str) -> None:
    assert words.age(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(512, "512"), (512 << 20, "512Mi"), (3 << 29, "1.5Gi"), (1024, "1Ki")])
def test_a_size_reads_as_in_a_manifest(count: int, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 5_000_000_000, "0.0 of 5.0 GB"), (1_234_567, 2_000_000, "1.2 of 2.0 MB"), (12, 900, "0.0 of 0.9 kB"),
        (7_000_000, None, "7.0 MB"), (0, None, "0.0 kB"), (0, 0, "0.0 of 0.0 kB"),
    ],
)  # fmt: skip
def test_a_fetch_is_in_the_unit_of_the_whole(done: int, total: int | None, text: str) -> None:
    assert words.fetched(done, total) == text


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("1d", 86400)])
def test_a_duration_is_read_with_its_unit(text: str, seconds: float) -> None:
    assert words.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "1w", "1m30s"])
def test_a_duration_without_a_known_unit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the units are ms, s, m, h and d"):
        words.duration_s(text)


@pytest.mark.parametrize(
    ("target", "parts"), [("iris", ("iris", "")), ("iris@2", ("iris", "2")), ("a@b@c", ("a", "b@c"))]
)
def test_a_target_is_a_model_and_perhaps_a_version(target: str, parts: tuple[str, str]) -> None:
    assert words.model_and_version(target) == parts


@pytest.mark.parametrize("target", ["", "@1", "iris@"])
def test_half_a_target_is_refused(target: str) -> None:
    with pytest.raises(UsageError):
        words.model_and_version(target)


def test_an_unknown_name_gets_the_nearest_or_all_or_the_first_step() -> None:
    assert words.unknown("model", "irs", ["iris", "text"]).hint == "did you mean 'iris'?"
    assert words.unknown("model", "zzz", ["iris", "text"]).hint == "there are: iris, text"
    assert words.unknown("model", "zzz", []).hint == "nothing is applied yet: `modelfleet apply`"
