from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snellen.core.errors import DataError, DivergenceError
from snellen.core.record import Record
from snellen.metrics import estimates
from snellen.metrics.calibration import calibration_errors
from snellen.metrics.interval import wilson
from snellen.tasks.classification.metrics import ClassificationMetrics, MultiLabelMetrics
from snellen.tasks.classification.target import Label, LabelSet

CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")


def record(*labels: str) -> Record:
    return Record(id="farm/1.jpg", path=Path("/farm/1.jpg"), labels=labels)


def labels(n: int, k: int, *, skill: float = 1.5, seed: int = 0) -> tuple[list[Label], list[Label]]:
    """Predictions of a model that is often right, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    scores = np.exp(rng.normal(size=(n, k)) + skill * np.eye(k)[truth])
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    return [Label(int(row.argmax()), row) for row in scores], [Label(int(index)) for index in truth]


def label_sets(n: int, k: int, *, seed: int = 0) -> tuple[list[LabelSet], list[LabelSet]]:
    rng = np.random.default_rng(seed)
    truth = rng.random((n, k)) < 0.4
    scores = (1 / (1 + np.exp(1 - 2 * truth - rng.normal(size=(n, k))))).astype(np.float32)
    return [LabelSet(row > 0.5, row) for row in scores], [LabelSet(row) for row in truth]


def single(
    predicted: Sequence[Label], truth: Sequence[Label], classes: Sequence[str] = CLASSES
) -> ClassificationMetrics:
    metrics = ClassificationMetrics(classes)
    metrics.update(predicted, truth)
    return metrics


def multi(
    predicted: Sequence[LabelSet], truth: Sequence[LabelSet], classes: Sequence[str] = CLASSES
) -> MultiLabelMetrics:
    metrics = MultiLabelMetrics(classes)
    metrics.update(predicted, truth)
    return metrics


def values(metrics: ClassificationMetrics | MultiLabelMetrics) -> dict[str, float]:
    return {name: estimate.value for name, estimate in metrics.compute(intervals=False).items()}


def test_targets_come_from_records() -> None:
    assert Label.of(record("bee"), CLASSES).index == 1
    assert Label.of(record("bee"), CLASSES).scores is None
    assert LabelSet.of(record("bee", "gnu"), CLASSES).present.tolist() == [
        False,
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert not LabelSet.of(record(), CLASSES).present.any()


@pytest.mark.parametrize(
    ("target", "names", "message"),
    [
        (Label, (), r"farm/1.jpg: one label per image is needed, got none"),
        (Label, ("ant", "bee"), r"got 2 \(ant, bee\)"),
        (Label, ("bea",), r"'bea' is not one of the classes; did you mean 'bee'\?"),
        (LabelSet, ("ant", "beee"), r"did you mean 'bee'\?"),
    ],
)
def test_a_record_that_does_not_fit_is_a_data_error(target: type, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        target.of(record(*names), CLASSES)


def test_truth_scored_against_itself_is_perfect() -> None:
    for metrics in (single(labels(60, 7)[1], labels(60, 7)[1]), multi(label_sets(60, 7)[1], label_sets(60, 7)[1])):
        for name, estimate in metrics.compute().items():
            if name in ("log_loss", "brier_score", "calibration_error"):
                assert estimate.value == pytest.approx(0, abs=1e-6)
                continue
            assert estimate.value == 1, name
            # Sixty images without an error are no proof: no interval claims certainty.
            assert estimate.low is not None and estimate.low < 0.98, name


def test_every_metric_agrees_with_sklearn() -> None:
    from sklearn import metrics as sklearn_metrics

    metrics = single(*labels(150, 7))
    truth, predicted, scores = metrics.truth, metrics.predicted, metrics.scores
    f1, precision, recall = (getattr(sklearn_metrics, f"{name}_score") for name in ("f1", "precision", "recall"))
    areas = sklearn_metrics.roc_auc_score(truth, scores, multi_class="ovr", average=None)
    average_precisions = [sklearn_metrics.average_precision_score(truth == i, scores[:, i]) for i in range(7)]
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(truth, predicted),
        "top5_accuracy": sklearn_metrics.top_k_accuracy_score(truth, scores, k=5),
        "log_loss": sklearn_metrics.log_loss(truth, scores),
        "brier_score": sklearn_metrics.brier_score_loss(truth, scores, scale_by_half=True),
        "calibration_error": calibration_errors(scores.max(1)[:, None], (truth == predicted)[:, None])[0],
        "roc_auc": areas.mean(),
        "average_precision": np.mean(average_precisions),
    }
    for name, oracle in (("f1", f1), ("precision", precision), ("recall", recall)):
        expected |= {f"{name}_{how}": oracle(truth, predicted, average=how) for how in ("macro", "micro", "weighted")}
        expected |= dict(zip([f"{name}/{c}" for c in CLASSES], oracle(truth, predicted, average=None), strict=True))
    expected |= {f"roc_auc/{name}": area for name, area in zip(CLASSES, areas, strict=True)}
    expected |= {f"average_precision/{name}": value for name, value in zip(CLASSES, average_precisions, strict=True)}
    assert values(metrics) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(metrics.confusion(), sklearn_metrics.confusion_matrix(truth, predicted))


def test_every_multi_label_metric_agrees_with_sklearn() -> None:
    from sklearn import metrics as sklearn_metrics

    metrics = multi(*label_sets(90, 7))
    truth, predicted, scores = metrics.truth.astype(int), metrics.predicted.astype(int), metrics.scores
    areas = sklearn_metrics.roc_auc_score(truth, scores, average=None)
    average_precisions = sklearn_metrics.average_precision_score(truth, scores, average=None)
    expected = {
        "mean_average_precision": average_precisions.mean(),
        "roc_auc": areas.mean(),
        "subset_accuracy": sklearn_metrics.accuracy_score(truth, predicted),
        "label_accuracy": 1 - sklearn_metrics.hamming_loss(truth, predicted),
        "log_loss": np.mean([sklearn_metrics.log_loss(truth[:, i], scores[:, i]) for i in range(7)]),
        "brier_score": np.mean([sklearn_metrics.brier_score_loss(truth[:, i], scores[:, i]) for i in range(7)]),
        "calibration_error": calibration_errors(scores, truth.astype(bool))[0],
    }
    for name in ("f1", "precision", "recall"):
        oracle = getattr(sklearn_metrics, f"{name}_score")
        expected |= {f"{name}_{how}": oracle(truth, predicted, average=how) for how in ("macro", "micro")}
        expected |= dict(zip([f"{name}/{c}" for c in CLASSES], oracle(truth, predicted, average=None), strict=True))
    expected |= {f"roc_auc/{name}": area for name, area in zip(CLASSES, areas, strict=True)}
    expected |= {f"average_precision/{name}": value for name, value in zip(CLASSES, average_precisions, strict=True)}
    assert values(metrics) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(metrics.confusion(), sklearn_metrics.multilabel_confusion_matrix(truth, predicted))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=5), st.booleans())
def test_batch_size_does_not_change_a_metric(cuts: list[int], several: bool) -> None:
    predicted, truth = label_sets(40, 7) if several else labels(40, 7)
    kind = MultiLabelMetrics if several else ClassificationMetrics
    whole, pieces = kind(CLASSES), kind(CLASSES)
    whole.update(predicted, truth)
    edges = [0, *sorted(cuts), 40]
    for start, end in pairwise(edges):
        pieces.update(predicted[start:end], truth[start:end])
        assert pieces.n == end
    assert pieces.compute(intervals=False) == whole.compute(intervals=False)
    np.testing.assert_array_equal(pieces.scores, whole.scores)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(30)), st.permutations(range(7)))
def test_the_order_of_images_and_of_classes_does_not_matter(images: list[int], classes: list[int]) -> None:
    predicted, truth = labels(30, 7)
    moved = [int(index) for index in np.argsort(classes)]  # where each class went
    shuffled = [Label(moved[predicted[i].index], predicted[i].scores[classes]) for i in images]
    shuffled_truth = [Label(moved[truth[i].index]) for i in images]
    renamed = [CLASSES[index] for index in classes]
    assert values(single(shuffled, shuffled_truth, renamed)) == pytest.approx(values(single(predicted, truth)))
    several, several_truth = label_sets(30, 7)
    rearranged = [LabelSet(several[i].present[classes], several[i].scores[classes]) for i in images]
    rearranged_truth = [LabelSet(several_truth[i].present[classes]) for i in images]
    expected = values(multi(several, several_truth))
    assert values(multi(rearranged, rearranged_truth, renamed)) == pytest.approx(expected)


def test_with_two_classes_roc_auc_is_that_of_the_second() -> None:
    found = values(single(*labels(50, 2), CLASSES[:2]))
    assert found["roc_auc"] == found["roc_auc/bee"]
    assert "top5_accuracy" not in found


def test_a_class_without_images_is_left_out_and_named() -> None:
    predicted, truth = labels(50, 6)
    predicted = [Label(label.index, np.append(label.scores, 0)) for label in predicted]
    metrics = single(predicted, truth)
    found = metrics.compute()
    assert metrics.absent == ("gnu",)
    assert not any(name.endswith("/gnu") for name in found)
    assert found["roc_auc"].value == pytest.approx(np.mean([found[f"roc_auc/{name}"].value for name in CLASSES[:6]]))
    assert not any(np.isnan(estimate.value) for estimate in found.values())


def test_a_label_without_positives_is_in_no_mean() -> None:
    predicted, truth = label_sets(50, 7)
    for labels_of_image in truth:
        labels_of_image.present[3] = False
    metrics = multi(predicted, truth)
    found = metrics.compute()
    assert metrics.absent == ("dog",)
    kept = [found[f"average_precision/{name}"].value for name in CLASSES if name != "dog"]
    assert found["mean_average_precision"].value == pytest.approx(np.mean(kept))
    assert found["average_precision/ant"].n == sum(labels_of_image.present[0] for labels_of_image in truth)


def test_without_any_label_what_is_undefined_is_left_out() -> None:
    empty = [LabelSet(np.zeros(7, dtype=bool))] * 4
    found = values(multi(empty, empty))
    assert set(found) == {"subset_accuracy", "label_accuracy", "log_loss", "brier_score", "calibration_error"}


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("n", [1, 2, 30])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_interval_holds_its_value_and_fits_the_values_without(kind: str, n: int, grouped: bool) -> None:
    metrics = single(*labels(n, 7)) if kind == "single" else multi(*label_sets(n, 7))
    found = metrics.compute(groups=[str(i // 3) for i in range(n)] if grouped else None)
    for name, estimate in found.items():
        if estimate.low is None or estimate.high is None:
            assert estimate.method.startswith("none (fewer than two"), name
        else:
            assert estimate.low <= estimate.value <= estimate.high, name
    assert {name: estimate.value for name, estimate in found.items()} == values(metrics)


def test_runs_can_be_compared_by_what_is_too_costly_for_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "_RANKING_BUDGET", 10_000)
    metrics = multi(*label_sets(100, 3), CLASSES[:3])
    assert metrics.compute()["mean_average_precision"].low is None
    assert len(metrics.resampled()["mean_average_precision"]) == 200


def test_more_images_give_narrower_intervals() -> None:
    few, many = single(*labels(60, 7)).compute(), single(*labels(2000, 7)).compute()
    for name in ("accuracy", "balanced_accuracy", "f1_macro", "roc_auc", "log_loss", "recall/ant", "f1/ant"):
        assert many[name].high - many[name].low < 0.5 * (few[name].high - few[name].low), name


def test_shares_of_images_get_wilsons_interval_and_their_own_n() -> None:
    metrics = single(*labels(90, 7))
    found, matrix = metrics.compute(), metrics.confusion()
    for name, successes, n in (
        ("accuracy", np.trace(matrix), 90),
        ("recall/bee", matrix[1, 1], matrix[1].sum()),
        ("precision/bee", matrix[1, 1], matrix[:, 1].sum()),
    ):
        assert (found[name].low, found[name].high) == wilson(successes, n)
        assert (found[name].n, found[name].method) == (n, "wilson")
    assert found["balanced_accuracy"].method == "bootstrap"


def test_images_of_one_group_are_not_taken_for_independent() -> None:
    predicted, truth = labels(40, 3, skill=0.5)
    repeated = single([p for p in predicted for _ in range(10)], [t for t in truth for _ in range(10)], CLASSES[:3])
    loose = repeated.compute()
    found = repeated.compute(groups=[str(i // 10) for i in range(400)])
    for name in ("accuracy", "balanced_accuracy", "roc_auc", "f1/ant", "recall/ant"):
        assert found[name].method == "bootstrap over groups"
        assert found[name].high - found[name].low > 2 * (loose[name].high - loose[name].low), name
    alone = repeated.compute(groups=[None] * 400)
    assert alone["roc_auc"].high - alone["roc_auc"].low == pytest.approx(
        loose["roc_auc"].high - loose["roc_auc"].low, rel=0.01
    )


def test_one_group_alone_gives_no_interval() -> None:
    found = single(*labels(40, 3), CLASSES[:3]).compute(groups=["patient 1"] * 40)
    assert {estimate.method for estimate in found.values()} == {"none (fewer than two groups)"}


def test_a_perfect_score_on_a_rare_class_is_as_unsure_as_that_class() -> None:
    truth = [Label(0)] * 147 + [Label(1)] * 3
    found = single(truth, truth, CLASSES[:2]).compute()
    assert found["accuracy"].low > 0.97
    assert found["balanced_accuracy"].low < 0.8
    assert found["roc_auc"].low < 0.5
    assert found["f1/bee"].low == pytest.approx(wilson(3, 3)[0])


def test_a_class_with_few_others_beside_it_has_an_unsure_roc_area() -> None:
    truth = [Label(1)] * 147 + [Label(0)] * 3
    found = single(truth, truth, CLASSES[:2]).compute()
    assert found["roc_auc/bee"].low == pytest.approx(wilson(3, 3)[0])


def test_with_groups_a_precision_rests_on_the_groups_of_the_images_given_the_class() -> None:
    truth, predicted = [Label(0)] * 30 + [Label(1)] * 10, [Label(0)] * 38 + [Label(1)] * 2
    found = single(predicted, truth, CLASSES[:2]).compute(groups=[str(i // 2) for i in range(40)])
    assert found["precision/bee"].method == "none (fewer than two groups)"
    assert found["recall/bee"].method == "bootstrap over groups"


def test_with_groups_of_unlike_size_a_mean_is_still_over_images() -> None:
    predicted, truth = label_sets(60, 7)
    found = multi(predicted, truth).compute(groups=["big"] * 30 + [None] * 30)
    assert (
        0.7 * found["log_loss"].value < found["log_loss"].low < found["log_loss"].high < 1.5 * found["log_loss"].value
    )
    assert found["label_accuracy"].high <= 1


def test_intervals_are_keyed_by_the_seed() -> None:
    metrics = single(*labels(50, 7))
    assert metrics.compute(seed=1) == metrics.compute(seed=1)
    assert metrics.compute(seed=1)["roc_auc"] != metrics.compute(seed=2)["roc_auc"]


def test_nothing_to_measure_is_a_data_error() -> None:
    metrics = single([], [])
    with pytest.raises(DataError, match="no image was given"):
        metrics.compute()


UNIFORM = np.full(7, 1 / 7, dtype=np.float32)


@pytest.mark.parametrize(
    ("predicted", "truth", "message"),
    [
        ([Label(0)], [], "got 1 and 0"),
        ([Label(7)], [Label(0)], "class ids must be 0 to 6, got 0 to 7"),
        ([Label(0)], [Label(-1)], "got -1 to 0"),
        ([Label(0, UNIFORM[:3])], [Label(0)], r"shape \(7,\), got \(3,\)"),
        ([Label(0, UNIFORM * 2)], [Label(0)], "must sum to 1, got 2"),
        ([Label(0, UNIFORM * 21)], [Label(0)], "probabilities in 0..1, got 3 to 3"),
    ],
)
def test_targets_that_do_not_fit_are_refused(predicted: list[Label], truth: list[Label], message: str) -> None:
    metrics = ClassificationMetrics(CLASSES)
    with pytest.raises(ValueError, match=message):
        metrics.update(predicted, truth)
    assert metrics.n == 0


def test_label_sets_that_do_not_fit_are_refused() -> None:
    fits, short = LabelSet(np.zeros(7, dtype=bool)), LabelSet(np.zeros(3, dtype=bool))
    for predicted, truth in ((short, fits), (fits, short)):
        with pytest.raises(ValueError, match=r"present must be of shape \(7,\), got \(3,\)"):
            multi([predicted], [truth])
    with pytest.raises(ValueError, match="at least one class"):
        MultiLabelMetrics(())


def test_scores_that_are_not_numbers_name_the_prediction() -> None:
    broken = UNIFORM.copy()
    broken[2] = np.nan
    with pytest.raises(DivergenceError, match="prediction 1 of a batch of 2 are not finite"):
        single([Label(0, UNIFORM), Label(0, broken)], [Label(0)] * 2)


def test_groups_must_cover_every_image() -> None:
    with pytest.raises(ValueError, match="each of the 5 images, got 2"):
        single(*labels(5, 7)).compute(groups=["a", "b"])
