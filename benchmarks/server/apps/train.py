"""`train.py OUT`: the linear iris model, with the scikit-learn of whoever serves it."""

import sys

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

features, species = load_iris(return_X_y=True)
joblib.dump(LogisticRegression(max_iter=1000).fit(features, species), sys.argv[1])
