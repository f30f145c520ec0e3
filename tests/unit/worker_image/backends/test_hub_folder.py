"""A folder of Hugging Face's form, read without its frameworks: test_transformers.py has models that load."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from worker_image.server.backends.hub_folder import read
from worker_image.server.errors import ModelFailed


def safetensors(content_bytes: int = 16, declared_bytes: int = 16) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, declared_bytes]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * content_bytes


def folder(directory: Path, architecture: str = "BertForMaskedLM", **files: bytes | None) -> Path:
    content: dict[str, bytes | None] = {
        "config.json": json.dumps({"model_type": "bert", "architectures": [architecture]}).encode(),
        "model.safetensors": safetensors(),
        "tokenizer.json": b"{}",
        **{name.replace("_dot_", "."): each for name, each in files.items()},
    }
    for name, each in content.items():
        if each is not None:
            (directory / name).write_bytes(each)
    return directory


class TestTask:
    @pytest.mark.parametrize(
        ("architecture", "task"),
        [
            ("BertForSequenceClassification", "text-classification"),
            ("XLMRobertaForTokenClassification", "token-classification"),
            ("BertForMaskedLM", "fill-mask"),
            ("GPT2LMHeadModel", "text-generation"),
            ("LlamaForCausalLM", "text-generation"),
            ("DistilBertForQuestionAnswering", "question-answering"),
            ("BertModel", "feature-extraction"),
        ],
    )
    def test_is_what_the_models_class_is_for(self, tmp_path: Path, architecture: str, task: str) -> None:
        assert read(folder(tmp_path, architecture), {}).task == task

    @pytest.mark.parametrize(
        ("tag", "task"),
        [
            ("zero-shot-classification", "zero-shot-classification"),
            ("sentence-similarity", "feature-extraction"),
            ("summarization", "fill-mask"),
        ],
    )
    def test_is_rather_that_of_the_model_card(self, tmp_path: Path, tag: str, task: str) -> None:
        card = f"---\nlicense: mit\npipeline_tag: {tag}\n---\n# A model\npipeline_tag: text-generation\n".encode()

        assert read(folder(tmp_path, README_dot_md=card), {}).task == task

    def test_is_first_of_all_the_versions_own(self, tmp_path: Path) -> None:
        assert read(folder(tmp_path), {"TRANSFORMERS_TASK": "ner"}).task == "token-classification"
        with pytest.raises(ModelFailed, match="TRANSFORMERS_TASK: 'translation'; the tasks are text-") as failed:
            read(folder(tmp_path), {"TRANSFORMERS_TASK": "translation"})
        assert failed.value.exit_code == 64

    def test_one_that_is_not_served_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match=r"config\.json: is for T5ForConditionalGeneration; the tasks served are"):
            read(folder(tmp_path, "T5ForConditionalGeneration"), {})


class TestFolder:
    @pytest.mark.parametrize(
        ("files", "code", "said"),
        [
            ({"config_dot_json": None}, "ARTIFACT_MISSING", "no config.json, but model.safetensors, tokenizer.json"),
            ({"config_dot_json": b"{"}, "ARTIFACT_UNREADABLE", "cannot be read as JSON"),
            ({"config_dot_json": b"[]"}, "ARTIFACT_UNREADABLE", "holds no JSON object"),
            ({"model_dot_safetensors": None}, "ARTIFACT_MISSING", "no weights (*.safetensors, pytorch_model.bin)"),
            ({"tokenizer_dot_json": None}, "ARTIFACT_MISSING", "no tokenizer"),
            ({"model_dot_safetensors": safetensors(8)}, "ARTIFACT_UNREADABLE", "is no whole safetensors file"),
            ({"model_dot_safetensors": safetensors()[:20]}, "ARTIFACT_UNREADABLE", "is no whole safetensors file"),
            ({"model_dot_safetensors": b"hello"}, "ARTIFACT_UNREADABLE", "is no whole safetensors file (5 bytes)"),
            (
                {"model_dot_safetensors": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"},
                "ARTIFACT_UNREADABLE",
                "is a Git LFS pointer, not the weights",
            ),
        ],
    )
    def test_one_that_is_not_whole_says_what_is_missing(
        self, tmp_path: Path, files: dict[str, bytes | None], code: str, said: str
    ) -> None:
        with pytest.raises(ModelFailed) as failed:
            read(folder(tmp_path, **files), {})

        assert failed.value.code == code
        assert said in failed.value.reason

    def test_a_folder_that_is_not_there_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ModelFailed, match=r"no config\.json, but nothing"):
            read(tmp_path / "absent", {})
