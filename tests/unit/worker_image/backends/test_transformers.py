"""Tiny models of transformers, trained here for a few steps, in folders as the hub has them.

Needs transformers and PyTorch: skipped where they are not installed, and run in the transformers image by
tests/integration/test_deep_learning.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
hf = pytest.importorskip("transformers", reason="transformers is not installed here")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # type: ignore[import-not-found] # noqa: E402

from worker_image.server.errors import ModelFailed, RequestError  # noqa: E402
from worker_image.server.loading import Loaded, load  # noqa: E402
from worker_image.server.settings import read  # noqa: E402

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GOOD, BAD = ["good", "great", "fine"], ["bad", "awful", "poor"]
WORDS = [
    *GOOD,
    *BAD,
    "the",
    "film",
    "was",
    "very",
    "is",
    "example",
    "this",
    "about",
    "anna",
    "lives",
    "in",
    "paris",
    "?",
]
TEXTS = ["the film was very good", "awful", "the film was bad", "this is great"]


def tokenizer() -> Any:
    built = Tokenizer(models.WordPiece({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return hf.PreTrainedTokenizerFast(tokenizer_object=built, model_max_length=32, **names)


def config(**more: Any) -> Any:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return hf.BertConfig(vocab_size=len(SPECIAL + WORDS), max_position_embeddings=32, **sizes, **more)


def saved(directory: Path, model: Any, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    model.eval().save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    for name, content in files.items():
        (directory / name.replace("_dot_", ".")).write_text(content)
    return directory


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    model = hf.BertForSequenceClassification(config(id2label=labels, label2id={v: k for k, v in labels.items()}))
    texts = [f"{start} {word}".strip() for word in GOOD + BAD for start in ("", "the film was", "this is very")]
    wanted = torch.tensor([int(any(word in each for word in GOOD)) for each in texts])
    encoded = tokenizer()(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(40):
        optimizer.zero_grad()
        model(**encoded, labels=wanted).loss.backward()
        optimizer.step()
    return saved(tmp_path_factory.mktemp("sentiment"), model)


def ready(directory: Path) -> Loaded:
    environ = {
        "MODELFLEET_MODEL": "m",
        "MODELFLEET_VERSION": "1",
        "MODELFLEET_BACKEND": "transformers",
        "MODELFLEET_MODEL_DIR": str(directory),
        "MODELFLEET_CPUS": "1",
    }
    return load(read(environ), lambda _: None)


def texts(*values: str) -> dict[str, Any]:
    return {"text": np.array(values, dtype=object)}


def shown(specs: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.datatype, spec.shape) for spec in specs]


def ask(model: Loaded, inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    names = tuple(spec.name for spec in model.signature.outputs)
    return {name: tensor.tolist() for name, tensor in model.predict(inputs, names, parameters).items()}


class TestTextClassification:
    def test_answers_with_labels_as_the_pipeline_does(self, sentiment: Path) -> None:
        model = ready(sentiment)

        answer = ask(model, texts(*TEXTS))

        direct = hf.pipeline("text-classification", str(sentiment))(TEXTS)
        assert answer["label"] == ["positive", "negative", "negative", "positive"] == [each["label"] for each in direct]
        assert answer["score"] == pytest.approx([each["score"] for each in direct], rel=1e-4)
        assert shown(model.signature.inputs) == [("text", "BYTES", (-1,))]
        assert model.signature.default_outputs == ("label", "score")
        assert (model.signature.scores, model.signature.labels) == ("scores", ("negative", "positive"))
        assert ("task", "text-classification") in model.signature.facts

    def test_a_row_is_the_same_alone_and_in_company(self, sentiment: Path) -> None:
        model = ready(sentiment)
        many = [*TEXTS * 20, "good " * 200]

        together = ask(model, texts(*many))["score"]

        assert together == pytest.approx([ask(model, texts(each))["score"][0] for each in many], rel=1e-4)

    def test_texts_sent_as_bytes_are_read(self, sentiment: Path) -> None:
        model = ready(sentiment)

        assert ask(model, texts(b"the film was good"))["label"] == ["positive"]  # type: ignore[arg-type]
        with pytest.raises(RequestError, match=r"a text is no UTF-8") as failed:
            ask(model, texts(b"\xff"))  # type: ignore[arg-type]
        assert failed.value.status == 400


class TestOtherTasks:
    def test_entities_are_a_list_in_json_for_each_text(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = hf.BertForTokenClassification(config(id2label={0: "O", 1: "B-PER", 2: "B-LOC"}))
        folder = saved(tmp_path / "m", model)

        answer = ask(ready(folder), texts("anna lives in paris", "the film"), aggregation_strategy="none")

        direct = hf.pipeline("token-classification", str(folder))(["anna lives in paris", "the film"])
        rows = [json.loads(row) for row in answer["entities"]]
        assert [[(each["word"], each["entity"], each["start"]) for each in row] for row in rows] == [
            [(each["word"], each["entity"], each["start"]) for each in row] for row in direct
        ]

    def test_an_embedding_is_the_mean_of_the_tokens(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        bert = hf.BertModel(config())
        model = ready(saved(tmp_path / "m", bert))

        answer = ask(model, texts("good", "the film was bad"))["embedding"]

        with torch.inference_mode():
            direct = bert(**tokenizer()("good", return_tensors="pt"))[0][0].mean(0).tolist()
        assert shown(model.signature.outputs) == [("embedding", "FP32", (-1, 32))]
        assert answer[0] == pytest.approx(direct, rel=1e-3, abs=1e-5)

    def test_pooling_and_normalising_are_those_of_sentence_transformers(self, tmp_path: Path) -> None:
        bert = hf.BertModel(config())
        folder = saved(tmp_path / "m", bert, modules_dot_json='[{"type": "sentence_transformers.models.Normalize"}]')
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')

        answer = ask(ready(folder), texts("good"))["embedding"][0]

        with torch.inference_mode():
            first = bert(**tokenizer()("good", return_tensors="pt"))[0][0, 0]
        assert answer == pytest.approx((first / first.norm()).tolist(), rel=1e-3, abs=1e-5)

    def test_fills_the_mask_as_the_pipeline_does(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        folder = saved(tmp_path / "m", hf.BertForMaskedLM(config()))
        model = ready(folder)

        answer = ask(model, texts("the film was [MASK]", "[MASK] lives in paris"), top_k=2)

        direct = hf.pipeline("fill-mask", str(folder))(["the film was [MASK]", "[MASK] lives in paris"], top_k=2)
        assert answer["token"] == [[each["token_str"] for each in row] for row in direct]
        assert answer["sequence"] == [[each["sequence"] for each in row] for row in direct]
        assert np.array(answer["score"]).ravel().tolist() == pytest.approx(
            [each["score"] for row in direct for each in row], rel=1e-3
        )
        with pytest.raises(RequestError, match=r"holds 0 times \[MASK\] in 'good'"):
            ask(model, texts("good"))

    def test_zero_shot_takes_the_labels_of_each_request(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        labels = {0: "contradiction", 1: "neutral", 2: "entailment"}
        nli = hf.BertForSequenceClassification(config(id2label=labels, label2id={v: k for k, v in labels.items()}))
        folder = saved(tmp_path / "m", nli, README_dot_md="---\npipeline_tag: zero-shot-classification\n---\n")
        model = ready(folder)
        choices = ["good", "bad", "film"]
        inputs = texts("this is great", "anna lives in paris") | {"candidate_labels": np.array([choices] * 2, object)}

        answer = ask(model, inputs)
        several = ask(model, inputs, multi_label=True)

        direct = hf.pipeline("zero-shot-classification", str(folder))
        for row, each in enumerate(direct(["this is great", "anna lives in paris"], choices)):
            assert answer["labels"][row] == each["labels"]
            assert answer["scores"][row] == pytest.approx(each["scores"], rel=1e-3)
        for row, each in enumerate(direct(["this is great", "anna lives in paris"], choices, multi_label=True)):
            assert several["scores"][row] == pytest.approx(each["scores"], rel=1e-3)

    def test_a_question_is_answered_with_a_part_of_its_context(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = hf.BertForQuestionAnswering(config())
        question, contexts = "anna lives in ?", ["anna lives in paris", "the film was good", "the film was in paris"]
        encoded = tokenizer()([question] * 3, contexts, padding=True, return_tensors="pt")
        # The last token of the context, which is the answer here: 6 tokens of question, then 4 or 5.
        ends = torch.tensor([9, 9, 10])
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            model(**encoded, start_positions=ends, end_positions=ends).loss.backward()
            optimizer.step()
        served = ready(saved(tmp_path / "m", model))
        inputs = {"question": np.array([question] * 3, object), "context": np.array(contexts, object)}

        answer = ask(served, inputs)

        assert answer["answer"] == ["paris", "good", "paris"]
        assert [context[a:b] for context, a, b in zip(contexts, answer["start"], answer["end"], strict=True)] == (
            answer["answer"]
        )
        assert min(answer["score"]) > 0.5
        long = {"question": np.array([question], object), "context": np.array(["the film " * 60 + "paris"], object)}
        assert ask(served, long)["answer"][0]


class TestTextGeneration:
    @pytest.fixture(scope="module")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        torch.manual_seed(0)
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
        model = hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=len(SPECIAL + WORDS), eos_token_id=3, bos_token_id=2, **sizes)
        )
        sentence = tokenizer()("the film was very good", return_tensors="pt", add_special_tokens=False)["input_ids"]
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            model(sentence, labels=sentence).loss.backward()
            optimizer.step()
        folder = saved(tmp_path_factory.mktemp("gpt"), model)
        built = tokenizer()
        built.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        built.model_max_length = 64
        built.save_pretrained(folder)
        return folder

    def test_goes_on_with_each_prompt_whatever_its_length(self, folder: Path) -> None:
        model = ready(folder)

        alone = [ask(model, texts(each), max_new_tokens=2)["generated_text"][0] for each in ("the film", "the")]
        together = ask(model, texts("the film", "the"), max_new_tokens=2)["generated_text"]

        assert alone == together == ["the film was very", "the film was"]

    def test_the_prompt_is_left_out_when_that_is_asked(self, folder: Path) -> None:
        answer = ask(ready(folder), texts("the film"), max_new_tokens=2, return_full_text=False)

        assert answer["generated_text"] == [" was very"]

    def test_a_seed_gives_the_same_text_in_any_company(self, folder: Path) -> None:
        model = ready(folder)
        how = {"max_new_tokens": 8, "temperature": 5.0, "seed": 7}

        alone = ask(model, texts("the film"), **how)["generated_text"]
        together = ask(model, texts("was", "the film"), **how)["generated_text"]
        other = ask(model, texts("the film"), **how | {"seed": 8})["generated_text"]

        assert alone[0] == together[1]
        assert alone != other

    def test_is_streamed_piece_by_piece(self, folder: Path) -> None:
        model = ready(folder)

        whole = ask(model, texts("the"), max_new_tokens=4, return_full_text=False)["generated_text"][0]
        pieces = streamed(model, "the", max_new_tokens=4)

        assert "stream" in model.signature.verbs
        assert len(pieces) > 1
        assert "".join(pieces).split() == whole.split()

    def test_a_stream_that_nobody_reads_ends(self, folder: Path) -> None:
        steps = ready(folder).open_stream(texts("the"), (), {"max_new_tokens": 60, "min_new_tokens": 60})
        assert steps.take() is not None

        steps.interrupt()
        steps.close()

        assert [thread for thread in threading.enumerate() if thread.name == "generate"] == []

    def test_a_stream_has_one_text(self, folder: Path) -> None:
        with pytest.raises(RequestError, match="input 'text' has 2 rows; a stream is the answer to one"):
            ready(folder).open_stream(texts("the", "a"), (), {})

    @pytest.mark.parametrize(
        ("parameters", "said"),
        [
            ({"max_tokens": 3}, "parameter 'max_tokens' is not known to this task; it takes max_new_tokens, "),
            ({"max_new_tokens": "3"}, "parameter 'max_new_tokens' is '3', and has to be int"),
            ({"max_new_tokens": True}, "parameter 'max_new_tokens' is True, and has to be int"),
            ({"top_p": 2}, "parameter 'top_p' is 2, and has to be at least 0.001 and at most 1"),
            ({"max_new_tokens": 500}, "the prompt has 1 tokens and 500 more are asked for"),
        ],
    )
    def test_a_parameter_that_is_wrong_is_the_callers_fault(
        self, folder: Path, parameters: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(RequestError) as failed:
            ask(ready(folder), texts("the"), **parameters)

        assert failed.value.status == 400
        assert said in failed.value.sentence


def streamed(model: Loaded, prompt: str, **parameters: Any) -> list[str]:
    steps = model.open_stream(texts(prompt), (), parameters)
    pieces = []
    while (step := model.take_step(steps)) is not None:
        pieces.append(step["generated_text"].item())
    steps.close()
    return pieces


class TestRefusals:
    @pytest.mark.parametrize(
        ("spoil", "code", "said"),
        [
            (lambda folder: (folder / "config.json").unlink(), "ARTIFACT_MISSING", "no config.json"),
            (
                lambda folder: (folder / "model.safetensors").write_bytes(
                    (folder / "model.safetensors").read_bytes()[:-100]
                ),
                "ARTIFACT_UNREADABLE",
                "is no whole safetensors file",
            ),
            (
                lambda folder: change(folder, model_type="from_the_future", transformers_version="99.1.0"),
                "VERSION_SKEW",
                "put `transformers==99.1.0` into a requirements.txt",
            ),
            (
                lambda folder: change(
                    folder, model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}
                ),
                "ARTIFACT_UNREADABLE",
                "brings Python code of its own",
            ),
        ],
    )
    def test_a_folder_that_cannot_be_served_says_why(
        self, sentiment: Path, tmp_path: Path, spoil: Callable[[Path], None], code: str, said: str
    ) -> None:
        folder = tmp_path / "m"
        folder.mkdir()
        for file in sentiment.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        spoil(folder)

        with pytest.raises(ModelFailed) as failed:
            ready(folder)

        assert failed.value.code == code
        assert said in failed.value.reason


def change(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
