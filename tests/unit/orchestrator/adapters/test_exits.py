"""One sentence for each way in which a replica can end."""

from __future__ import annotations

import json

import pytest

from orchestrator.adapters._exits import LOG_TAIL_LINES, describe_exit, failure_sentence, memory_text

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
