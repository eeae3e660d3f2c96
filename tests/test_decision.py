"""Confidence and thresholds settled on validation: exact where they are folded in, shown before they are moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shapes import save_folders
from snellen.core.checkpoint import Checkpoint, load_tensors, save_tensors
from snellen.data.image_sets import ImageSet
from snellen.metrics.decisions import class_decisions, label_decisions
from snellen.tasks.base import create_task
from snellen.tasks.classification.target import Label, LabelSet
from snellen.train import decision as decisions
from snellen.train.decision import (
    _folds,
    _log_loss,
    as_logits,
    as_scores,
    decide,
    fit_temperature,
    fit_thresholds,
    gain,
    held_out_decisions,
    settle_decision,
)
from snellen.train.settle import settle_best
from tiny_runs import a_plan, said, start

CLASSES = ("circle", "square", "triangle")
KINDS = ("classes", "labels")


def calibrated(kind: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, 3] and a truth that is drawn with just their probabilities."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 3))
    if kind == "labels":
        return logits, (rng.random((n, 3)) < as_scores(logits, logits)).astype(np.uint8)
    chances = as_scores(logits, np.zeros(n))
    return logits, (rng.random((n, 1)) > chances.cumsum(1)).sum(1)


def rare(n: int, seed: int = 0, skill: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Right probabilities [n, 2] of two classes, the second a tenth of the images, and the truth."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.1).astype(np.int64)
    seen = rng.normal(size=n) + skill * truth
    odds = skill * seen - skill**2 / 2 + np.log(0.1 / 0.9)
    return as_scores(np.stack([np.zeros(n), odds], 1), truth).astype(np.float32), truth


# --- temperature


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("planted", [0.4, 1.0, 3.0])
def test_a_planted_temperature_is_recovered(kind: str, planted: float) -> None:
    logits, truth = calibrated(kind, 4000)
    assert fit_temperature(logits * planted, truth) == pytest.approx(planted, rel=0.1)


@given(st.integers(0, 500), st.integers(2, 40), st.sampled_from(KINDS))
def test_a_temperature_changes_no_decision_and_never_raises_the_loss(seed: int, n: int, kind: str) -> None:
    logits, truth = calibrated(kind, n, seed)
    logits *= np.random.default_rng(seed).uniform(0.2, 6)
    temperature = fit_temperature(logits, truth)
    assert np.array_equal(
        decide(as_scores(logits, truth), truth), decide(as_scores(logits / temperature, truth), truth)
    )
    assert _log_loss(logits / temperature, truth) <= _log_loss(logits, truth)


def test_answers_that_are_all_right_are_not_made_certain() -> None:
    truth = np.arange(60) % 3
    logits = np.eye(3)[truth]  # right, and 58 % sure
    sure = as_scores(logits / fit_temperature(logits, truth), truth).max(1)
    assert 0.9 < sure.min() <= sure.max() < 0.999


@given(st.integers(0, 99), st.sampled_from(KINDS))
def test_scores_and_logits_are_two_sides_of_the_same(seed: int, kind: str) -> None:
    logits, truth = calibrated(kind, 20, seed)
    scores = as_scores(logits, truth).astype(np.float32)
    assert as_scores(as_logits(scores, truth), truth) == pytest.approx(scores, abs=1e-6)


def a_head(logits: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Features whose linear head gives ``logits``, and the weights of such a network."""
    weights = {"backbone.scale": torch.ones(2), "head.weight": 2 * torch.eye(3), "head.bias": torch.full((3,), 0.3)}
    return torch.from_numpy(logits / 2).float(), weights


def a_checkpoint(weights: Mapping[str, torch.Tensor], **changes: Any) -> Checkpoint:
    return Checkpoint(weights=weights, plan=a_plan(**changes), origin="fine-tuned", epoch=1, step=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_is_divided_out_of_the_head_and_nothing_else(kind: str) -> None:
    logits, truth = calibrated(kind, 500)
    features, weights = a_head(3 * logits)
    task = create_task("classification" if kind == "classes" else "multilabel", CLASSES)
    true: list[Any] = [Label(int(i)) for i in truth] if kind == "classes" else [LabelSet(row > 0) for row in truth]
    before = features @ weights["head.weight"].T + weights["head.bias"]
    saved = a_checkpoint(weights, task=task.name, calibrate="temperature")
    settled, (sentence,) = settle_decision(saved.plan, task, saved, task.decode(before), true)
    after = features @ settled.weights["head.weight"].T + settled.weights["head.bias"]
    temperature = float(before[0, 0] / after[0, 0])
    assert temperature == pytest.approx(3.0, rel=0.15) and f"{temperature:.2f}" in sentence
    assert torch.allclose(before / temperature, after, atol=1e-5)
    assert torch.equal(settled.weights["backbone.scale"], weights["backbone.scale"]) and settled.decision == ()
    again, (sentence,) = settle_decision(saved.plan, task, settled, task.decode(after), true)
    assert "stays as it is" in sentence  # a run that is resumed just then settles the same again
    assert torch.equal(again.weights["head.weight"], settled.weights["head.weight"])


def test_a_plan_that_asks_for_nothing_gives_the_same_checkpoint() -> None:
    saved = a_checkpoint(a_head(np.zeros((1, 3)))[1])
    assert settle_decision(saved.plan, create_task("classification", CLASSES), saved, [], []) == (saved, [])


# --- thresholds


def settled_on(scores: np.ndarray, truth: np.ndarray, **changes: Any) -> tuple[tuple[float, ...], str]:
    plan = a_plan(classes=("common", "rare"), move_thresholds=True, **changes)
    task = create_task("classification", plan.classes)
    saved = replace(a_checkpoint({}), plan=plan)
    predicted = [Label(int(row.argmax()), row) for row in scores]
    settled, (sentence,) = settle_decision(plan, task, saved, predicted, [Label(int(i)) for i in truth])
    assert settled.metrics["balanced_accuracy"].n == len(truth)
    return settled.decision, sentence


def test_a_rare_class_is_said_earlier_where_that_is_shown_to_help() -> None:
    scores, truth = rare(600)
    factors, sentence = settled_on(scores, truth)
    # The best for balanced accuracy is one over the frequency, as these probabilities are right.
    assert factors[0] == 1 and 4 < factors[1] < 25
    assert "moved" in sentence and "600 validation images" in sentence
    fresh_scores, fresh_truth = rare(4000, seed=1)
    fresh = gain(fresh_truth, decide(fresh_scores, fresh_truth), class_decisions(fresh_scores, factors), None, 0)
    assert fresh.after > fresh.before + 0.1


@pytest.mark.parametrize(("n", "skill"), [(30, 1.5), (400, 6.0)], ids=["too few images", "nothing to be won"])
def test_decisions_stay_as_they_are_where_nothing_is_shown(n: int, skill: float) -> None:
    factors, sentence = settled_on(*rare(n, seed=2, skill=skill))
    assert factors == () and "stay as usual" in sentence


def test_few_validation_images_need_only_agree_with_what_training_images_showed() -> None:
    scores, truth = rare(60, seed=5)
    found = gain(truth, decide(scores, truth), held_out_decisions(scores, truth, None, 0), None, 0)
    assert found.after > found.before and not found.is_shown
    reasons = a_plan().reasons
    assert settled_on(scores, truth)[0] == ()
    assert settled_on(scores, truth, reasons={**reasons, "imbalance": "measured"})[0] != ()


def test_thresholds_of_labels_have_the_best_f1(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import f1_score, precision_recall_curve

    monkeypatch.setattr(decisions, "_PRIOR_IMAGES", 0)
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 3)) < (0.1, 0.3, 0.6)).astype(np.uint8)
    scores = (rng.random((200, 3)) * 0.5 + 0.3 * truth).astype(np.float32).round(2)  # with equal scores
    thresholds = fit_thresholds(scores, truth)
    found = label_decisions(scores, thresholds)
    for i in range(3):
        precision, recall, _ = precision_recall_curve(truth[:, i], scores[:, i])
        best = (2 * precision * recall / np.maximum(precision + recall, 1e-9)).max()
        assert f1_score(truth[:, i], found[:, i]) == pytest.approx(best)


def test_thresholds_of_few_images_stay_near_one_half() -> None:
    scores = np.array([[0.02], [0.03], [0.3], *[[0.01]] * 40], np.float32)
    truth = np.array([[0], [0], [1], *[[0]] * 40], np.uint8)
    (few,) = fit_thresholds(scores, truth)
    (many,) = fit_thresholds(np.tile(scores, (20, 1)), np.tile(truth, (20, 1)))
    assert many < few < 0.5 and many < 0.22
    assert fit_thresholds(scores, np.zeros_like(truth)) == (0.5,) == fit_thresholds(scores, np.ones_like(truth))


def test_folds_within_validation_part_no_group_and_spread_each_class() -> None:
    truth = np.repeat([0, 1], [80, 20])
    groups = [f"patient {i // 2}" for i in range(100)]
    folds = _folds(truth, groups, 0)
    assert all(folds[i] == folds[i + 1] for i in range(0, 100, 2))
    assert np.bincount(folds[80:], minlength=5).tolist() == [4, 4, 4, 4, 4]


# --- the run


class Sealed(Mapping[str, ImageSet]):
    """Sides of which the test images must not be touched."""

    def __init__(self, sides: Mapping[str, ImageSet]) -> None:
        self.open = {split: side for split, side in sides.items() if split != "test"}

    def __getitem__(self, split: str) -> ImageSet:
        assert split != "test", "the test images were opened"
        return self.open[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self.open)

    def __len__(self) -> int:
        return len(self.open)


def test_what_is_settled_after_training_never_reads_the_test_images(tmp_path: Path) -> None:
    session = start(save_folders(tmp_path / "data", per_class=30, side=8), tmp_path, epochs=1, model="small-resnet")
    assert "test" in session.sides
    session.plan = replace(session.plan, calibrate="temperature", move_thresholds=True)
    weights = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}
    weights["head.weight"] *= 300  # far too sure
    best = Checkpoint(weights=weights, plan=session.plan, origin="fine-tuned", epoch=1, step=1)
    best.save(session.run.best_checkpoint)
    session.sides = Sealed(session.sides)
    with pytest.raises(AssertionError, match="opened"):
        session.sides["test"]
    settle_best(session)
    settled = Checkpoint.load(session.run.best_checkpoint)
    shrunk = float(weights["head.weight"].norm() / settled.weights["head.weight"].norm())
    assert shrunk > 1 and settled.metrics["log_loss"].n == len(session.sides["val"])
    assert "Confidence: the model was too sure" in said(session) and "Decisions" in said(session)
    assert session.task.decision == settled.decision


def test_checkpoints_that_are_older_than_decisions_decide_as_usual(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    replace(a_checkpoint(a_head(np.zeros((1, 3)))[1]), decision=(1.0, 2.0, 1.0)).save(path)
    assert Checkpoint.load(path).decision == (1.0, 2.0, 1.0)
    tensors, header = load_tensors(path)
    del header["decision"]
    save_tensors(path, tensors, header)
    assert Checkpoint.load(path).decision == ()
