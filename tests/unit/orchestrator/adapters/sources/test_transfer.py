"""How long a failed transfer is tried again: failures in a row without progress, whatever came before."""

from __future__ import annotations

import pytest

from orchestrator.adapters.sources.remote import Listing, Patience, RemoteFile, Stop, TransientError
from orchestrator.adapters.sources.transfer import Meter, patiently
from orchestrator.core.errors import UnavailableError, UserError

PATIENCE = Patience(first_pause_s=0.001, longest_pause_s=0.002, attempts=3)


class Script:
    """A call that does what a list says: "fail", "ok", or a number of bytes that came before it failed."""

    def __init__(self, *steps: str | int) -> None:
        self.steps = list(steps)
        self.calls = self.bytes = 0

    def __call__(self) -> str:
        self.calls += 1
        step = self.steps.pop(0)
        if step == "ok":
            return "done"
        self.bytes += step if isinstance(step, int) else 0
        raise TransientError("cut")


@pytest.mark.parametrize(
    ("steps", "calls"),
    [
        (["ok"], 1),
        (["fail", "fail", "ok"], 3),
        (["fail", "fail", 10, "fail", "ok"], 5),
        ([1, 1, 1, 1, 1, 1, "ok"], 7),
    ],
)
def test_goes_on_while_something_comes(steps: list[str | int], calls: int) -> None:
    script = Script(*steps)

    assert patiently(script, "source x", PATIENCE, Stop(), lambda: script.bytes) == "done"
    assert script.calls == calls


def test_gives_up_after_failures_in_a_row() -> None:
    script = Script(5, "fail", "fail", "fail")

    with pytest.raises(UnavailableError, match="source x: cut; tried 3 times"):
        patiently(script, "source x", PATIENCE, Stop(), lambda: script.bytes)
    assert script.calls == 3


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise UserError("wrong")

    with pytest.raises(UserError, match="wrong"):
        patiently(call, "source x", PATIENCE, Stop())
    assert len(calls) == 1


def test_waits_as_long_as_the_other_side_asks_and_ends_at_once_when_stopped() -> None:
    stop = Stop()

    def call() -> None:
        stop.set()
        raise TransientError("busy", pause_s=3600)

    with pytest.raises(UnavailableError, match="fetching ended with the control plane"):
        patiently(call, "source x", PATIENCE, stop)


def test_a_meter_reports_the_first_and_the_last_bytes_and_few_between() -> None:
    seen: list[int] = []
    meter = Meter(10_000, lambda done, _: seen.append(done))

    meter.add(0)
    for _ in range(10_000):
        meter.add(1)

    assert (seen[0], seen[-1]) == (1, 10_000)
    assert len(seen) < 100


def test_the_state_of_a_listing_is_told_by_every_file_or_not_at_all() -> None:
    one, two = RemoteFile("a", "", 1, "etag 1"), RemoteFile("b", "", 2, "etag 2")

    assert Listing((one, two)).state == Listing((one, two)).state != ""
    assert Listing((one, two)).state != Listing((one, RemoteFile("b", "", 2, "etag 3"))).state
    assert Listing((one, RemoteFile("b", "", 2))).state == ""
    assert Listing((one, RemoteFile("b", "", None, "x"))).size_bytes is None
