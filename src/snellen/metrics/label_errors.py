"""Which labels are wrong, and how many: two kinds of surprise told apart.

A model that has not seen an image may disagree with its label because the image is hard or because the label is wrong.
Hard images are those that the model is in doubt about; a wrong label is denied with the same confidence with which
right ones are affirmed. So the labels are taken for a mixture: with probability 1 - rate the class that the model's
calibrated probabilities speak for, with probability ``rate`` another one. Which other one follows in part from what the
labels of all other images are when they differ from what the model says: mistakes have habits. Sharpness and rate are
fitted together, and each label then has a probability of being wrong.

What is named first is left out of what the model learns from; what is then said of all images is sharper, and the list
is made again. (Northcutt, Jiang and Chuang, JAIR 70 (2021) 1373, rank by margin and prune by counts instead.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from snellen.metrics.held_out_classifier import HeldOutClassifier

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

TOLERATED = 0.0025  # share of wrong labels: so many hard images look mislabelled to a good model
# Of the images that a model is expected to be wrong about, as many may be denied confidently although their labels are
# right. Without a planted fault it was at most 0.13 where it could be told from nothing (CIFAR-10, 76 % right).
_TOLERATED_OF_HARD = 0.3
_UNAVOIDABLE = 0.5  # of what is tolerated, is expected to be there
_HIGHEST = 0.9  # rate for one class
_ROUNDS = 3
_EVENLY = 2.0  # images of each class whose wrong labels are thought to be spread evenly, before any was seen
_FALSE_SHARE = 0.05  # of the labels that are named, wrongly
_RATES = np.concatenate([[0.0], np.geomspace(1e-4, 0.6, 60)])
_SHARPNESS = np.geomspace(0.5, 60, 40)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """Of labels and what a model says of them.

    rate, low, high  share of wrong labels, with its 95 % interval
    sharpness        probabilities are softmax(sharpness * scores)
    tolerated        share of labels that hard images may make look wrong
    p                that no more labels than these are wrong
    """

    rate: float
    low: float
    high: float
    sharpness: float
    tolerated: float
    p: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelErrors:
    """noise of the labels as they are; scores [n, k] of the last round.

    doubt      the probability that each label is wrong, [n]
    suggested  the class that the model names instead, [n]
    suspect    the images that are named, [n]
    """

    noise: Noise
    doubt: Floats
    suggested: Codes
    suspect: Mask
    scores: Floats

    @property
    def false_share(self) -> float:
        """Of the labels that are named, how many are expected to be right, those of hard images among them."""
        if not self.suspect.any():
            return 0.0
        hard = min(1.0, _UNAVOIDABLE * self.noise.tolerated / max(self.noise.rate, 1e-12))
        return float(1 - self.doubt[self.suspect].mean() * (1 - hard))


def find_label_errors(
    classifier: HeldOutClassifier, codes: Codes, num_classes: int, among: Mask | None = None
) -> LabelErrors:
    """codes: the label of each image that ``classifier`` holds, 0..k-1, [n].

    among  the images to learn from and to judge, [n]; the others are never suspects. None: all
    """
    among = np.ones(len(codes), np.bool_) if among is None else among
    first = errors = _judged(classifier.scores(codes, num_classes, among), codes, among)
    for _ in range(_ROUNDS - 1):
        if not errors.suspect.any():
            break
        errors = _judged(classifier.scores(codes, num_classes, among & ~errors.suspect), codes, among)
    return replace(errors, noise=first.noise)


def label_noise(scores: Floats, codes: Codes) -> Noise:
    """Maximum likelihood of sharpness and rate; scores [n, k], about probabilities, of images that were held out.

    The p-value and the interval are those of the likelihood ratio (Wilks 1938).
    """
    from scipy.special import chdtrc

    table = _likelihoods(scores, codes)
    best = np.unravel_index(table.argmax(), table.shape)
    profile = table.max(0)
    inside = _RATES[profile >= profile.max() - 1.92]
    sharpness = float(_SHARPNESS[best[0]])
    hard = float((1 - probabilities(scores, sharpness).max(1)).mean())
    tolerated = max(TOLERATED, _TOLERATED_OF_HARD * hard)
    excess = 2 * (profile.max() - profile[: np.searchsorted(_RATES, tolerated) + 1].max())
    return Noise(
        rate=float(_RATES[best[1]]),
        low=float(inside.min()),
        high=float(inside.max()),
        sharpness=sharpness,
        tolerated=tolerated,
        p=0.5 * float(chdtrc(1, excess)) if excess > 0 else 1.0,
    )


def _likelihoods(scores: Floats, codes: Codes) -> Floats:
    """log likelihood of the labels [sharpness, rate]."""
    habits = _Habits.of(scores, codes)
    rows = []
    for sharpness in _SHARPNESS:
        own, other = habits.own_and_other(probabilities(scores, sharpness))
        rate = np.minimum(_HIGHEST, habits.often[:, None] * _RATES)
        rows.append(np.log(np.maximum(own[:, None] * (1 - rate) + other[:, None] * rate, 1e-300)).sum(0))
    return np.stack(rows)


@dataclass(frozen=True, slots=True)
class _Habits:
    """What images are called whose label differs from what the model says.

    counts [k, k]: of the class that it says, how often the other label; codes, said [n]
    """

    counts: Floats
    codes: Codes
    said: Codes

    @classmethod
    def of(cls, scores: Floats, codes: Codes) -> _Habits:
        said = scores.argmax(1)
        counts = np.zeros((scores.shape[1], scores.shape[1]))
        np.add.at(counts, (said, codes), 1.0)
        np.fill_diagonal(counts, 0.0)
        return cls(counts, codes, said)

    @property
    def often(self) -> Floats:
        """How often images of the class that the model says are called another, over the mean of all images, [n].

        Half of it: the other half is 1. As for the habits, an image does not count among those it is judged by.
        """
        k = len(self.counts)
        differs = self.said != self.codes
        of_class, sizes = self.counts.sum(1), np.bincount(self.said, minlength=k)
        mean = (of_class.sum() + _EVENLY) / (len(self.codes) + _EVENLY)
        share = (of_class[self.said] - differs + _EVENLY * mean) / (sizes[self.said] - 1 + _EVENLY)
        return np.asarray(0.5 + 0.5 * share / mean)

    def own_and_other(self, chances: Floats) -> tuple[Floats, Floats]:
        """The probability of each label if it is right, and if it is wrong, [n] each; ``chances`` [n, k].

        Wrong labels are half habit, half any other class: a habit that is none then costs little. An image does not
        count among the habits by which it is judged: else each would speak for itself.
        """
        rows, others = np.arange(len(self.codes)), self.counts.shape[0] - 1
        habit = (self.counts + _EVENLY / others) / (self.counts.sum(1) + _EVENLY)[:, None]
        np.fill_diagonal(habit, 0.0)
        other = np.einsum("nk,kn->n", chances, habit[:, self.codes])
        seen, total = self.counts[self.said, self.codes], self.counts[self.said].sum(1) + _EVENLY
        without = (seen - 1 + _EVENLY / others) / np.maximum(total - 1, _EVENLY)
        change = np.where(self.said != self.codes, without - habit[self.said, self.codes], 0.0)
        own = chances[rows, self.codes]
        return own, 0.5 * (other + chances[rows, self.said] * change) + 0.5 * (1 - own) / others


def probabilities(scores: Floats, sharpness: float) -> Floats:
    """softmax(sharpness * scores), [n, k]."""
    raised = np.exp(sharpness * (scores - scores.max(1, keepdims=True)))
    return np.asarray(raised / raised.sum(1, keepdims=True))


def _judged(scores: Floats, codes: Codes, among: Mask) -> LabelErrors:
    noise = label_noise(scores[among], codes[among])
    habits = _Habits.of(scores[among], codes[among])
    own, other = habits.own_and_other(probabilities(scores[among], noise.sharpness))
    rate = np.minimum(_HIGHEST, noise.rate * habits.often)
    doubt = np.zeros(len(codes))
    doubt[among] = rate * other / np.maximum((1 - rate) * own + rate * other, 1e-300)
    suggested = scores.argmax(1)
    suspect = _named(doubt, (suggested != codes) & among)
    return LabelErrors(noise=noise, doubt=doubt, suggested=suggested, suspect=suspect, scores=scores)


def _named(doubt: Floats, differs: Mask) -> Mask:
    """As many of the most doubtful as keep the expected share of right labels among them at one in twenty."""
    order = np.argsort(-np.where(differs, doubt, -1.0), kind="stable")[: int(differs.sum())]
    false = np.cumsum(1 - doubt[order]) / np.arange(1, len(order) + 1)
    kept = order[: int(np.count_nonzero(false <= _FALSE_SHARE))]
    named = np.zeros(len(doubt), np.bool_)
    named[kept[doubt[kept] > 0.5]] = True
    return named
