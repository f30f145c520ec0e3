"""A text that is sent while it is being generated: one thread generates, and the stream's own thread takes the pieces.

Generation cannot be stopped from outside, so it asks after each token whether anybody still waits. A stream must be
closed: that is what ends its thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from transformers import StoppingCriteriaList, TextIteratorStreamer

from worker_image.server.tensors import Tensors

Generate = Callable[..., Any]


class TextSteps:
    """`generate` is given a `streamer` and `stopping_criteria`; `made` makes the answer of a piece of text."""

    def __init__(self, tokenizer: Any, generate: Generate, made: Callable[[str], Tensors]) -> None:
        self._pieces = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._generate = generate
        self._made = made
        self._is_over = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="generate", daemon=True)
        self._thread.start()

    def take(self) -> Tensors | None:
        for piece in self._pieces:
            if piece:
                return self._made(piece)
        if self._error is not None:
            raise self._error
        return None

    def interrupt(self) -> None:
        self._is_over.set()

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            with torch.inference_mode():
                self._generate(streamer=self._pieces, stopping_criteria=StoppingCriteriaList([self._stops]))
        except Exception as exc:
            self._error = exc
            self._pieces.end()

    def _stops(self, ids: Any, _scores: Any, **_: Any) -> Any:
        return torch.full((ids.shape[0],), self._is_over.is_set(), dtype=torch.bool, device=ids.device)
