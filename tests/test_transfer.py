"""The four cases of transfer are told apart by what is planted in the features, and what was asked for stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC
from torch import Tensor

from snellen.core.checkpoint import Checkpoint
from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.data.image_sets import ImageSet
from snellen.data.store import ImageStore
from snellen.nn.held_out import fit_linear, grouped_folds, held_out, keyed_groups
from snellen.nn.network import Network
from snellen.nn.small_resnet import SmallResNet
from snellen.nn.support_vectors import fit_linear_svm
from snellen.tasks.base import TASKS, Task, create_task, is_dense
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.loading import load_model
from snellen.tasks.regression.target import Values
from snellen.train.probe import Probe, probe_with
from snellen.train.transfer import settle_transfer, svm_probe
from tiny_runs import a_plan

torch.set_num_threads(1)

CLASSES = ("ants", "bees", "flies")
SPLITS = {"train": 160, "val": 50, "test": 50}
PREPROCESSING = Preprocessing(input_size=(16, 16), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3)
STORE = ImageStore(preprocessing=PREPROCESSING, budget=0, keep_sources=False)
CONFIG: dict[str, Any] = {"data": "somewhere"}
Clarity = Mapping[int, float]  # by stage: how far the classes lie apart in its features, in standard deviations


def a_pretrained_plan(**changes: Any) -> Plan:
    return a_plan(**{"classes": CLASSES, "pretrained": True, "transfer": "full", "probe": "features", **changes})


def planted(clarity: Clarity, sizes: Mapping[str, int] = SPLITS) -> tuple[dict[str, ImageSet], Probe, Task[Any]]:
    """Images whose features of each stage tell their class as clearly as that, and the probe on the last stage."""
    rng = np.random.default_rng(7)
    sides, stages = {}, {stage: {} for stage in clarity}  # type: ignore[var-annotated]
    task = create_task("classification", CLASSES)
    for split, n in sizes.items():
        truth = rng.integers(0, len(CLASSES), n)
        records = [Record(id=f"{split}/{i}", path=Path(f"{split}/{i}")) for i in range(n)]
        sides[split] = ImageSet(records=records, targets=[Label(int(i)) for i in truth], store=STORE)
        for stage, apart in clarity.items():
            places = apart * np.eye(len(CLASSES), 8)[truth] + rng.normal(size=(n, 8))
            stages[stage][split] = torch.from_numpy(places).float()
    features = stages[max(stages)]
    groups = [record.id for record in sides["train"].records]
    head = task.fit_probe(features["train"], sides["train"].targets, groups, a_pretrained_plan())
    assert head is not None
    return sides, probe_with(head, features, stages, task, sides, a_pretrained_plan()), task


def a_network(plan: Plan) -> Network:
    """Four stages."""
    torch.manual_seed(2)
    return Network(PREPROCESSING, SmallResNet(16, width=4), len(plan.classes), feature_stage=plan.feature_stage)


def settled(clarity: Clarity, *, plan: Plan | None = None, **settings: Any) -> tuple[Plan, list[str]]:
    sides, probe, task = planted(clarity)
    plan = plan or a_pretrained_plan()
    return settle_transfer(Config.of(**CONFIG, **settings), plan, task, a_network(plan), sides, probe)


LIKE_AND_EASY: Clarity = {0: 0.5, 1: 1.5, 2: 4.0, 3: 7.0}
LIKE_AND_HARD: Clarity = {0: 0.3, 1: 0.5, 2: 1.5, 3: 2.2}
UNLIKE_AND_EASY: Clarity = {0: 2.0, 1: 8.0, 2: 4.0, 3: 1.5}
UNLIKE_AND_HARD: Clarity = {0: 1.0, 1: 2.2, 2: 1.0, 3: 0.5}
FOUR_CASES = [
    (LIKE_AND_EASY, "probe", "the linear probe gets about"),
    (UNLIKE_AND_EASY, "svm", "a linear model on stage 2 gets about"),
    (LIKE_AND_HARD, "full", "these images are like those"),
    (UNLIKE_AND_HARD, "full", "the later ones do not suit these images"),
]


@pytest.mark.parametrize(("clarity", "transfer", "reason"), FOUR_CASES, ids=["probe", "svm", "like", "unlike"])
def test_each_of_the_four_cases_is_recognised(clarity: Clarity, transfer: str, reason: str) -> None:
    plan, told = settled(clarity)
    assert plan.transfer == transfer and reason in plan.reasons["transfer"]
    assert "stages 1, 2, 3 and 4 of 4 reach" in told[0] and reason in told[1]
    trains = transfer == "full"
    assert (plan.epochs > 0) == trains and (plan.feature_stage >= 0) == (transfer == "svm")


def test_like_images_leave_general_stages_as_they_are_and_unlike_ones_change_all() -> None:
    like, _ = settled(LIKE_AND_HARD)
    assert like.frozen_stages == 2
    assert like.layer_decay == pytest.approx(0.1) and "general" in like.reasons["frozen_stages"]
    unlike, _ = settled(UNLIKE_AND_HARD)
    assert (unlike.frozen_stages, unlike.layer_decay) == (0, 1.0)


def test_the_first_layer_that_learns_has_a_tenth_of_the_rate_of_the_last() -> None:
    plan, _ = settled({0: 2.0, 1: 2.0, 2: 2.1, 3: 2.2})
    assert plan.frozen_stages == 0 and plan.layer_decay**3 == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("asked", [{"epochs": 5}, {"head_epochs": 1}, {"transfer": "full"}])
def test_training_that_was_asked_for_is_not_skipped(asked: dict[str, Any]) -> None:
    plan, told = settled(LIKE_AND_EASY, **asked)
    assert plan.transfer == "full" and plan.epochs > 0
    assert len(told) == 1 and "transfer" not in plan.reasons


def test_what_was_asked_for_stays() -> None:
    plan = a_pretrained_plan(frozen_stages=3, layer_decay=0.5)
    settings = {"transfer": "full", "frozen_stages": 3, "layer_decay": 0.5}
    kept, _ = settled(LIKE_AND_HARD, plan=plan, **settings)
    assert (kept.frozen_stages, kept.layer_decay) == (3, 0.5)
    for transfer in ("probe", "head"):
        plan = a_pretrained_plan(transfer=transfer)
        assert settled(UNLIKE_AND_HARD, plan=plan, transfer=transfer) == (plan, [])
    forced, _ = settled(UNLIKE_AND_HARD, plan=a_pretrained_plan(transfer="svm", epochs=0), transfer="svm")
    assert forced.feature_stage == 1


def test_many_wrong_images_are_worth_training_however_few_there_are_to_show_it() -> None:
    sides, probe, task = planted({0: 0.5, 3: 2.5}, {"train": 40, "val": 10})
    plan = a_pretrained_plan()
    chosen, _ = settle_transfer(Config.of(**CONFIG), plan, task, a_network(plan), sides, probe)
    assert chosen.transfer == "full"


def test_more_frozen_stages_than_there_are_is_an_error() -> None:
    with pytest.raises(ConfigError, match="frozen_stages = 9, but 'small-resnet' has 4: use 0 to 4"):
        settled(LIKE_AND_HARD, plan=a_pretrained_plan(frozen_stages=9), frozen_stages=9)


def test_an_svm_for_a_task_without_classes_is_an_error() -> None:
    sides, probe, _ = planted(LIKE_AND_EASY)
    plan = a_pretrained_plan(transfer="svm")
    task = create_task("regression", ("age",))
    with pytest.raises(ConfigError, match="parts classes, and the task 'regression' has none"):
        settle_transfer(Config.of(**CONFIG, transfer="svm"), plan, task, a_network(plan), sides, probe)


def test_a_net_from_scratch_has_nothing_to_settle() -> None:
    plan = a_pretrained_plan(pretrained=False, transfer="scratch")
    assert settled(LIKE_AND_EASY, plan=plan) == (plan, [])


def test_numbers_to_aim_at_decode_to_the_targets_in_every_task() -> None:
    targets: dict[str, list[Any]] = {
        "classification": [Label(2), Label(0)],
        "multilabel": [LabelSet(np.array([True, False, True])), LabelSet(np.zeros(3, bool))],
        "regression": [Values(np.array([1.5, -2.0, 0.0], np.float32)), Values(np.zeros(3, np.float32))],
    }
    assert list(targets) == [name for name in TASKS if not is_dense(name)]
    for name, truth in targets.items():
        task = create_task(name, CLASSES)
        numbers = task.numbers(truth)
        assert numbers is not None and numbers.dtype == torch.float32
        assert [task.caption(each).split(" ")[0] for each in task.decode(numbers)] == [
            task.caption(each).split(" ")[0] for each in truth
        ]


# --- held-out predictions


@pytest.mark.parametrize(("n", "d"), [(60, 12), (40, 90)])
def test_held_out_predictions_are_those_of_fits_without_the_fold(n: int, d: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(n, d)
    y = x[:, :2] + torch.randn(n, 2)
    groups = [str(i // 2) for i in range(n)]
    found = held_out(x, y, groups, 3)
    assert found is not None and sorted(found.indices) == list(range(n))
    folds = grouped_folds([groups[i] for i in found.indices], 3)
    x, y = x[found.indices], y[found.indices]
    scaled = ((x - x.mean(0)) / x.std(0, correction=0)).double().numpy()
    for fold in np.unique(folds):
        ridge = Ridge(found.penalty).fit(scaled[folds != fold], y[folds != fold].numpy())
        np.testing.assert_allclose(found.outputs[folds == fold], ridge.predict(scaled[folds == fold]), atol=1e-5)
    weight, bias = fit_linear(x, y, 3.0)
    np.testing.assert_allclose(x @ weight.T + bias, Ridge(3.0).fit(scaled, y.numpy()).predict(scaled), atol=1e-4)


def test_one_group_cannot_be_held_out() -> None:
    assert held_out(torch.randn(8, 2), torch.randn(8, 1), ["a"] * 8, 0) is None


def test_parts_of_the_training_side_are_nested_and_part_no_group() -> None:
    groups = [f"g{i % 20}" for i in range(100)]
    parts = [keyed_groups(groups, most, "curve", 0) for most in (3, 20, 52, 100)]
    assert [len(part) for part in parts] == [5, 20, 50, 100]  # a group has five images, and one is the least
    for small, large in pairwise(parts):
        assert small.tolist() == large[: len(small)].tolist()
        names = {groups[i] for i in small}
        assert all(i in small for i in range(100) if groups[i] in names)


# --- the support vector machine


def clouds(n: int, k: int, apart: float) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(4)
    truth = np.arange(n) % k
    return torch.from_numpy(apart * np.eye(k, 6)[truth] + rng.normal(size=(n, 6))).float(), torch.from_numpy(truth)


@pytest.mark.parametrize("k", [2, 4])
def test_the_svm_decides_as_scikit_learns_does(k: int) -> None:
    x, y = clouds(120, k, 2.5)
    weight, bias = fit_linear_svm(x, y, k, [str(i) for i in range(len(x))], a_pretrained_plan())
    scaled = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
    decided = (x @ weight.T + bias).argmax(1).numpy()
    agreement = [
        float((LinearSVC(C=c, dual=False, tol=1e-4).fit(scaled, y).predict(scaled) == decided).mean())
        for c in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    ]
    assert max(agreement) > 0.99


def test_the_svms_confidence_is_that_of_its_accuracy() -> None:
    x, y = clouds(600, 3, 2.0)
    weight, bias = fit_linear_svm(x[:400], y[:400], 3, [str(i) for i in range(400)], a_pretrained_plan())
    confidence, decided = (x[400:] @ weight.T + bias).softmax(1).max(1)
    assert float(confidence.mean()) == pytest.approx(float((decided == y[400:]).float().mean()), abs=0.06)


def test_the_svm_finds_each_of_several_labels_and_one_that_is_never_there() -> None:
    rng = np.random.default_rng(1)
    there = rng.random((150, 2)) < 0.5
    x = torch.from_numpy(4.0 * there + rng.normal(size=(150, 2))).float()
    targets = torch.from_numpy(np.concatenate([there, np.zeros((150, 1))], 1)).float()
    weight, bias = fit_linear_svm(x, targets, 3, [str(i) for i in range(150)], a_pretrained_plan())
    found = (x @ weight.T + bias > 0).float()
    assert float((found == targets).float().mean()) > 0.95 and not found[:, 2].any()


def test_the_svm_ships_as_one_network_that_a_checkpoint_rebuilds(tmp_path: Path) -> None:
    plan = a_plan(classes=CLASSES, transfer="svm", feature_stage=1, preprocessing=PREPROCESSING)
    task = create_task("classification", CLASSES)
    images = torch.randint(0, 255, (30, 3, 16, 16), dtype=torch.uint8)
    torch.manual_seed(0)
    network = task.build_model(plan).eval()
    sides, probe, _ = planted({3: 1.0}, {"train": 30})
    with torch.no_grad():
        features = network.features(images)  # type: ignore[operator]
    probe = svm_probe(task, sides, replace(probe, stages={1: {"train": features}}), plan)
    network.load_state_dict(probe.head, strict=False)
    Checkpoint(weights=network.state_dict(), plan=plan, origin="linear SVM", epoch=0, step=0).save(tmp_path / "m")
    loaded = load_model(Checkpoint.load(tmp_path / "m"), device="cpu")
    with torch.no_grad():
        again = task.decode(loaded.network(images))
    assert [each.index for each in again] == [each.index for each in probe.predictions["train"]]
