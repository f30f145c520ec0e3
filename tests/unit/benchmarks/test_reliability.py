"""How an answer is read, and which failures the rule allows."""

from __future__ import annotations

import pytest

from benchmarks.gateway.reliability import Verdict, judge
from benchmarks.gateway.steady import Client, Outcome, read_cause

ERROR = b'{"error": "model \'m\': full (1000 wait); come back", "code": "OVERLOADED", "request_id": "x"}'


def answered(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class TestReadCause:
    @pytest.mark.parametrize(
        ("answer", "cause"),
        [
            (answered(b"200 OK", b"ok"), "200"),
            (answered(b"200 OK", b"no"), "200 with another body"),
            (answered(b"503 No", ERROR), "503 OVERLOADED: model 'm': full (N wait); come back"),
            (answered(b"502 Bad", b"<html>"), "502 without a code"),
        ],
    )
    def test_names_what_the_answer_says(self, answer: bytes, cause: str) -> None:
        assert read_cause(answer) == cause

    def test_waits_for_the_whole_answer(self) -> None:
        whole = answered(b"200 OK", b"ok")

        assert {read_cause(whole[:end]) for end in range(len(whole))} == {None}


class TestJudge:
    def verdict(self, *causes: str, is_idempotent: bool, had: list[str]) -> Verdict:
        client = Client(0, "/", 1, "r")
        client.outcomes = [Outcome(f"r-{number}", 0.0, cause, 0.001) for number, cause in enumerate(causes)]
        return judge("kill", is_idempotent, client, {"dead": had, "other": ["r-0"]}, {"dead"})

    def test_allows_what_a_disturbed_replica_had_whole(self) -> None:
        verdict = self.verdict("200", "502 REPLICA_FAILED", is_idempotent=False, had=["r-1"])

        assert (verdict.allowed, verdict.unread, verdict.violations, verdict.is_kept) == (1, 0, 0, True)

    def test_allows_nothing_to_an_idempotent_version(self) -> None:
        verdict = self.verdict("200", "502 REPLICA_FAILED", is_idempotent=True, had=["r-1"])

        assert (verdict.violations, verdict.is_kept) == (1, False)

    def test_counts_apart_what_lay_unread_in_a_closed_socket(self) -> None:
        cause = "502 REPLICA_FAILED: its connection was reset before the answer"
        verdict = self.verdict("200", cause, is_idempotent=False, had=[])

        assert (verdict.allowed, verdict.unread, verdict.violations) == (0, 1, 0)

    def test_forbids_to_execute_twice_what_is_not_idempotent(self) -> None:
        verdict = self.verdict("200", is_idempotent=False, had=["r-0"])

        assert (verdict.executed_twice, verdict.is_kept) == (1, False)
        assert self.verdict("200", is_idempotent=True, had=["r-0"]).is_kept
