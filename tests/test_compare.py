"""Comparing runs: on the images that they share, with no more claimed than is shown."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snellen
from command_line import called
from conftest import FinishedRun
from judged_runs import CLASSES, names, right_or_wrong, save_run
from run_folders import HOSTILE
from snellen.compare.comparison import compare_arms, compare_runs
from snellen.compare.pairing import Pairing, points, rounded
from snellen.core.errors import ConfigError, DataError, RunError, SnellenError
from snellen.core.run import RunFolder
from snellen.metrics.paired import mcnemar


def marks(n: int, *wrong: range) -> np.ndarray:
    right = np.ones(n, bool)
    for places in wrong:
        right[list(places)] = False
    return right


def pair(one: RunFolder, other: RunFolder) -> Pairing:
    (pairing,) = compare_runs([one, other]).pairings
    return pairing


def two(
    place: Path, first: np.ndarray, second: np.ndarray, more: dict[str, Any] | None = None, **both: Any
) -> tuple[RunFolder, RunFolder]:
    """Two runs over the same images; ``more`` is of the second."""
    ids = names(len(first))
    one = save_run(place / "one", right_or_wrong(first), ids=ids, **both)
    return one, save_run(place / "two", right_or_wrong(second), ids=ids, **{**both, **(more or {})})


# ---- what is said


def test_planted_difference_is_found_and_told_in_points(tmp_path: Path) -> None:
    pairing = pair(*two(tmp_path, marks(200, range(40)), marks(200, range(10))))
    assert (pairing.side, pairing.n, pairing.only_first, pairing.only_second) == ("test", 200, 0, 30)
    assert pairing.difference.value == pytest.approx(0.15) and pairing.difference.p == mcnemar(0, 30)
    assert pairing.difference.low is not None and 0.08 < pairing.difference.low < 0.15
    assert re.fullmatch(r"two is better than one: \+15\.0 points \(\d+\.\d to \d+\.\d\)\.", pairing.verdict)
    assert pairing.first.value == 0.8 and pairing.first.low is not None and pairing.first.method == "wilson"
    assert pairing.notes == () and pairing.difference.images_needed is None


def test_the_other_way_round_it_is_worse(tmp_path: Path) -> None:
    one, other = two(tmp_path, marks(200, range(40)), marks(200, range(10)))
    assert "one is worse than two: −15.0 points (−" in pair(other, one).verdict


def test_difference_that_is_not_shown_is_called_so_and_how_many_images_it_would_take(tmp_path: Path) -> None:
    pairing = pair(*two(tmp_path, marks(100, range(8)), marks(100, range(5, 10))))
    assert pairing.difference.p == mcnemar(2, 5)
    assert pairing.difference.images_needed is not None and 500 < pairing.difference.images_needed < 700
    assert "Not shown that two and one differ: +3.0 points" in pairing.verdict
    assert re.search(r"it would take about \d\d0 images to show a difference of this size", pairing.verdict)


def test_five_images_in_a_row_are_no_proof(tmp_path: Path) -> None:
    pairing = pair(*two(tmp_path, marks(100, range(5)), marks(100)))
    assert pairing.difference.p == 0.0625 and pairing.verdict.startswith("Not shown")


def test_run_is_not_better_than_itself(tmp_path: Path) -> None:
    one, _ = two(tmp_path, marks(60, range(9)), marks(60))
    pairing = pair(one, one)
    assert pairing.difference.value == 0 and pairing.difference.low is not None and pairing.difference.low < 0
    assert "it would take" not in pairing.verdict and pairing.verdict.startswith("Not shown")
    assert pairing.baseline != pairing.challenger


def test_each_run_is_held_against_the_first(tmp_path: Path) -> None:
    runs = [save_run(tmp_path / str(i), right_or_wrong(marks(100, range(10 * i))), ids=names(100)) for i in range(1, 4)]
    comparison = compare_runs(runs)
    assert [(each.baseline, each.challenger) for each in comparison.pairings] == [("1", "2"), ("1", "3")]
    assert "by chance" in comparison.notes[0]


def test_many_labels_are_compared_by_the_headline_of_their_task(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (150, 2)).astype(np.uint8)
    runs = []
    for name, noise in (("blurred", 0.6), ("sharp", 0.15)):
        scores = (truth + rng.normal(0, noise, truth.shape)).clip(-1, 2).astype(np.float32) / 3 + 1 / 3
        answers = {"scores": scores, "predicted": (scores > 0.5).astype(np.uint8), "truth": truth}
        runs.append(save_run(tmp_path / name, answers, ids=names(150), task="multilabel"))
    pairing = pair(*runs)
    assert pairing.metric == "mean_average_precision" and pairing.difference.p is None
    assert pairing.difference.is_shown and "points" not in pairing.verdict


def test_numbers_are_compared_by_the_headline_of_their_task(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(50, 10, (120, 1)).astype(np.float32)
    runs = [
        save_run(
            tmp_path / name,
            {"predicted": (truth + rng.normal(0, noise, truth.shape)).astype(np.float32), "truth": truth},
            ids=names(120),
            task="regression",
            classes=["age"],
        )
        for name, noise in (("far", 6.0), ("near", 2.0))
    ]
    pairing = pair(*runs)
    assert pairing.metric == "r2" and pairing.difference.is_shown and pairing.only_first is None
    assert pairing.verdict.startswith("near is better than far: +0.")


# ---- the same images


def test_images_are_matched_by_id_whatever_their_order(tmp_path: Path) -> None:
    right, ids = marks(100, range(20)), names(100)
    one = save_run(tmp_path / "one", right_or_wrong(right), ids=ids)
    order = np.random.default_rng(0).permutation(100)
    answers = {name: array[order] for name, array in right_or_wrong(right).items()}
    pairing = pair(one, save_run(tmp_path / "two", answers, ids=[ids[i] for i in order]))
    assert (pairing.only_first, pairing.only_second, pairing.n) == (0, 0, 100)


def test_images_that_were_moved_are_matched_by_their_content(tmp_path: Path) -> None:
    right, ids = marks(50, range(7)), names(50)
    one = save_run(tmp_path / "one", right_or_wrong(right), ids=ids)
    moved = [f"elsewhere/{i}" for i in ids]
    other = save_run(tmp_path / "two", right_or_wrong(right), ids=moved, hashes=dict(zip(moved, ids, strict=True)))
    pairing = pair(one, other)
    assert (pairing.only_first, pairing.only_second, pairing.n, pairing.notes) == (0, 0, 50, ())


def test_file_that_changed_under_its_name_is_not_the_same_image(tmp_path: Path) -> None:
    pairing = pair(*two(tmp_path, marks(50), marks(50), {"hashes": {"0003.png": "another"}}))
    assert pairing.n == 49 and "49 images are shared" in pairing.notes[0]


def test_only_images_that_both_were_judged_on_count_and_what_the_other_learnt_from_is_told(tmp_path: Path) -> None:
    ids = names(150)
    one = save_run(tmp_path / "one", right_or_wrong(marks(100)), ids=ids[:100], learnt=ids[100:])
    other = save_run(tmp_path / "two", right_or_wrong(marks(100)), ids=ids[50:], learnt=ids[:50])
    pairing = pair(one, other)
    assert pairing.n == 50
    assert "50 images are shared, of 100 that the runs were judged on." in pairing.notes
    assert "two was trained on 50 of the 100 images of one." in pairing.notes
    assert not any("Warning" in note for note in pairing.notes)


def test_copy_of_a_shared_image_among_the_training_images_is_warned_of(tmp_path: Path) -> None:
    pairing = pair(*two(tmp_path, marks(50), marks(50), {"learnt": names(3)}))
    assert any("Warning: 3 of the 50 shared images are among the training images of two" in n for n in pairing.notes)


def test_images_with_other_labels_are_left_out(tmp_path: Path) -> None:
    pairing = pair(*two(tmp_path, marks(50), marks(50), {"labels": {"0001.png": "dog"}}))
    assert pairing.n == 49 and "1 images have other labels" in pairing.notes[0]


def test_validation_images_are_a_second_choice_and_said_to_have_chosen(tmp_path: Path) -> None:
    one, other = two(tmp_path, marks(60, range(5)), marks(60), side="val")
    assert "which also chose the models" in pair(one, other).verdict
    shutil.copytree(tmp_path / "one", tmp_path / "both")
    for name in ("json", "safetensors"):
        shutil.copy(
            tmp_path / "one" / "predictions" / f"val.{name}", tmp_path / "both" / "predictions" / f"test.{name}"
        )
    both = RunFolder(tmp_path / "both")
    assert pair(both, other).side == "val" and pair(both, both).side == "test"


def test_groups_are_resampled_whole_and_need_another_test_than_mcnemars(tmp_path: Path) -> None:
    first, second = marks(120, range(36)), marks(120, range(12))
    alone = pair(*two(tmp_path / "alone", first, second))
    groups = {image_id: f"person {i // 12}" for i, image_id in enumerate(names(120))}
    grouped = pair(*two(tmp_path / "grouped", first, second, groups=groups))
    assert alone.difference.is_shown and alone.difference.p is not None
    assert grouped.difference.p is None and grouped.difference.method == "paired bootstrap over groups"
    assert not grouped.difference.is_shown  # two persons more are no proof


# ---- refusals


def other_task(place: Path) -> RunFolder:
    answers = {"predicted": np.zeros((9, 2), np.float32), "truth": np.zeros((9, 2), np.float32)}
    return save_run(place, answers, ids=names(9), task="regression")


def audit_only(place: Path) -> RunFolder:
    place.mkdir()
    (place / "STATUS").write_text("done\n")
    return RunFolder(place)


def damaged(place: Path) -> RunFolder:
    run = save_run(place, right_or_wrong(marks(9)), ids=names(9))
    (place / "predictions" / "test.safetensors").write_bytes(b"junk")
    return run


REFUSED: list[tuple[Any, type[SnellenError], str]] = [
    (other_task, DataError, "answer different questions, classification and regression"),
    (audit_only, RunError, "no answers to compare: it was an audit"),
    (damaged, RunError, r"test\.safetensors is damaged"),
    (
        lambda place: save_run(place, right_or_wrong(marks(9)), ids=names(9), classes=("cat", "owl")),
        DataError,
        r"different classes \(dog, owl\)",
    ),
    (
        lambda place: save_run(place, right_or_wrong(marks(9)), ids=[f"x{i}" for i in range(9)]),
        DataError,
        "share no image that both were judged on",
    ),
    (
        lambda place: save_run(place, right_or_wrong(marks(9)), ids=names(9), side="val"),
        DataError,
        "share no image that both were judged on",
    ),
    (lambda place: save_run(place, right_or_wrong(marks(8)), ids=names(9)), RunError, "8 answers for 9 images"),
]


@pytest.mark.parametrize(("other", "error", "words"), REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line(
    other: Any, error: type[SnellenError], words: str, tmp_path: Path
) -> None:
    one = save_run(tmp_path / "one", right_or_wrong(marks(9)), ids=names(9))
    with pytest.raises(error, match=words) as caught:
        compare_runs([one, other(tmp_path / "two")])
    assert "\n" not in str(caught.value)


def test_one_run_is_too_few(tmp_path: Path) -> None:
    one = save_run(tmp_path / "one", right_or_wrong(marks(9)), ids=names(9))
    with pytest.raises(ConfigError, match="two runs or more"):
        compare_runs([one])


# ---- arms


def arm(place: Path, share_wrong: float, *, settings: dict[str, Any], same_images: bool = True) -> list[RunFolder]:
    """Three runs that differ in their seed, and if need be in what they were judged on."""
    runs = []
    for seed in range(3):
        rng = np.random.default_rng([seed, round(1000 * share_wrong)])
        ids = names(200) if same_images else names(600)[200 * seed : 200 * (seed + 1)]
        runs.append(
            save_run(
                place / f"seed-{seed}",
                right_or_wrong(rng.random(200) >= share_wrong),
                ids=ids,
                learnt=[f"other {i}" for i in range(900)],
                settings={**settings, "seed": seed},
            )
        )
    return runs


def test_arms_on_the_same_images_are_compared_over_seeds_and_images(tmp_path: Path) -> None:
    first, second = arm(tmp_path / "a", 0.35, settings={"lr": 0.1}), arm(tmp_path / "b", 0.05, settings={"lr": 0.01})
    (pairing,) = compare_arms(first, second).pairings
    assert pairing.difference.method == "t over seeds and images" and pairing.difference.is_shown
    assert pairing.n == 200 and pairing.difference.value == pytest.approx(0.3, abs=0.06)
    assert any("differ by chance alone" in note for note in pairing.notes)
    assert any("standard deviation" in note for note in pairing.notes)
    assert "a/seed-0 and 2 more" in pairing.baseline


def test_arms_whose_seeds_divided_the_data_anew_are_compared_in_pairs(tmp_path: Path) -> None:
    first = arm(tmp_path / "a", 0.35, settings={"lr": 0.1}, same_images=False)
    second = arm(tmp_path / "b", 0.05, settings={"lr": 0.01}, same_images=False)
    (pairing,) = compare_arms(first, second).pairings
    assert pairing.difference.method == "corrected resampled t over divisions"
    assert pairing.n == 600 and pairing.difference.value == pytest.approx(0.3, abs=0.06)
    assert any("divided the data anew" in note for note in pairing.notes)
    with pytest.raises(DataError, match="1 seeds are in both arms"):
        compare_arms(first[:2], second[1:])


def test_arms_that_are_alike_are_not_told_apart(tmp_path: Path) -> None:
    first, second = arm(tmp_path / "a", 0.20, settings={"lr": 0.1}), arm(tmp_path / "b", 0.201, settings={"lr": 0.01})
    (pairing,) = compare_arms(first, second).pairings
    assert not pairing.difference.is_shown and pairing.verdict.startswith("Not shown")


def test_arm_is_of_runs_that_differ_only_in_their_seed(tmp_path: Path) -> None:
    one, other = arm(tmp_path / "a", 0.2, settings={"lr": 0.1}), arm(tmp_path / "b", 0.2, settings={"lr": 0.01})
    with pytest.raises(ConfigError, match="differ in lr: the runs of an arm"):
        compare_arms([one[0], other[1]], other)
    with pytest.raises(ConfigError, match="an arm needs two runs"):
        compare_arms(one, other[:1])
    with pytest.raises(ConfigError, match="same seed"):
        compare_arms([one[0], one[0]], other)


def test_split_seed_of_an_arm_is_shared_whether_written_out_or_not(tmp_path: Path) -> None:
    """A first run whose seed divided the data, and later ones with its seed as their split seed, are one arm."""
    ids, right = names(200), right_or_wrong(marks(200, range(20)))
    asked = {"plain": {"seed": 4}, "more": {"seed": 5, "split_seed": 4}, "other": {"seed": 6, "split_seed": 9}}
    plain, more, other = (save_run(tmp_path / name, right, ids=ids, settings=asked[name]) for name in asked)
    second = arm(tmp_path / "b", 0.3, settings={"lr": 0.01, "split_seed": 4})
    (pairing,) = compare_arms([plain, more], second).pairings
    assert pairing.difference.method == "t over seeds and images" and pairing.n == 200
    with pytest.raises(ConfigError, match="differ in split_seed"):
        compare_arms([plain, other], second)


def test_of_repeated_folds_the_first_repeat_is_compared_and_that_is_told(tmp_path: Path) -> None:
    both: dict[str, Any] = {"side": "out-of-fold", "settings": {"folds": 5, "repeats": 2}}
    pairing = pair(*two(tmp_path, marks(90, range(9)), marks(90), **both))
    assert any("the first repeat is compared" in note for note in pairing.notes)


# ---- words


@pytest.mark.parametrize(
    ("metric", "value", "told"),
    [
        ("accuracy", 0.0312, "+3.1 points"),
        ("accuracy", -0.0312, "−3.1 points"),
        ("accuracy", 0.0001, "0.0 points"),
        ("r2", -0.0312, "−0.031"),
    ],
)
def test_difference_is_told_in_the_units_of_its_metric(metric: str, value: float, told: str) -> None:
    assert points(metric, value) == told


@pytest.mark.parametrize(("number", "about"), [(7, 7), (42, 42), (1861, 1900), (100_001, 110_000)])
def test_number_of_images_is_told_to_two_figures(number: int, about: int) -> None:
    assert rounded(number) == about


# ---- from end to end


def test_compare_in_python_and_on_the_command_line(finished_run: FinishedRun, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished_run.folder, other)
    comparison = snellen.compare(finished_run.folder, snellen.Run(other), out=tmp_path / "answer")
    assert isinstance(comparison, snellen.Comparison) and "Not shown" in repr(comparison)
    written = json.loads((tmp_path / "answer" / "compare.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(comparison.to_json()))
    code, out, err = called(["compare", str(finished_run.folder), str(other), "--json"])
    assert code == 0 and json.loads(out) == written
    assert "Not shown" in err and "accuracy" not in out[:9]
    code, out, err = called(["compare", str(finished_run.folder), str(other)])
    assert (code, err) == (0, "") and out.splitlines()[0].startswith("Not shown that other and run differ")


def test_page_of_a_comparison_says_the_verdict_and_runs_nothing(tmp_path: Path) -> None:
    hostile = [name.replace("/", "|") for name in HOSTILE[:2]]
    runs = [
        save_run(tmp_path / name, right_or_wrong(marks(80, range(wrong))), ids=names(80), classes=CLASSES)
        for name, wrong in zip(hostile, (20, 2), strict=True)
    ]
    snellen.compare(*(run.path for run in runs), out=tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "is better than" in page and "+22.5 points" in page and "<svg" in page
    assert "<script" not in page and "<img" not in page and "onload=alert" not in re.sub(r"&lt;.*?&gt;", "", page)


def test_place_that_is_taken_is_named_before_anything_is_read(finished_run: FinishedRun, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(RunError, match="taken exists"):
        snellen.compare(finished_run.folder, finished_run.folder, out=tmp_path / "taken")
