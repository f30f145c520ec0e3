"""What each task makes of a transformers model: texts in, one row of tensors for each out.

Answers are those of transformers' own pipelines, where those still have the task. All but the list of entities are
computed here, on whole batches: a pipeline handles one text at a time before and after the model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from worker_image.server.backends.hub_folder import Folder
from worker_image.server.backends.text_stream import TextSteps
from worker_image.server.backends.text_task import Option, Task, by_length, strings, text, texts_of
from worker_image.server.tensors import Tensor, Tensors, TensorSpec


class TextClassification(Task):
    scores = "scores"
    default_outputs = ("label", "score")

    def __init__(self, model: Any, tokenizer: Any, folder: Folder) -> None:
        super().__init__(model, tokenizer, folder)
        self.labels = _labels(model)

    def outputs(self) -> tuple[TensorSpec, ...]:
        scores = TensorSpec("scores", "FP32", (-1, len(self.labels)))
        return TensorSpec("label", "BYTES", (-1,)), TensorSpec("score", "FP32", (-1,)), scores

    def answer(self, inputs: Tensors, _options: dict[str, Any]) -> Tensors:
        scores = np.stack(by_length(texts_of(inputs, "text"), self._scores))
        best = scores.argmax(axis=1)
        return {"label": strings([self.labels[i] for i in best]), "score": scores.max(axis=1), "scores": scores}

    def _scores(self, texts: list[str]) -> list[Tensor]:
        return list(_activated(self.model(**self.encoded(texts)).logits.float(), self.model.config).cpu().numpy())


class ZeroShot(Task):
    """Which of the request's own labels fits, by a model that was trained to say what follows from a text."""

    inputs = (TensorSpec("text", "BYTES", (-1,)), TensorSpec("candidate_labels", "BYTES", (-1, -1)))
    options: ClassVar[Mapping[str, Option]] = {"hypothesis_template": Option((str,)), "multi_label": Option((bool,))}

    def __init__(self, model: Any, tokenizer: Any, folder: Folder) -> None:
        super().__init__(model, tokenizer, folder)
        self._entails = _entailment(model)
        self._contradicts = -1 if self._entails == 0 else 0

    def outputs(self) -> tuple[TensorSpec, ...]:
        return TensorSpec("labels", "BYTES", (-1, -1)), TensorSpec("scores", "FP32", (-1, -1))

    def answer(self, inputs: Tensors, options: dict[str, Any]) -> Tensors:
        template = options.get("hypothesis_template", "This example is {}.")
        if "{}" not in template:
            raise ValueError(f"parameter 'hypothesis_template' is {template!r}, and has to hold {{}} for the label")
        texts, candidates = texts_of(inputs, "text"), inputs["candidate_labels"]
        width = candidates.shape[1]
        labels = [text(label) for label in candidates.ravel()]
        pairs = [(texts[place // width], template.replace("{}", label)) for place, label in enumerate(labels)]
        logits = np.stack(by_length(pairs, self._logits)).reshape(len(texts), width, -1)
        scores = self._scored(torch.from_numpy(logits), multi_label=options.get("multi_label", False) or width == 1)
        order = np.argsort(-scores, axis=1, kind="stable")
        sorted_labels = np.take_along_axis(strings(labels).reshape(len(texts), width), order, axis=1)
        return {"labels": sorted_labels, "scores": np.take_along_axis(scores, order, axis=1)}

    def example(self) -> Tensors:
        return {"text": strings(["a"]), "candidate_labels": strings(["a", "b"]).reshape(1, 2)}

    def _logits(self, pairs: list[tuple[str, str]]) -> list[Tensor]:
        first, second = zip(*pairs, strict=True)
        encoded = self.encoded(list(first), list(second), truncation="only_first")
        return list(self.model(**encoded).logits.float().cpu().numpy())

    def _scored(self, logits: Any, *, multi_label: bool) -> Tensor:
        if multi_label:
            chosen = logits[..., [self._contradicts, self._entails]].softmax(-1)[..., 1]
        else:
            chosen = logits[..., self._entails].softmax(-1)
        return np.asarray(chosen.numpy())


class TokenClassification(Task):
    """A text has any number of entities, so each row is their list as JSON."""

    options: ClassVar[Mapping[str, Option]] = {"aggregation_strategy": Option((str,))}
    _STRATEGIES = ("none", "simple", "first", "average", "max")

    def __init__(self, model: Any, tokenizer: Any, folder: Folder) -> None:
        from transformers import TokenClassificationPipeline

        super().__init__(model, tokenizer, folder)
        self._pipeline = TokenClassificationPipeline(model=model, tokenizer=tokenizer, device=model.device)

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("entities", "BYTES", (-1,)),)

    def answer(self, inputs: Tensors, options: dict[str, Any]) -> Tensors:
        strategy = options.get("aggregation_strategy", "simple")
        if strategy not in self._STRATEGIES:
            raise ValueError(
                f"parameter 'aggregation_strategy' is {strategy!r}, not one of {', '.join(self._STRATEGIES)}"
            )

        def found(texts: list[str]) -> list[Any]:
            return list(self._pipeline(texts, batch_size=len(texts), aggregation_strategy=strategy))

        rows = by_length(texts_of(inputs, "text"), found)
        return {"entities": strings([json.dumps(row, default=_plain, ensure_ascii=False) for row in rows])}


class FeatureExtraction(Task):
    """One vector for each text: the mean of its tokens', or as the folder of a sentence-transformers model says."""

    def __init__(self, model: Any, tokenizer: Any, folder: Folder) -> None:
        super().__init__(model, tokenizer, folder)
        self._pool = _pooling(folder)
        self._normalises = "Normalize" in _text_of(folder, "modules.json")

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("embedding", "FP32", (-1, self.model.config.hidden_size)),)

    def answer(self, inputs: Tensors, _options: dict[str, Any]) -> Tensors:
        return {"embedding": np.stack(by_length(texts_of(inputs, "text"), self._vectors))}

    def _vectors(self, texts: list[str]) -> list[Tensor]:
        encoded = self.encoded(texts)
        vectors = self._pool(self.model(**encoded)[0].float(), encoded["attention_mask"][..., None])
        if self._normalises:
            vectors = torch.nn.functional.normalize(vectors)
        return list(vectors.cpu().numpy())


class FillMask(Task):
    """The best words for the one mask of each text, the likeliest first."""

    options: ClassVar[Mapping[str, Option]] = {"top_k": Option((int,), 1, 1000)}

    def outputs(self) -> tuple[TensorSpec, ...]:
        shape = (-1, -1)
        names = {"token": "BYTES", "score": "FP32", "sequence": "BYTES"}
        return tuple(TensorSpec(name, datatype, shape) for name, datatype in names.items())

    def answer(self, inputs: Tensors, options: dict[str, Any]) -> Tensors:
        most = options.get("top_k", 5)
        rows = by_length(texts_of(inputs, "text"), lambda texts: self._filled(texts, most))
        tokens, scores, sequences = zip(*rows, strict=True)
        shape = (len(rows), len(tokens[0]))
        return {
            "token": strings([each for row in tokens for each in row]).reshape(shape),
            "score": np.array(scores, np.float32),
            "sequence": strings([each for row in sequences for each in row]).reshape(shape),
        }

    def example(self) -> Tensors:
        return {"text": strings([f"a {self.tokenizer.mask_token}"])}

    def _filled(self, texts: list[str], most: int) -> list[tuple[list[str], list[float], list[str]]]:
        encoded = self.encoded(texts)
        is_mask = encoded["input_ids"] == self.tokenizer.mask_token_id
        for content, count in zip(texts, is_mask.sum(-1).tolist(), strict=True):
            if count != 1:
                mask = self.tokenizer.mask_token
                raise ValueError(
                    f"input 'text' holds {count} times {mask} in {content[:80]!r}; it has to stand there once"
                )
        best = self.model(**encoded).logits[is_mask].float().softmax(-1).topk(most)
        ids = encoded["input_ids"].cpu()
        rows = zip(ids, is_mask.cpu(), best.values.tolist(), best.indices.tolist(), strict=True)
        return [(self._words(found), scores, self._sentences(row, mask, found)) for row, mask, scores, found in rows]

    def _words(self, found: list[int]) -> list[str]:
        return [self.tokenizer.decode([each]).strip() for each in found]

    def _sentences(self, row: Any, mask: Any, found: list[int]) -> list[str]:
        filled = [row.masked_fill(mask, each).tolist() for each in found]
        return [self.tokenizer.decode(each, skip_special_tokens=True) for each in filled]


class TextGeneration(Task):
    options: ClassVar[Mapping[str, Option]] = {
        "max_new_tokens": Option((int,), 1, 100_000),
        "min_new_tokens": Option((int,), 0, 100_000),
        "do_sample": Option((bool,)),
        "temperature": Option((float, int), 0.001, 100),
        "top_k": Option((int,), 1, 1_000_000),
        "top_p": Option((float, int), 0.001, 1),
        "repetition_penalty": Option((float, int), 0.001, 100),
        "num_beams": Option((int,), 1, 64),
        "return_full_text": Option((bool,)),
        "seed": Option((int,), 0, 2**63 - 1),
    }
    DEFAULT_NEW_TOKENS = 50
    can_stream = True

    def __init__(self, model: Any, tokenizer: Any, folder: Folder) -> None:
        super().__init__(model, tokenizer, folder)
        # Streams have threads of their own, and a tokenizer keeps how it pads.
        self._tokenizing = threading.Lock()
        self._is_warm = False

    def outputs(self) -> tuple[TensorSpec, ...]:
        return (TensorSpec("generated_text", "BYTES", (-1,)),)

    def answer(self, inputs: Tensors, options: dict[str, Any]) -> Tensors:
        texts = texts_of(inputs, "text")
        if not self._is_warm:
            # The warm-up shows that it works; fifty tokens of a large model would take a minute to do so.
            self._is_warm = True
            options = {"max_new_tokens": 1, **options}
        seed, is_full = options.pop("seed", None), options.pop("return_full_text", True)
        options = _with_sampling(options)
        if seed is None:
            made = by_length(texts, lambda chunk: self._generated(chunk, options))
        else:
            # A row's random numbers must not depend on its company.
            made = [self._seeded(each, options, seed) for each in texts]
        whole = [prompt + new for prompt, new in zip(texts, made, strict=True)] if is_full else made
        return {"generated_text": strings(whole)}

    def _seeded(self, prompt: str, options: dict[str, Any], seed: int) -> str:
        torch.manual_seed(seed)
        return self._generated([prompt], options)[0]

    def stream(self, inputs: Tensors, options: dict[str, Any]) -> TextSteps:
        """What is new, piece by piece; the prompt is not said again."""
        texts = texts_of(inputs, "text")
        if len(texts) != 1:
            raise ValueError(f"input 'text' has {len(texts)} rows; a stream is the answer to one")
        seed, _ = options.pop("seed", None), options.pop("return_full_text", None)
        wanted = self._wanted(texts, _with_sampling(options))

        def generate(**how: Any) -> None:
            if seed is not None:
                torch.manual_seed(seed)
            self.model.generate(**wanted, **how)

        return TextSteps(self.tokenizer, generate, lambda piece: {"generated_text": strings([piece])})

    def _generated(self, prompts: list[str], options: dict[str, Any]) -> list[str]:
        wanted = self._wanted(prompts, options)
        ids = self.model.generate(**wanted)
        # What is new is cut from the whole text: decoded alone it would lose the space before it.
        whole, known = self._decoded(ids), self._decoded(wanted["input_ids"])
        return [each[len(start) :] for each, start in zip(whole, known, strict=True)]

    def _wanted(self, prompts: list[str], options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `generate()`."""
        with self._tokenizing:
            encoded = self.encoded(prompts, truncation=False, padding_side="left", return_token_type_ids=False)
        length = encoded["input_ids"].shape[1]
        if length == 0:
            raise ValueError("input 'text' holds no token; a text is generated from at least one")
        new_tokens = self._new_tokens(length, options.get("max_new_tokens"))
        return {**encoded, **options, "max_new_tokens": new_tokens, "pad_token_id": self.tokenizer.pad_token_id}

    def _decoded(self, ids: Any) -> list[str]:
        return list(self.tokenizer.batch_decode(ids, skip_special_tokens=True))

    def _new_tokens(self, length: int, asked: int | None) -> int:
        most = self.tokenizer.model_max_length - length
        if most < (asked or 1):
            said = f"the prompt has {length} tokens and {asked or 1} more are asked for"
            raise ValueError(f"{said}; the model's context holds {self.tokenizer.model_max_length}")
        return asked or min(most, self.model.generation_config.max_new_tokens or self.DEFAULT_NEW_TOKENS)


class QuestionAnswering(Task):
    """The part of the context that answers the question best. A long context is read in overlapping windows."""

    inputs = (TensorSpec("question", "BYTES", (-1,)), TensorSpec("context", "BYTES", (-1,)))
    options: ClassVar[Mapping[str, Option]] = {"max_answer_len": Option((int,), 1, 1000)}
    default_outputs = ("answer", "score", "start", "end")
    _OVERLAP = 128

    def outputs(self) -> tuple[TensorSpec, ...]:
        kinds = {"answer": "BYTES", "score": "FP32", "start": "INT64", "end": "INT64"}
        return tuple(TensorSpec(name, datatype, (-1,)) for name, datatype in kinds.items())

    def answer(self, inputs: Tensors, options: dict[str, Any]) -> Tensors:
        questions, contexts = texts_of(inputs, "question"), texts_of(inputs, "context")
        most = options.get("max_answer_len", 15)
        found = [self._best(*each, most) for each in zip(questions, contexts, strict=True)]
        scores, starts, ends = zip(*found, strict=True)
        answers = [context[start:end] for context, (_, start, end) in zip(contexts, found, strict=True)]
        return {
            "answer": strings(answers),
            "score": np.array(scores, np.float32),
            "start": np.array(starts, np.int64),
            "end": np.array(ends, np.int64),
        }

    def _best(self, question: str, context: str, most: int) -> tuple[float, int, int]:
        """Score, and where in the context the answer starts and ends."""
        encoded = self.encoded(
            [question],
            [context],
            truncation="only_second",
            stride=min(self._OVERLAP, self.tokenizer.model_max_length // 4),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        offsets = encoded.pop("offset_mapping").tolist()
        encoded.pop("overflow_to_sample_mapping", None)
        logits = self.model(**encoded)
        found = (0.0, 0, 0)
        for window, spans in enumerate(offsets):
            allowed = torch.tensor([side == 1 for side in encoded.sequence_ids(window)])
            starts = _masked_softmax(logits.start_logits[window], allowed)
            ends = _masked_softmax(logits.end_logits[window], allowed)
            pairs = torch.outer(starts, ends).triu().tril(most - 1)
            place = int(pairs.argmax())
            first, last = divmod(place, len(spans))
            score = float(pairs[first, last])
            if score > found[0]:
                found = (score, spans[first][0], spans[last][1])
        return found


TASKS: Mapping[str, type[Task]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "feature-extraction": FeatureExtraction,
    "fill-mask": FillMask,
    "text-generation": TextGeneration,
    "zero-shot-classification": ZeroShot,
    "question-answering": QuestionAnswering,
}


def _with_sampling(options: dict[str, Any]) -> dict[str, Any]:
    """Who says how to choose wants a choice."""
    chooses = any(name in options for name in ("temperature", "top_k", "top_p"))
    return {"do_sample": True, **options} if chooses else options


def _labels(model: Any) -> tuple[str, ...]:
    names = model.config.id2label
    return tuple(str(names[index]) for index in sorted(names))


def _activated(logits: Any, config: Any) -> Any:
    """As transformers' own pipeline does it."""
    if config.problem_type == "regression":
        return logits
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def _entailment(model: Any) -> int:
    for index, name in model.config.id2label.items():
        if str(name).lower().startswith("entail"):
            return int(index)
    return -1


def _pooling(folder: Folder) -> Callable[[Any, Any], Any]:
    said = _text_of(folder, "1_Pooling/config.json")
    settings = json.loads(said) if said else {}
    if settings.get("pooling_mode_cls_token"):
        return lambda hidden, _: hidden[:, 0]
    if settings.get("pooling_mode_max_tokens"):
        return lambda hidden, mask: hidden.masked_fill(mask == 0, -torch.inf).amax(1)
    return lambda hidden, mask: (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)


def _text_of(folder: Folder, name: str) -> str:
    file = folder.directory / name
    return file.read_text() if file.is_file() else ""


def _masked_softmax(logits: Any, allowed: Any) -> Any:
    return logits.float().cpu().masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()


def _plain(value: Any) -> Any:
    """Numbers of numpy and PyTorch, for JSON."""
    return value.item() if hasattr(value, "item") else str(value)
