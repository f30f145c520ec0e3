"""Errors as clients and the control plane read them."""

from __future__ import annotations

import json

from worker_image.server.errors import RequestError, one_line


class TestRequestError:
    def test_has_the_form_of_the_table(self) -> None:
        error = RequestError("DEADLINE", "too late")

        assert error.status == 504
        assert json.loads(error.body("r1")) == {"error": "too late", "code": "DEADLINE", "request_id": "r1"}


class TestOneLine:
    def test_joins_lines_and_cuts_what_is_long(self) -> None:
        assert one_line(ValueError("a\n  b")) == "ValueError: a b"
        assert one_line(KeyError()) == "KeyError"
        assert len(one_line(ValueError("x" * 1000))) == 300
