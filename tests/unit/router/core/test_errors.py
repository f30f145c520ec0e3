"""The error table's answers."""

from __future__ import annotations

import json

from router.core import errors


class TestRefusal:
    def test_is_json_with_sentence_code_and_request_id(self) -> None:
        body = errors.model_not_found('a"b\n', ["x", "c"]).body("id-1")

        assert json.loads(body) == {
            "error": "model 'a\"b\\n' is not served here; models: c, x",
            "code": "MODEL_NOT_FOUND",
            "request_id": "id-1",
        }

    def test_says_where_the_time_went(self) -> None:
        assert "in the queue" in errors.queue_timeout("m", "1", 1.5).text
        assert "in the model" in errors.model_timeout("m", "1", 1.5).text

    def test_shows_no_more_than_a_few_bytes_of_a_name(self) -> None:
        assert len(errors.model_not_found("x" * 5000, []).text) < 200
