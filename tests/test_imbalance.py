"""Rare classes: done as asked, or measured on the training images and done only where it is shown to help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from shapes import save_folders
from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.data.augment import Augmentation
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.loader import training_batches
from snellen.tasks.base import create_task
from snellen.tasks.segmentation.target import ClassMap
from snellen.train import imbalance
from snellen.train.imbalance import class_weights, settle_imbalance
from tiny_runs import a_plan, start, trainer_of

torch.set_num_threads(1)

COUNTS = st.lists(st.integers(0, 5000), min_size=1, max_size=12).filter(any)


# --- class weights


@given(COUNTS, st.sampled_from([0.9, 0.999, 1.0]))
def test_class_weights_are_one_on_average_over_images(counts: list[int], beta: float) -> None:
    weights = class_weights(counts, beta)
    assert np.dot(weights, counts) / sum(counts) == pytest.approx(1)
    assert all(weight > 0 for weight in weights)
    order = np.argsort(counts, kind="stable")
    there = [weights[i] for i in order if counts[i]]
    assert there == sorted(there, reverse=True)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    truth = np.repeat([0, 1, 2], [70, 20, 10])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=truth)
    assert class_weights([70, 20, 10], beta=1) == pytest.approx(expected)


def test_effective_numbers_are_those_of_the_paper() -> None:
    """Cui et al. 2019: the weights go as (1 - beta) / (1 - beta^n), between no weights and inverse frequency."""
    common, rare = class_weights([5000, 500], beta=0.999)
    assert rare / common == pytest.approx((1 - 0.999**5000) / (1 - 0.999**500))
    assert class_weights([5000, 500], beta=1e-9) == pytest.approx((1, 1))
    assert class_weights([30, 3], beta=0.999) == pytest.approx(class_weights([30, 3], beta=1), rel=0.02)
    assert class_weights([30, 0, 3])[1] == 1


# --- as asked


def scene(
    counts: Sequence[int], apart: float, *, d: int = 12, seed: int = 0
) -> tuple[Plan, Tensor, list[Record], Callable[..., tuple[Plan, str]]]:
    """Clouds of features, one a class, ``apart`` standard deviations from each other, and how to settle them."""
    rng = np.random.default_rng(seed)
    names = tuple(f"class {i}" for i in range(len(counts)))
    truth = np.repeat(np.arange(len(counts)), counts)
    centres = np.linalg.qr(rng.normal(size=(d, d)))[0][: len(counts)] * apart / 2**0.5
    features = torch.from_numpy(centres[truth] + rng.normal(size=(len(truth), d))).float()
    records = [Record(id=str(i), path=Path("x"), labels=(names[k],)) for i, k in enumerate(truth)]
    plan = a_plan(classes=names, loss="cross-entropy", probe="features")
    task = create_task("classification", names)
    targets = [task.target(record) for record in records]

    def settle(asked: str = "auto", given: Tensor | None = features, **settings: Any) -> tuple[Plan, str]:
        config = Config.of(data="x", imbalance=asked, **settings)
        return settle_imbalance(config, plan, task, given, records, targets)

    return plan, features, records, settle


@pytest.mark.parametrize(
    ("asked", "changed"),
    [
        ("none", {}),
        ("oversample", {"sampling": "oversample"}),
        ("undersample", {"sampling": "undersample"}),
        ("weights", {"class_weights": class_weights([40, 10])}),
        ("focal", {"loss": "focal"}),
        ("smote", {"smote": True}),
        ("thresholds", {"move_thresholds": True}),
    ],
)
def test_what_is_asked_for_is_done_without_measuring(asked: str, changed: dict[str, Any]) -> None:
    plan, _, _, settle = scene([40, 10], 1.0)
    settled, sentence = settle(asked, None)
    assert {name: getattr(settled, name) for name in changed} == changed
    before, after = plan.to_json()["choices"], settled.to_json()["choices"]
    assert {name for name in before if before[name] != after[name]} == set(changed)
    assert "10 images of class 1 to 40 of class 0" in sentence and "as asked" in sentence


def test_settings_that_contradict_each_other_are_refused() -> None:
    _, _, _, settle = scene([40, 10], 1.0)
    with pytest.raises(ConfigError, match="imbalance = 'focal' and loss = 'cross-entropy' contradict"):
        settle("focal", loss="cross-entropy")


def labels_scene(rate: float, apart: float) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    present = rng.random((300, 2)) < (0.5, rate)
    features = torch.from_numpy(rng.normal(size=(300, 8)) + apart * np.repeat(present, 4, axis=1)).float()
    records = [
        Record(id=str(i), path=Path("x"), labels=tuple(np.array(["a", "b"])[row].tolist()))
        for i, row in enumerate(present)
    ]
    task = create_task("multilabel", ("a", "b"))
    plan = a_plan(task="multilabel", classes=("a", "b"), loss="bce", probe="features")
    return plan, task, features, records, [task.target(record) for record in records]


def test_smote_needs_one_class_an_image() -> None:
    with pytest.raises(ConfigError, match="'smote' needs one class an image"):
        settle_imbalance(Config.of(data="x", imbalance="smote"), *labels_scene(0.1, 0.5))


def test_what_has_no_classes_has_nothing_to_balance() -> None:
    names = ("age",)
    plan, task = a_plan(task="regression", classes=names), create_task("regression", names)
    records = [Record(id=str(i), path=Path("x"), values=(float(i),)) for i in range(5)]
    rest = (plan, task, torch.zeros(5, 3), records, [task.target(record) for record in records])
    assert settle_imbalance(Config.of(data="x"), *rest) == (plan, "")
    with pytest.raises(ConfigError, match="needs classes"):
        settle_imbalance(Config.of(data="x", imbalance="weights"), *rest)


# --- as measured


def pixels_scene(rows: int, **settings: Any) -> tuple[Plan, str]:
    """Maps of 10 x 10 pixels with so many rows of 'rust', of the classes 'steel', 'rust' and 'paint' (none of it)."""
    classes = np.zeros((10, 10), np.uint8)
    classes[:rows] = 1
    names = ("steel", "rust", "paint")
    config = Config.of(data="x", **settings)
    plan = a_plan(task="segmentation", classes=names, loss=settings.get("loss", "cross-entropy+dice"))
    return settle_imbalance(
        config, plan, create_task("segmentation", names), None, [], [ClassMap.from_array(classes)] * 3
    )


def test_pixels_of_rare_classes_count_more_where_the_loss_counts_pixels() -> None:
    plan, sentence = pixels_scene(rows=2)
    steel, rust, paint = plan.class_weights
    assert (rust / steel) ** 2 == pytest.approx(4) and steel < 1 < rust and paint == 1
    assert "4 times as many of 'steel' as of 'rust'" in sentence and plan.reasons["imbalance"] in sentence


@pytest.mark.parametrize(
    ("rows", "settings"),
    [(4, {}), (10, {}), (1, {"imbalance": "none"}), (1, {"loss": "dice"}), (1, {"loss": "lovasz"})],
)
def test_pixels_count_alike_where_no_class_is_rare_or_no_weight_would_act(rows: int, settings: dict[str, Any]) -> None:
    plan, sentence = pixels_scene(rows, **settings)
    assert plan.class_weights == () and sentence == "" and "imbalance" not in plan.reasons


def test_overlapping_classes_of_which_one_is_rare_are_noticed_and_helped() -> None:
    _, _, _, settle = scene([260, 40], 2.0)
    plan, sentence = settle()
    assert plan.class_weights or plan.move_thresholds or plan.smote
    assert "balanced accuracy rises from" in sentence and plan.reasons["imbalance"] == sentence
    assert all(way in sentence for way in ("class weights", "moved thresholds", "SMOTE", "40 images of class 1"))


@pytest.mark.parametrize(
    ("counts", "apart", "reason"),
    [
        ([60, 40], 1.0, "classes are nearly balanced"),
        ([150, 30], 12.0, "100 % with nothing done"),
        ([90, 12], 0.0, "nothing is shown to raise the balanced accuracy"),
    ],
    ids=["balanced", "rare but easy", "nothing to be learnt"],
)
def test_nothing_is_done_where_nothing_is_shown(counts: list[int], apart: float, reason: str) -> None:
    plan, _, _, settle = scene(counts, apart)
    settled, sentence = settle()
    assert reason in sentence and settled.reasons["imbalance"] == sentence
    assert settled.to_json()["choices"] == plan.to_json()["choices"]


def test_without_features_or_with_one_group_nothing_is_measured() -> None:
    plan, features, records, settle = scene([90, 12], 1.0)
    assert "too little could be measured" in settle("auto", None)[1]
    task = create_task("classification", plan.classes)
    one_group = [Record(id=each.id, path=each.path, labels=each.labels, group="farm") for each in records]
    targets = [task.target(record) for record in one_group]
    settled, sentence = settle_imbalance(Config.of(data="x"), plan, task, features, one_group, targets)
    assert "too little could be measured" in sentence and not settled.move_thresholds


def test_rare_labels_are_tried_with_weights_and_thresholds_alone() -> None:
    plan, sentence = settle_imbalance(Config.of(data="x"), *labels_scene(0.1, 0.5))
    assert "class weights" in sentence and "moved thresholds" in sentence and "SMOTE" not in sentence
    assert plan.move_thresholds and "mean F1 of the labels rises" in sentence


def test_many_images_are_thinned_out_but_rare_classes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imbalance, "_MOST_IMAGES", 100)
    plan, features, records, _ = scene([900, 60, 12], 1.0)
    truth = np.repeat([0, 1, 2], [900, 60, 12])
    trial = imbalance._trial(plan, truth, features, [record.id for record in records])
    assert trial is not None
    assert np.bincount(trial.truth).tolist() == [93, 16, 12]
    chosen = [int(name) for name in trial.groups]
    assert np.array_equal(truth[chosen], trial.truth) and torch.equal(features[chosen], trial.features)
    monkeypatch.setattr(imbalance, "_MOST_WORK", 30)
    assert imbalance._trial(plan, truth, features, [record.id for record in records]) is None


# --- in the loop


def test_repeated_images_come_back_varied_and_steps_count_them(tmp_path: Path) -> None:
    data = save_folders(tmp_path / "data", per_class=24, side=8)
    for path in sorted((data / "circle").iterdir())[6:]:
        path.unlink()
    session = start(data, tmp_path, split="80/10/10", model="small-resnet")
    train: ImageSet = session.sides["train"]
    counts = [sum(record.labels == (name,) for record in train.records) for name in session.plan.classes]
    varied = Variation(augmentation=Augmentation.for_photos(), by_batch=False, seed=0, sampling="oversample")
    batches = list(training_batches(train, varied, epoch=0, batch_size=8, workers=2))
    ids = [image_id for batch in batches for image_id in batch.ids]
    pixels = torch.cat([batch.images for batch in batches])
    rare = next(record.id for record in train.records if record.labels == ("circle",))
    copies = [pixels[i] for i, image_id in enumerate(ids) if image_id == rare]
    assert len(copies) > 2 and not any(torch.equal(copies[0], other) for other in copies[1:])
    trainer = trainer_of(session, sampling="oversample", batch_size=8)
    assert trainer.steps_per_epoch == len(batches) == 3 * max(counts) // 8 + (3 * max(counts) % 8 > 1)
