"""What several models decide together by counting votes or ranks, where their probabilities are not to be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.tasks.classification.target import Label, LabelSet

Floats = NDArray[np.float64]


def most_named(said: Sequence[Sequence[Label]], reference: np.ndarray | None = None) -> list[Label]:
    """The class that most models name; among as many votes the one of the higher mean probability.

    said  predictions of each model, [models][images]
    Scores are the shares of the votes.
    """
    names = np.array([[label.index for label in of_model] for of_model in said])
    probabilities = _scores(said)
    shares = np.eye(probabilities.shape[2])[names].mean(axis=0)
    favour = shares + probabilities.mean(axis=0) / (2 * len(said))  # less than half a vote
    return [Label(int(k), row) for k, row in zip(favour.argmax(axis=1), shares.astype(np.float32), strict=True)]


def mean_rank_of_classes(said: Sequence[Sequence[Label]], reference: np.ndarray | None = None) -> list[Label]:
    """The class of the highest mean rank among the classes of an image: Borda's count, as in Ho, Hull and Srihari,
    IEEE PAMI 16 (1994) 66. Among equal ranks the one of the higher mean probability.

    Scores are the points of the classes as shares of all points.
    """
    from scipy.stats import rankdata

    probabilities = _scores(said)
    points = rankdata(probabilities, axis=2).mean(axis=0)  # 1 for the least likely class
    favour = points + probabilities.mean(axis=0) / (2 * len(said))
    shares = (points / points.sum(axis=1, keepdims=True)).astype(np.float32)
    return [Label(int(k), row) for k, row in zip(favour.argmax(axis=1), shares, strict=True)]


def labels_of_most(said: Sequence[Sequence[LabelSet]], reference: np.ndarray | None = None) -> list[LabelSet]:
    """The labels that more than half of the models find; of as many as do not, those of mean probability 0.5 or more.

    Scores are the shares of the votes.
    """
    shares, present = _voted(said)
    return [LabelSet(there, row) for there, row in zip(present, shares.astype(np.float32), strict=True)]


def mean_rank_among_images(said: Sequence[Sequence[LabelSet]], reference: np.ndarray | None = None) -> list[LabelSet]:
    """How high each label ranks among the images of ``reference``, mean over the models; present as ``labels_of_most``.

    reference  scores of other images by each model, [models, images, labels]
    Scores are the mean share of these images that score lower, 0..1: they order images well, and are no probabilities.
    """
    if reference is None:
        raise ValueError("mean_rank_among_images: scores of other images are needed to rank by")
    scores = _scores(said)
    ranks = np.zeros(scores.shape[1:])
    for of_model, others in zip(scores, np.sort(reference.astype(np.float64), axis=1), strict=True):
        for label in range(scores.shape[2]):
            low, high = (np.searchsorted(others[:, label], of_model[:, label], side) for side in ("left", "right"))
            ranks[:, label] += (low + high) / (2 * len(others) * len(said))
    _, present = _voted(said)
    return [LabelSet(there, row) for there, row in zip(present, ranks.astype(np.float32), strict=True)]


def _voted(said: Sequence[Sequence[LabelSet]]) -> tuple[Floats, NDArray[np.bool_]]:
    shares = np.array([[labels.present for labels in of_model] for of_model in said], np.float64).mean(axis=0)
    tied = _scores(said).mean(axis=0) >= 0.5
    return shares, np.where(shares == 0.5, tied, shares > 0.5)


def _scores(said: Sequence[Sequence[Label]] | Sequence[Sequence[LabelSet]]) -> Floats:
    """[models, images, classes]"""
    return np.array([[each.scores for each in of_model] for of_model in said], np.float64)
