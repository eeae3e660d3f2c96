"""Regression from the head to the command line: it learns, resumes to the same bits, and reads right."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from command_line import called
from shapes import save_sizes
from snellen.core.estimate import Estimate, amount, told
from snellen.core.plan import Plan
from snellen.core.sample import Batch, Mixed
from snellen.nn.ridge import PENALTIES, Ridge, fit_ridge
from snellen.nn.scaled_linear import ScaledLinear
from snellen.tasks.base import create_task
from snellen.tasks.regression.plots import charts
from snellen.tasks.regression.target import Values
from snellen.train.schedule import phases
from tiny_runs import a_plan, different, start, state_of, trainer_of

torch.set_num_threads(1)


# --- the baseline


def features_of(n: int, d: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features on scales of their own, and two targets that a linear model knows half of."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator).double() * torch.linspace(0.1, 50, d) + 7
    weight = torch.randn(d, 2, generator=generator).double() / torch.linspace(0.1, 50, d)[:, None]
    y = (x - 7) @ weight / d**0.5 + torch.randn(n, 2, generator=generator)
    return x, y * torch.tensor([1.0, 1000.0]) + torch.tensor([0.0, 5e4])


def standardised(x: torch.Tensor) -> np.ndarray:
    return ((x - x.mean(0)) / x.std(0, correction=0) / x.shape[1] ** 0.5).numpy()


@pytest.mark.parametrize(("n", "d"), [(40, 100), (100, 40)])
def test_ridge_is_that_of_scikit_learn(n: int, d: int) -> None:
    from sklearn.linear_model import Ridge as Reference

    x, y = features_of(n, d)
    weight, bias = Ridge(x, y).solve(torch.tensor([0.1, 0.003]))
    scaled = standardised(x)
    for i, penalty in enumerate((0.1, 0.003)):
        reference = Reference(alpha=penalty * n).fit(scaled, y[:, i].numpy())
        assert (x @ weight[i] + bias[i]).numpy() == pytest.approx(reference.predict(scaled), rel=1e-5)


@pytest.mark.parametrize(("n", "d"), [(30, 60), (60, 20)])
def test_what_is_left_out_is_predicted_as_if_it_had_not_been_there(n: int, d: int) -> None:
    from sklearn.linear_model import Ridge as Reference

    x, y = features_of(n, d)
    parts = list(torch.arange(n).tensor_split([5, 6, 20]))
    found = Ridge(x, y).left_out(0.02, parts)
    scaled = standardised(x)
    for part in parts:
        kept, rest = part.numpy(), np.setdiff1d(np.arange(n), part)
        reference = Reference(alpha=0.02 * n).fit(scaled[rest], y[rest].numpy())
        residuals = y[part].numpy() - reference.predict(scaled[kept])
        assert found[part].numpy() == pytest.approx(residuals, rel=1e-5, abs=1e-6)


def test_the_penalty_is_strong_for_noise_and_weak_for_what_is_linear() -> None:
    x, _ = features_of(200, 30)
    noise = torch.randn(200, 1, generator=torch.Generator().manual_seed(1)).double()
    exact = (x[:, :1] - 7) / 0.1
    found = fit_ridge(x.float(), torch.cat([noise, exact], 1).float(), [str(i) for i in range(200)], seed=0)
    assert found.penalties[0] >= 0.1 > 1e-4 >= found.penalties[1]
    assert found.weight.dtype == torch.float32 and found.weight.shape == (2, 30)


def test_groups_are_not_parted_when_the_penalty_is_chosen() -> None:
    """Copies of each image would make a model that learns by heart look best."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 100, generator=generator).repeat_interleave(5, 0)
    y = torch.randn(40, 1, generator=generator).repeat_interleave(5, 0)
    alone = fit_ridge(x, y, [str(i) for i in range(200)], seed=0)
    together = fit_ridge(x, y, [str(i // 5) for i in range(200)], seed=0)
    assert alone.penalties[0] == pytest.approx(PENALTIES[-1]) and together.penalties[0] >= 0.01


def test_a_single_group_is_fitted_with_a_middling_penalty() -> None:
    x, y = features_of(20, 5)
    found = fit_ridge(x.float(), y.float(), ["all"] * 20, seed=0)
    assert len(set(found.penalties)) == 1 and bool(torch.isfinite(found.weight).all())


# --- the head

SCALES = st.floats(1e-6, 1e6)


@given(st.lists(SCALES, min_size=1, max_size=3), st.integers(0, 100))
def test_to_others_the_head_is_a_linear_layer_and_what_is_saved_loads_to_the_same_bits(
    std: list[float], seed: int
) -> None:
    torch.manual_seed(seed)
    head, again = (ScaledLinear(6, len(std), [3.0 * each for each in std], std) for _ in range(2))
    x = torch.randn(5, 6)
    plain = nn.Linear(6, len(std))
    plain.load_state_dict(head.state_dict())
    again.load_state_dict(head.state_dict())
    assert torch.equal(plain(x), head(x)) and torch.equal(again(x), head(x))
    assert all(torch.equal(one, other) for one, other in zip(head.parameters(), again.parameters(), strict=True))
    assert list(head.state_dict()) == ["weight", "bias"]


def test_a_fresh_head_answers_near_the_mean() -> None:
    torch.manual_seed(0)
    said = ScaledLinear(1280, 2, [23.0, 5e4], [8.0, 1e4])(torch.rand(20, 1280))
    assert (said - torch.tensor([23.0, 5e4])).abs().div(torch.tensor([8.0, 1e4])).max() < 0.5


def test_learning_is_the_same_for_metres_and_for_millimetres() -> None:
    x = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    y = x[:, :1] * 3 + 1

    def learn(unit: float) -> torch.Tensor:
        torch.manual_seed(1)
        std = float(y.std()) * unit
        head = ScaledLinear(10, 1, [float(y.mean()) * unit], [std])
        optimizer = torch.optim.Adam(head.parameters(), 0.05)
        for _ in range(60):
            optimizer.zero_grad()
            (((head(x) - y * unit) / std) ** 2).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return head(x).detach() / unit

    metres, millimetres = learn(1.0), learn(1024.0)
    assert torch.allclose(metres, millimetres, rtol=1e-4, atol=1e-4)
    assert float((metres - y).square().mean()) < 0.05 * float(y.var())


def test_bfloat16_keeps_the_last_digits_of_a_year() -> None:
    torch.manual_seed(0)
    head, x = ScaledLinear(16, 1, [1990.0], [8.0]), torch.randn(50, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        said = head(x.bfloat16())
    assert said.dtype == torch.float32
    assert torch.allclose(said, head(x.bfloat16().float()), atol=1e-3) and len(said.unique()) > 40


# --- the loss


def truth_and_plan(loss: str) -> tuple[Batch[Values], Plan]:
    targets = [Values(np.array(row, np.float32)) for row in ([1.0, 100.0], [2.0, 300.0], [4.0, -50.0])]
    batch = Batch(images=torch.zeros(3, 3, 4, 4), targets=targets, ids=["a", "b", "c"])
    plan = replace(a_plan(), task="regression", loss=loss, target_mean=(2.0, 100.0), target_std=(2.0, 50.0))
    return batch, plan


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("l1", lambda d: np.abs(d).mean()),
        ("l2", lambda d: (d**2).mean()),
        ("smooth-l1", lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5).mean()),
    ],
)
def test_losses_are_of_errors_in_standard_deviations(loss: str, formula: object) -> None:
    batch, plan = truth_and_plan(loss)
    task = create_task("regression", ("age", "weight"))
    outputs = torch.tensor([[1.5, 90.0], [8.0, 310.0], [4.0, -200.0]])
    difference = np.array([[0.5 / 2, -10 / 50], [6 / 2, 10 / 50], [0, -150 / 50]])
    (found,) = task.criterion(outputs, batch, plan).items()
    assert found[0] == loss.replace("-", "_") and loss in task.loss_names
    assert float(found[1]) == pytest.approx(formula(difference))  # type: ignore[operator]


def test_a_mixed_image_has_both_numbers_each_to_its_share() -> None:
    batch, plan = truth_and_plan("l1")
    task = create_task("regression", ("age", "weight"))

    class Constant(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[2.0, 100.0]]).expand(len(images), 2)

    partners = list(reversed(batch.targets))
    alone = [
        float(task.losses(Constant(), replace(batch, targets=targets), plan)["l1"])
        for targets in (batch.targets, partners)
    ]
    mixed = task.losses(Constant(), replace(batch, mixed=Mixed(partners=partners, share=0.25)), plan)["l1"]
    assert float(mixed) == pytest.approx(0.25 * alone[0] + 0.75 * alone[1])


def test_a_resumed_regression_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    data = save_sizes(tmp_path / "data", num=40, side=8)
    session = start(data, tmp_path, task="regression", epochs=2, batch_size=8, patience=99)
    assert session.plan.target_std == pytest.approx(
        session.task.target_scale(session.sides["train"].targets)["target_std"]
    )
    begun = {name: tensor.clone() for name, tensor in session.model.state_dict().items()}

    def stepped(num: int, *, reload: bool) -> dict[str, torch.Tensor]:
        session.model.load_state_dict(begun)
        trainer = trainer_of(session)
        trainer.begin(phases(session.plan)[0])
        for step, batches in enumerate(trainer.steps(0)):
            if step == 2 and reload:
                trainer.save(tmp_path / "last.safetensors")
                trainer = trainer_of(session)
                trainer.begin(phases(session.plan)[0])
                trainer.load(tmp_path / "last.safetensors")
            if step < num:
                trainer.train_on(batches)
        return state_of(trainer)

    assert different(stepped(4, reload=False), stepped(4, reload=True)) == []


# --- pictures and words


def test_charts_ring_the_largest_errors_and_have_their_numbers_behind() -> None:
    truth = np.linspace(0, 10, 30)[:, None].astype(np.float32)
    predicted = truth.copy()
    predicted[4] += 7
    first, second = charts(truth, predicted, ["<b>age</b>"])
    assert first.rows[0] == (amount(float(truth[4, 0])), amount(float(predicted[4, 0])))
    assert second.rows[0][1] == "7" and "<b>" not in first.svg
    assert "a step of 1 in the truth is a step of" in second.caption


@pytest.mark.parametrize("n", [1, 2, 5000])
def test_charts_are_drawn_of_any_number_of_images(n: int) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(n, 1)).astype(np.float32)
    drawn = charts(truth, truth + 1, ["age"])
    assert len(drawn) == 2 and all(len(chart.svg) < 400_000 and len(chart.rows) <= 50 for chart in drawn)
    assert charts(np.full((n, 1), np.nan), truth, ["age"]) == []


@pytest.mark.parametrize("fields", [(np.zeros((3, 2)), np.zeros((3, 1))), (np.zeros(3), np.zeros(3))])
def test_arrays_that_do_not_fit_are_refused(fields: Sequence[np.ndarray]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        charts(*fields, ["age", "weight"])


@pytest.mark.parametrize(
    ("value", "text"),
    [(23.4, "23.4"), (0, "0"), (-4.25, "-4.25"), (12345.6, "12346"), (100.0, "100"), (0.00001234, "1.234e-05")],
)
def test_amounts_have_the_digits_that_tell_them_apart(value: float, text: str) -> None:
    assert amount(value) == text


@given(st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1e-300))
def test_amounts_are_right_to_four_digits(value: float) -> None:
    assert math.isclose(float(amount(value)), value, rel_tol=6e-4)


def test_a_metric_is_told_in_its_own_unit() -> None:
    estimate = Estimate(value=0.8125, low=0.74, high=0.8634, n=60)
    assert estimate.told("r2") == "0.812 (95 % interval 0.740 to 0.863, n = 60)"
    assert estimate.told("accuracy") == "81.2 % (95 % interval 74.0 to 86.3, n = 60)"
    assert estimate.told("mae/accuracy of shot") == "0.812 (95 % interval 0.74 to 0.863, n = 60)"
    assert told("median_absolute_error", 1234.5) == "1234" and told("r2", -0.00001) == "0.000"


def test_mistakes_of_several_numbers_are_told_by_the_worst_for_its_spread() -> None:
    task = create_task("regression", ("age", "weight"))
    truth = [Values(np.array(row, np.float32)) for row in ([20, 5000], [30, 7000], [40, 9000])]
    predicted = [Values(np.array(row, np.float32)) for row in ([20, 5000], [10, 7100], [41, 9000])]
    first, second = task.mistakes(predicted, truth, 9)
    assert (first["index"], first["truth"], first["predicted"], first["off"]) == (1, "age 30", "10", "-20")
    assert (second["index"], second["off"], second["confidence"]) == (2, "+1", None)


# --- the command line

QUICK = "--device cpu --precision fp32 --threads 1 --workers 1 --batch-size 16 --lr 0.01 --body-lr 0.01"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """The data's folder, the run's folder, and what was said."""
    place = tmp_path_factory.mktemp("sizes")
    table = save_sizes(place / "data", num=150, side=12)
    where = [
        "--out",
        str(place / "run"),
        "--cache",
        str(place / "cache"),
        "--epochs",
        "8",
        "--patience",
        "9",
        "--model",
        "small-resnet",
    ]
    code, said, wrong = called(["train", str(table), "--task", "regression", *where, *QUICK.split()])
    assert code == 0, wrong
    return place / "data", place / "run", said


def test_sizes_are_learnt_and_told_without_percent(run: tuple[Path, Path, str]) -> None:
    _, folder, said = run
    results = json.loads((folder / "results.json").read_text())
    test = results["splits"]["test"]
    assert test["r2"]["value"] > 0.8 and test["mae"]["value"] < 1.6
    assert results["baselines"]["majority"]["test"]["r2"]["value"] <= 0
    assert "150 images with a number each: size" in said and "to be predicted: size" in said
    assert "val r2 0." in said and "always giving the mean of the training images" in said.lower()
    scores = [line for line in said.splitlines() if "r2" in line]
    assert scores and not any("%" in line.replace("95 % interval", "") for line in scores)


def test_the_report_speaks_of_numbers(run: tuple[Path, Path, str]) -> None:
    page = (run[1] / "report.html").read_text()
    for words in (
        "1 number ·",
        "How size is spread",
        "Predicted size",
        "Errors of size",
        "The largest errors",
        "Always the mean of the training images",
        "Mean absolute error",
        "off by ",
        "size, from the least to the most",
    ):
        assert words in page, words
    for words in ("class apart", "Classes", "most common answer", "Where the model was sure", "no label"):
        assert words not in page, words


def test_predictions_are_numbers_with_their_name(run: tuple[Path, Path, str]) -> None:
    data, folder, _ = run
    code, said, wrong = called(["predict", str(folder), str(data / "images" / "000.png"), "--device", "cpu"])
    assert code == 0, wrong
    name, value = said.split()[-2:]
    assert name == "size" and float(value) == pytest.approx(_size(data, 0), abs=3.5) and "%" not in said
    code, out, _ = called(["predict", str(folder), str(data / "images" / "000.png"), "--device", "cpu", "--json"])
    (prediction,) = json.loads(out)["predictions"]
    assert code == 0 and prediction["values"]["size"] == pytest.approx(float(value), rel=1e-3)


def _size(data: Path, row: int) -> float:
    return float((data / "sizes.csv").read_text().splitlines()[row + 1].split(",")[1])


def test_other_tables_are_evaluated_by_the_name_of_the_column(run: tuple[Path, Path, str]) -> None:
    data, folder, _ = run
    lines = (data / "sizes.csv").read_text().splitlines()[1:41]
    other, wrong = data / "other.csv", data / "wrong.csv"
    other.write_text(
        "weight,size,image\n"
        + "".join(f"{i},{line.split(',')[1]},{line.split(',')[0]}\n" for i, line in enumerate(lines))
    )
    wrong.write_text("image,weight\n" + "".join(f"{line}\n" for line in lines))
    code, said, error = called(["evaluate", str(folder), str(other), "--device", "cpu"])
    assert code == 0, error
    assert next(float(line.split()[1]) for line in said.splitlines() if line.startswith("  r2 ")) > 0.8
    code, _, error = called(["evaluate", str(folder), str(wrong), "--device", "cpu"])
    assert code == 2 and error == (
        "error: the table has no column of numbers 'size', which the model predicts, but weight; rename the one that "
        "is meant\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--loss", "focal"], "loss = 'focal' does not fit the task 'regression': use smooth-l1 or l2 or l1"),
        (["--imbalance", "weights"], "imbalance"),
        (["--task", "classification"], "no column 'label'"),
    ],
)
def test_what_regression_cannot_do_is_refused_in_one_line(
    run: tuple[Path, Path, str], arguments: list[str], message: str, tmp_path: Path
) -> None:
    task = [] if "--task" in arguments else ["--task", "regression"]
    where = ["--out", str(tmp_path / "run"), "--cache", str(tmp_path)]
    code, _, error = called(["train", str(run[0] / "sizes.csv"), *task, *arguments, *where, *QUICK.split()])
    assert code == 2 and message in error and error.count("\n") == 1
