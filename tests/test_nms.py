"""Suppression keeps what the definitions keep, in one order, whatever it is given."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snellen.nn.detection.nms import Suppression, greedy_nms, select, soft_nms

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchvision import ops

torch.set_num_threads(1)

KINDS: tuple[Suppression, ...] = ("per class", "agnostic", "soft", "none")


def _candidates(seed: int, count: int = 40, classes: int = 3, side: float = 60.0) -> Tensor:
    """Boxes that overlap a lot, no two scores alike."""
    generator = torch.Generator().manual_seed(seed)
    corners = side * torch.rand(count, 2, generator=generator)
    sizes = 5 + 25 * torch.rand(count, 2, generator=generator)
    scores = (torch.randperm(count * classes, generator=generator).float() + 0.5) / (count * classes)
    return torch.cat([corners, corners + sizes, scores.reshape(count, classes)], 1)


def _iou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _greedy(boxes: list[list[float]], scores: list[float], labels: list[int], iou: float) -> list[int]:
    """By the definition, in plain Python."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[j] or _iou(boxes[i], boxes[j]) <= iou for j in kept):
            kept.append(i)
    return kept


def _soft(boxes: list[list[float]], scores: list[float], labels: list[int], threshold: float) -> dict[int, float]:
    """By the paper's figure 2, in plain Python: place -> the score it is kept with, in order."""
    left, kept = dict(enumerate(scores)), {}
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        kept[best] = left.pop(best)
        for i in left:
            if labels[i] == labels[best]:
                left[i] *= math.exp(-(_iou(boxes[best], boxes[i]) ** 2) / 0.5)
    return {i: score for i, score in kept.items() if score > threshold}


def _flat(candidates: Tensor) -> tuple[list[list[float]], list[float], list[int]]:
    """One row for each class of each candidate."""
    classes = candidates.shape[1] - 4
    boxes = candidates[:, :4].repeat_interleave(classes, 0)
    return boxes.tolist(), candidates[:, 4:].flatten().tolist(), list(range(classes)) * len(candidates)


@given(seed=st.integers(0, 10_000), iou=st.sampled_from((0.3, 0.5, 0.7)), threshold=st.sampled_from((0.0, 0.4)))
def test_greedy_suppression_is_the_definition(seed: int, iou: float, threshold: float) -> None:
    candidates = _candidates(seed, 15)
    boxes, scores, labels = _flat(candidates)
    for kind, groups in (("per class", labels), ("agnostic", [0] * len(labels))):
        expected = [i for i in _greedy(boxes, scores, groups, iou) if scores[i] > threshold]
        found = select(candidates, threshold=threshold, iou=iou, kind=kind)  # type: ignore[arg-type]
        assert (found.candidate * 3 + found.labels).tolist() == expected
        assert found.scores.tolist() == [scores[i] for i in expected]
        assert found.boxes.tolist() == [boxes[i] for i in expected]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_suppression_is_that_of_torchvision(seed: int) -> None:
    candidates = _candidates(seed, 300, 4, 200.0)
    boxes, scores, labels = (torch.tensor(each) for each in _flat(candidates))
    found = select(candidates, threshold=-1, iou=0.5, most=10_000)
    assert (found.candidate * 4 + found.labels).tolist() == ops.batched_nms(boxes, scores, labels, 0.5).tolist()


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from((0.001, 0.2)))
def test_soft_suppression_is_the_paper(seed: int, threshold: float) -> None:
    candidates = _candidates(seed, 12, 2)
    boxes, scores, labels = _flat(candidates)
    expected = _soft(boxes, scores, labels, threshold)
    found = select(candidates, threshold=threshold, kind="soft")
    assert (found.candidate * 2 + found.labels).tolist() == list(expected)
    assert found.scores.tolist() == pytest.approx(list(expected.values()), rel=1e-5)


def test_soft_suppression_lets_a_neighbour_live_with_a_lower_score() -> None:
    """Two boxes of IoU 0.6: greedy at 0.5 drops the second, soft keeps it at 0.8 exp(-0.36 / 0.5)."""
    candidates = torch.tensor([[0.0, 0, 10, 10, 0.9], [0.0, 2.5, 10, 12.5, 0.8]])
    assert len(select(candidates, threshold=0.1, iou=0.5).boxes) == 1
    soft = select(candidates, threshold=0.1, kind="soft")
    assert soft.scores.tolist() == pytest.approx([0.9, 0.8 * math.exp(-0.36 / 0.5)])


def test_boxes_that_overlap_by_exactly_the_limit_are_both_kept() -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10, 0.9], [0.0, 0, 10, 5, 0.8]])  # IoU 0.5
    assert len(select(candidates, threshold=0.1, iou=0.5).boxes) == 2
    assert len(select(candidates, threshold=0.1, iou=0.49).boxes) == 1


def test_one_candidate_may_be_several_classes_unless_agnostic() -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10, 0.6, 0.9]])
    found = select(candidates, threshold=0.5)
    assert found.labels.tolist() == [1, 0] and found.candidate.tolist() == [0, 0]
    assert select(candidates, threshold=0.5, kind="agnostic").labels.tolist() == [1]


def test_equal_scores_come_in_the_order_of_candidates() -> None:
    boxes = torch.arange(20.0)[:, None] * 100 + torch.tensor([0.0, 0, 10, 10])
    candidates = torch.cat([boxes, torch.full((20, 2), 0.5)], 1)
    for kind in KINDS:
        found = select(candidates, threshold=0.1, kind=kind)
        order = [(c, k) for c in range(20) for k in range(1 if kind == "agnostic" else 2)]
        assert list(zip(found.candidate.tolist(), found.labels.tolist(), strict=True)) == order, kind


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_is_nothing_out(kind: Suppression) -> None:
    for candidates in (torch.zeros(0, 7), torch.zeros(5, 7), torch.zeros(0, 4), torch.zeros(5, 4)):
        found = select(candidates, threshold=0.1, kind=kind)
        assert found.boxes.shape == (0, 4) and found.boxes.dtype == found.scores.dtype == torch.float32
        assert found.labels.dtype == found.candidate.dtype == torch.int64
        assert len(found.scores) == len(found.labels) == len(found.candidate) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_come_first_and_no_more_than_asked(kind: Suppression) -> None:
    candidates = _candidates(7, 200)
    found = select(candidates, threshold=0.05, kind=kind, most=10)
    assert len(found.boxes) == 10
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert float(found.scores[0]) == float(candidates[:, 4:].max())
    torch.testing.assert_close(found.boxes, candidates[found.candidate, :4])


@pytest.mark.parametrize("kind", KINDS)
def test_bad_numbers_are_not_kept(kind: Suppression) -> None:
    candidates = torch.tensor([[0.0, 0, 10, 10, math.nan], [20.0, 0, 30, 10, 0.9], [5.0, 5, 5, 5, 0.8]])
    assert select(candidates, threshold=0.1, kind=kind).candidate.tolist() == [1, 2]


def test_half_precision_candidates_are_taken() -> None:
    found = select(_candidates(3).bfloat16(), threshold=0.5)
    assert found.boxes.dtype == found.scores.dtype == torch.float32 and len(found.boxes) > 0


def test_what_is_given_stays_as_it_is() -> None:
    candidates = _candidates(5)
    before = candidates.clone()
    for kind in KINDS:
        select(candidates, threshold=0.1, kind=kind)
    assert torch.equal(candidates, before)
    scores = np.array([0.9, 0.8], np.float32)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    soft_nms(boxes, scores, np.zeros(2, np.int64), threshold=0.0, most=5)
    assert scores.tolist() == pytest.approx([0.9, 0.8])
    assert greedy_nms(boxes, np.zeros(2, np.int64), iou=0.5, most=5).tolist() == [0]
