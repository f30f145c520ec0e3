"""Large requests against the memory limit. The process's own memory is a literal."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from worker_image.server.errors import RequestError
from worker_image.server.memory import BINARY_COPIES, COPIES, ELEMENT_BYTES, Room

MI = 1 << 20


def room(limit: int | None, *, model: int = 0) -> Room:
    made = Room(limit, held=lambda: model)
    made.settle()
    return made


class TestRoom:
    def test_everything_fits_without_a_limit(self) -> None:
        with room(None).take(1 << 50):
            pass

    def test_refuses_for_good_what_can_never_fit(self) -> None:
        with pytest.raises(RequestError) as failed, room(100 * MI, model=60 * MI).take(11 * MI):
            pass

        assert failed.value.status == 413
        assert f"{COPIES * 11} MiB" in failed.value.sentence
        assert "30 MiB are left" in failed.value.sentence

    def test_refuses_for_now_what_others_leave_no_room_for(self) -> None:
        free = room(100 * MI)
        with ExitStack() as inside:
            inside.enter_context(free.take(20 * MI))
            with pytest.raises(RequestError) as failed, free.take(20 * MI):
                pass

        assert failed.value.status == 503
        with free.take(20 * MI):
            pass

    def test_counts_the_elements_of_json(self) -> None:
        body = b"1," * 100_000
        needed = len(body) * COPIES + 100_000 * ELEMENT_BYTES

        with room(int(needed / 0.9) + 10).take(len(body), body.count(b",")):
            pass
        with pytest.raises(RequestError), room(needed).take(len(body), body.count(b",")):
            pass

    def test_asks_less_for_binary_tensors_than_for_json(self) -> None:
        free = room(100 * MI)

        with free.take(40 * MI, copies=BINARY_COPIES):
            pass
        with pytest.raises(RequestError), free.take(40 * MI):
            pass
        assert free.most_bytes(BINARY_COPIES) > free.most_bytes()

    def test_gives_the_room_back_when_the_request_fails(self) -> None:
        free = room(100 * MI)
        with pytest.raises(KeyError), free.take(20 * MI):
            raise KeyError

        with free.take(20 * MI):
            pass
