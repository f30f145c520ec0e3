"""Who is signed in: codes, sessions and guesses, with the time passed in."""

from __future__ import annotations

import pytest

from orchestrator.api.sessions import (
    CODE_S,
    GUESS_EVERY_S,
    MOST_CODES,
    MOST_GUESSES,
    MOST_SESSIONS,
    SESSION_S,
    Sessions,
)

NOW = 1_000_000.0


class TestCodes:
    def test_a_code_signs_in_once(self) -> None:
        sessions = Sessions()
        code = sessions.make_code(NOW)

        assert [sessions.redeem(code, NOW + 1), sessions.redeem(code, NOW + 1)] == [True, False]

    @pytest.mark.parametrize(("age_s", "is_good"), [(0, True), (CODE_S - 0.1, True), (CODE_S, False)])
    def test_a_code_ends_after_ten_minutes(self, age_s: float, is_good: bool) -> None:
        sessions = Sessions()

        assert sessions.redeem(sessions.make_code(NOW), NOW + age_s) is is_good

    def test_an_unknown_code_is_none(self) -> None:
        assert not Sessions().redeem("", NOW)

    def test_the_oldest_code_gives_way_where_there_are_too_many(self) -> None:
        sessions = Sessions()
        codes = [sessions.make_code(NOW) for _ in range(MOST_CODES + 1)]

        assert [sessions.redeem(code, NOW) for code in codes] == [False] + [True] * MOST_CODES

    def test_no_secret_is_kept(self) -> None:
        sessions = Sessions()
        kept = {sessions.make_code(NOW), sessions.begin(NOW).secret}

        assert not any(secret in repr(vars(sessions)) for secret in kept)


class TestSessions:
    @pytest.mark.parametrize(("age_s", "is_in"), [(0, True), (SESSION_S - 1, True), (SESSION_S, False)])
    def test_a_session_ends_after_twelve_hours(self, age_s: float, is_in: bool) -> None:
        sessions = Sessions()
        secret = sessions.begin(NOW).secret

        assert (sessions.expires_at(secret, NOW + age_s) is not None) is is_in

    def test_signing_out_ends_one_session(self) -> None:
        sessions = Sessions()
        one, other = sessions.begin(NOW), sessions.begin(NOW)

        sessions.end(one.secret)

        assert sessions.expires_at(one.secret, NOW) is None
        assert sessions.expires_at(other.secret, NOW) == other.expires_at

    def test_the_oldest_session_gives_way_where_there_are_too_many(self) -> None:
        sessions = Sessions()
        secrets = [sessions.begin(NOW).secret for _ in range(MOST_SESSIONS + 1)]

        assert [sessions.expires_at(each, NOW) is not None for each in secrets] == [False] + [True] * MOST_SESSIONS

    def test_sessions_go_on_where_they_were_kept(self) -> None:
        kept: dict[str, float] = {}
        before = Sessions(keep=kept.update)
        secret = before.begin(NOW).secret

        assert Sessions(kept).expires_at(secret, NOW) == NOW + SESSION_S

    def test_what_ended_is_kept_no_longer(self) -> None:
        kept: list[dict[str, float]] = []
        sessions = Sessions({"old": NOW - 1}, keep=lambda known: kept.append(dict(known)))
        secret = sessions.begin(NOW).secret

        sessions.end(secret)

        assert [len(each) for each in kept] == [1, 0]


class TestGuesses:
    def test_after_some_bad_ones_nobody_may_guess(self) -> None:
        sessions = Sessions()
        for _ in range(MOST_GUESSES):
            assert sessions.wait_s(NOW) == 0
            sessions.note_bad_guess(NOW)

        assert sessions.wait_s(NOW) == pytest.approx(GUESS_EVERY_S)

    def test_one_more_is_free_after_each_pause(self) -> None:
        sessions = Sessions()
        for _ in range(MOST_GUESSES):
            sessions.note_bad_guess(NOW)

        assert sessions.wait_s(NOW + GUESS_EVERY_S) == 0
        sessions.note_bad_guess(NOW + GUESS_EVERY_S)
        assert sessions.wait_s(NOW + GUESS_EVERY_S) > 0

    def test_a_clock_that_was_set_back_locks_nobody_out_longer(self) -> None:
        sessions = Sessions()
        for _ in range(MOST_GUESSES):
            sessions.note_bad_guess(NOW)

        assert sessions.wait_s(NOW - 86_400) == pytest.approx(GUESS_EVERY_S)
