"""Wrong labels that are found among scikit-learn's digits: precision, recall and F1, beside cleanlab where it is there.

    .venv/bin/python benchmarks/label_errors.py --seeds 5

Uniform: any other class by lot. Confusable: the class that it is most like. cleanlab gets the probabilities of a
logistic regression in five folds, as its guide does, and the same as Snellen's own: so that ranking and cutting can be
told from the model.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from snellen.metrics.held_out_classifier import HeldOutClassifier
from snellen.metrics.label_errors import find_label_errors, probabilities

Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

ALIKE = np.array([6, 7, 3, 8, 9, 9, 5, 1, 3, 4])  # to each digit
NOISES = [("uniform", 0.0), ("uniform", 0.01), ("uniform", 0.05), ("uniform", 0.20), ("alike", 0.05), ("alike", 0.20)]


def mislabelled(codes: Codes, kind: str, share: float, seed: int) -> Codes:
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(codes), round(share * len(codes)), replace=False)
    noisy = codes.copy()
    other = (codes[chosen] + rng.integers(1, 10, len(chosen))) % 10
    noisy[chosen] = other if kind == "uniform" else ALIKE[codes[chosen]]
    return noisy


def found_by_snellen(features: Floats, noisy: Codes) -> tuple[Mask, Floats]:
    """What is named, and the probabilities of the first round."""
    classifier = HeldOutClassifier.of(features, noisy, [None] * len(noisy))
    errors = find_label_errors(classifier, noisy, 10)
    return errors.suspect, probabilities(classifier.scores(noisy, 10), errors.noise.sharpness)


def logistic(features: Floats, noisy: Codes) -> Floats:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return np.asarray(cross_val_predict(model, features, noisy, cv=5, method="predict_proba"))


def cleanlab() -> Callable[[Codes, Floats], Mask] | None:
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return None
    return lambda noisy, chances: np.asarray(find_label_issues(noisy, chances))


def scored(named: Mask, wrong: Mask) -> tuple[float, float, float]:
    both = int((named & wrong).sum())
    precision, recall = both / max(1, int(named.sum())), both / max(1, int(wrong.sum()))
    return precision, recall, 2 * precision * recall / max(1e-12, precision + recall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    features, codes = load_digits(return_X_y=True)
    rival = cleanlab()
    print(f"{'noise':14} {'who':28} {'precision':>9} {'recall':>7} {'F1':>6} {'named':>6}")
    for kind, share in NOISES:
        rows: dict[str, list[tuple[float, float, float, float]]] = {}
        for seed in range(seeds if share else 1):
            noisy = mislabelled(codes, kind, share, seed)
            named, chances = found_by_snellen(features, noisy)
            entrants = {"snellen": named}
            if rival is not None:
                entrants["cleanlab, logistic"] = rival(noisy, logistic(features, noisy))
                entrants["cleanlab, Snellen's model"] = rival(noisy, chances)
            for who, mask in entrants.items():
                rows.setdefault(who, []).append((*scored(mask, noisy != codes), float(mask.sum())))
        for who, found in rows.items():
            precision, recall, f1, number = (statistics.mean(column) for column in zip(*found, strict=True))
            print(f"{kind} {share:4.0%}   {who:28} {precision:9.3f} {recall:7.3f} {f1:6.3f} {number:6.0f}", flush=True)


if __name__ == "__main__":
    main()
