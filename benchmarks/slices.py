"""How many planted failing slices are found, and how many are told where there are none.

    python benchmarks/slices.py [--planted 200] [--healthy 300]

Synthetic answers: classes are Gaussian clouds in the features, the model answers by its posterior, with temperature and
label noise at will. A hidden attribute of 5 % of the images shifts them in the features by so many standard deviations
("visible"), and the model fails there, with the confidence that it has elsewhere. "rule": the model answers by a
direction of the features wherever that is extreme. "in facts": a column names the attribute, the features do not;
"unsure": so, and the model has half its confidence there.

Digits: scikit-learn's digits, answered by a small network whose hidden layer is the features; a look-alike group of one
digit is left out of training, or has the label of another digit there.

Found is a slice if a part is told of which half at least is the slice, and which holds at least 30 % of it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from snellen.doctor.answers.failing import failing_parts
from snellen.doctor.case import Answers, Case

KINDS = ("attribute", "of one class", "rule", "in facts", "unsure")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def clouds(
    rng: np.random.Generator, n: int, k: int, d: int, spread: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [n, d], truth [n] and the logits of the true posterior [n, k]; classes differ in difficulty."""
    centres = rng.normal(size=(k, d)) * spread * rng.uniform(0.8, 1.3, (k, 1)) / np.sqrt(d)
    truth = rng.integers(k, size=n)
    features = centres[truth] + rng.normal(size=(n, d))
    logits = features @ centres.T - 0.5 * (centres**2).sum(1)
    return features, truth, logits


def healthy(seed: int) -> Case:
    """Ugly in some way or other: over-confident, noisy labels, few images, groups, facts that follow the class."""
    rng = np.random.default_rng(seed)
    n, k, d = int(rng.choice([150, 400, 1000, 2000])), int(rng.choice([2, 3, 10])), int(rng.choice([8, 32, 64]))
    features, truth, logits = clouds(rng, n, k, d, rng.uniform(2.5, 6))
    scores = softmax(logits * rng.choice([0.5, 1.0, 1.0, 2.0, 4.0]))
    noise = rng.choice([0.0, 0.0, 0.05, 0.2])
    truth = np.where(rng.random(n) < noise, rng.integers(k, size=n), truth)
    facts = {"camera": rng.choice(["a", "b", "c"], n).tolist(), "size": rng.lognormal(5, 1, n).tolist()}
    facts["source"] = [f"s{label % 3}" if rng.random() < 0.8 else "s9" for label in truth]
    groups: list[str] = []
    if rng.random() < 0.3:
        groups = [f"g{group}" for group in rng.integers(max(2, n // 3), size=n)]
    mix = rng.normal(size=(d, d)) / np.sqrt(d) if rng.random() < 0.5 else np.eye(d)
    ids = [f"{i}.jpg" for i in range(n)]
    answers = Answers(probabilities=scores, truth=truth, ids=ids, features=features @ mix, facts=facts, groups=groups)
    return Case(answers={"val": answers}, classes=[f"c{i}" for i in range(k)], seed=seed)


def ruled(score: np.ndarray, logits: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A model that answers with the first class wherever the score is among the highest, and whom that misleads. All
    of it follows from the features."""
    fires = score > np.quantile(score, 0.94)
    pushed = logits.copy()
    pushed[fires, 0] += np.abs(logits[fires]).max() + 1
    return softmax(pushed), fires & (truth != 0)


def planted(seed: int, kind: str, visible: float, n: int = 1000) -> tuple[Case, np.ndarray]:
    """A case with a failing slice, and which images are in it."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.choice([2, 3, 10])), int(rng.choice([8, 32, 64]))
    features, truth, logits = clouds(rng, n, k, d, rng.uniform(3.5, 6))
    slice_ = rng.random(n) < 0.05
    if kind == "of one class":
        slice_ = (truth == 0) & (rng.random(n) < 0.05 * k)
    scores = softmax(logits)
    fails = slice_ & (rng.random(n) < rng.uniform(0.6, 1.0))
    wrong = (truth + rng.integers(1, k, size=n)) % k if k > 1 else truth
    if kind == "of one class":
        wrong = np.full(n, 1)
    swapped = scores.copy()
    rows = np.flatnonzero(fails)
    top = scores.argmax(1)
    swapped[rows, top[rows]], swapped[rows, wrong[rows]] = scores[rows, wrong[rows]], scores[rows, top[rows]]
    if kind == "unsure":
        swapped[slice_] = swapped[slice_] * 0.5 + 0.5 / k
    direction = rng.normal(size=d)
    direction /= np.linalg.norm(direction)
    features = features + np.outer(slice_ * visible, direction)
    facts: dict[str, list[Any]] = {"camera": rng.choice(["a", "b", "c"], n).tolist()}
    facts["size"] = rng.lognormal(5, 1, n).tolist()
    if kind in ("in facts", "unsure"):
        facts["light"] = np.where(slice_, "flash", rng.choice(["day", "night"], n)).tolist()
    if kind == "rule":
        swapped, slice_ = ruled(features @ direction, logits, truth)
    ids = [f"{i}.jpg" for i in range(n)]
    answers = Answers(probabilities=swapped, truth=truth, ids=ids, features=features, facts=facts)
    return Case(answers={"val": answers}, classes=[f"c{i}" for i in range(k)], seed=seed), slice_


@cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, labels, and a look-alike group of each image within its digit."""
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    pixels = pixels / 16
    groups = np.zeros(len(labels), int)
    for digit in range(10):
        rows = labels == digit
        groups[rows] = KMeans(3, n_init=3, random_state=0).fit_predict(pixels[rows])
    return pixels, labels, groups


def digit_case(seed: int, plant: str) -> tuple[Case, np.ndarray]:
    """plant: '' healthy; 'missing': a group is missing in training; 'mislabelled': it has another digit's label."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    pixels, labels, groups = digits()
    rng = np.random.default_rng(seed)
    digit = int(rng.integers(10))
    slice_ = (labels == digit) & (groups == rng.integers(3))
    train = rng.random(len(labels)) < 0.4
    given = labels.copy()
    if plant == "mislabelled":
        given[slice_] = (digit + 1 + rng.integers(9)) % 10
    rows = train & ~slice_ if plant == "missing" else train
    epochs = int(rng.choice([20, 60]))
    net = MLPClassifier((32,), alpha=1e-3, max_iter=epochs, random_state=seed, learning_rate_init=5e-3)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        net.fit(pixels[rows], given[rows])
    val = ~train
    hidden = np.maximum(pixels[val] @ net.coefs_[0] + net.intercepts_[0], 0)
    scores = np.zeros((int(val.sum()), 10))
    scores[:, net.classes_] = net.predict_proba(pixels[val])
    ids = [f"{i}.png" for i in np.flatnonzero(val)]
    answers = Answers(
        probabilities=scores,
        truth=labels[val].astype(np.int64),
        ids=ids,
        features=hidden,
        facts={"brightness": pixels[val].mean(1).tolist()},
    )
    return Case(answers={"val": answers}, classes=[str(i) for i in range(10)], seed=seed), slice_[val]


def is_found(case: Case, slice_: np.ndarray) -> bool:
    """Whether a part is told of which half at least is the planted slice, and which holds 30 % of it at least."""
    for part in failing_parts(case.answers["val"], case.classes, case.seed):
        both = np.count_nonzero(part.members & slice_)
        if both >= 0.5 * np.count_nonzero(part.members) and both >= 0.3 * np.count_nonzero(slice_):
            return True
    return False


def tells(case: Case) -> bool:
    return bool(failing_parts(case.answers["val"], case.classes, case.seed))


def trials(num: int) -> Iterator[tuple[str, Case, np.ndarray]]:
    for seed in range(num):
        kind = KINDS[seed % 5]
        visible = (1.0, 2.0, 4.0, 6.0)[seed // 5 % 4] if kind in KINDS[:2] else 0.0
        yield f"clouds: {kind}, visible {visible:g}", *planted(seed, kind, visible)
    for seed in range(num // 4):
        plant = ("missing", "mislabelled")[seed % 2]
        case, slice_ = digit_case(seed, plant)
        if (~case.answers["val"].correct[slice_]).mean() >= 0.4:  # else it does no harm
            yield f"digits: {plant}", case, slice_


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--healthy", type=int, default=300)
    options = parser.parse_args()
    start = time.perf_counter()
    found: dict[str, list[bool]] = defaultdict(list)
    for name, case, slice_ in trials(options.planted):
        found[name].append(is_found(case, slice_))
    for name in sorted(found):
        print(f"{name:<45} found {sum(found[name]):>4} of {len(found[name])}")
    every = [each for values in found.values() for each in values]
    print(f"{'planted, all':<45} found {sum(every):>4} of {len(every)} = {np.mean(every):.0%}")
    false = [tells(healthy(seed)) for seed in range(options.healthy)]
    print(f"{'healthy clouds':<45} told  {sum(false):>4} of {len(false)}")
    false = [tells(digit_case(10_000 + seed, "")[0]) for seed in range(options.healthy // 3)]
    print(f"{'healthy digits':<45} told  {sum(false):>4} of {len(false)}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
