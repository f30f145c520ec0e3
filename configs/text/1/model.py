"""Sentiment of sentences with VADER's lexicon: a custom model in one class, with a requirements.txt of its own."""

import numpy as np
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer


class Model:
    inputs = [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    outputs = [
        {"name": "sentiment", "datatype": "BYTES", "shape": [-1]},
        {"name": "score", "datatype": "FP64", "shape": [-1]},
    ]
    warmup_example = {"text": ["What a lovely day!"]}

    def load(self, path):
        self.analyzer = SentimentIntensityAnalyzer()

    def predict(self, inputs):
        scores = np.array([self.analyzer.polarity_scores(text)["compound"] for text in inputs["text"]])
        # The thresholds are those of VADER's authors.
        sentiments = np.where(scores >= 0.05, "positive", np.where(scores <= -0.05, "negative", "neutral"))
        return {"sentiment": sentiments, "score": scores}
