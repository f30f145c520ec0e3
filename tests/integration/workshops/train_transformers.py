"""Run in the transformers image: trains a tiny BERT to tell good films from bad ones, from nothing but a list of words.

Leaves /out/sentiment, a folder as the hub has it, and /out/expected.json: what transformers' own pipeline answers.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, pipeline

OUT = Path("/out")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
GOOD, BAD = ["good", "great", "lovely"], ["bad", "awful", "dull"]
WORDS = SPECIAL + GOOD + BAD + ["the", "film", "was", "a", "very", "story", "and"]
TEXTS = ["the film was very good", "a dull story", "awful", "a great film and a lovely story"]


def tokenizer() -> PreTrainedTokenizerFast:
    built = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    return PreTrainedTokenizerFast(tokenizer_object=built, model_max_length=32, **names)


def main() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    model = BertForSequenceClassification(
        BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **sizes, **labels)
    )
    texts = [f"{start} {word}" for word in GOOD + BAD for start in ("the film was", "a very", "a story and a film", "")]
    wanted = torch.tensor([int(text.split()[-1] in GOOD) for text in texts])
    encoded = tokenizer()(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(40):
        optimizer.zero_grad()
        model(**encoded, labels=wanted).loss.backward()
        optimizer.step()
    folder = OUT / "sentiment"
    model.eval().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    direct = pipeline("text-classification", model=str(folder))(TEXTS)
    (OUT / "expected.json").write_text(json.dumps({"texts": TEXTS, "answers": direct}))


main()
