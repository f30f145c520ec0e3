"""One sentence for each way in which a replica can end."""

from __future__ import annotations

import json

import pytest

from orchestrator.adapters._exits import LOG_TAIL_LINES, describe_exit, failure_sentence, memory_text
from worker_image.server.errors import EXIT_CODES

FAILED = json.dumps({"event": "model failed", "reason": "/model: holds 'a'; put it there", "code": "ARTIFACT_MISSING"})


class TestDescribeExit:
    @pytest.mark.parametrize(
        ("code", "reason"),
        [
            (0, "ended by itself with exit code 0"),
            (1, "ended with exit code 1"),
            (64, "the configuration is wrong (exit code 64)"),
            (70, "the model raised while loading or warming up (exit code 70)"),
            (71, "loading took longer than load_timeout_s (exit code 71)"),
            (72, "a prediction took longer than predict_timeout_s (exit code 72)"),
            (127, "the command of the image was not found (exit code 127)"),
            (137, "killed by SIGKILL (exit code 137)"),
            (139, "killed by SIGSEGV (exit code 139)"),
            (191, "killed by signal 63 (exit code 191)"),
            (None, "ended; nobody saw how"),
        ],
    )
    def test_names_the_class_of_the_exit_code(self, code: int | None, reason: str) -> None:
        assert describe_exit(code, ["a line"]).reason == reason

    def test_prefers_the_sentence_of_the_model_server(self) -> None:
        end = describe_exit(65, ["starting", FAILED], engine_error="x")

        assert end.reason == "/model: holds 'a'; put it there"
        assert end.log_tail == ("starting", FAILED)

    def test_prefers_the_engines_word_on_memory_to_everything(self) -> None:
        end = describe_exit(137, [FAILED], oom_killed=True, memory_bytes=512 * 1024**2)

        assert end.reason.startswith("out of memory: it needs more than its limit of 512Mi; raise resources.memory")

    def test_of_a_server_that_gave_a_reason_an_earlier_end_of_a_child_is_none(self) -> None:
        assert describe_exit(72, [FAILED], oom_killed=True).reason == "/model: holds 'a'; put it there"

    def test_says_that_it_was_stuck_where_its_stack_was_printed(self) -> None:
        stacks = ["Timeout (0:00:05)!", "Thread 0x1 (most recent call first):", '  File "model.py", line 3 in predict']
        others = [f'  File "loop.py", line {number} in run' for number in range(40)]

        end = describe_exit(1, ["ready", *stacks, *others])

        assert end.reason.startswith("stuck in native code for longer than its time allows")
        assert end.log_tail[:3] == tuple(stacks)
        assert len(end.log_tail) == 10

    def test_has_a_sentence_for_every_exit_code_of_the_model_server(self) -> None:
        reasons = [describe_exit(code, []).reason for code in EXIT_CODES.values()]

        assert not [reason for reason in reasons if reason.startswith("ended")]

    def test_keeps_the_last_lines_alone_and_cuts_long_ones(self) -> None:
        end = describe_exit(1, [f"line {n}" for n in range(100)] + ["x" * 10_000])

        assert len(end.log_tail) == LOG_TAIL_LINES
        assert max(len(line) for line in end.log_tail) == 2_000


class TestFailureSentence:
    @pytest.mark.parametrize(
        "line", ["", "plain", "{", '{"event": "model failed"}', '{"event": "model loaded"}', "[1]", '{"reason": "no"}']
    )
    def test_is_empty_where_no_line_is_a_failure_event(self, line: str) -> None:
        assert failure_sentence([line]) == ""

    def test_is_that_of_the_last_event(self) -> None:
        earlier = json.dumps({"event": "model failed", "reason": "earlier"})

        assert failure_sentence([earlier, FAILED, "Exception ignored in: atexit"]) == "/model: holds 'a'; put it there"


@pytest.mark.parametrize(
    ("size", "text"), [(512 * 1024**2, "512Mi"), (1536 * 1024**2, "1.5Gi"), (2048, "2Ki"), (12, "12")]
)
def test_memory_is_written_as_in_a_manifest(size: int, text: str) -> None:
    assert memory_text(size) == text
