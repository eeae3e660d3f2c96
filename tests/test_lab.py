"""Each demonstration shows what it says: its numbers are right, its picture is there, and a planted fault is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_line import called
from shapes import save_folders
from snellen import lab
from snellen.core.errors import ConfigError, StorageError
from snellen.lab import demonstrate, demonstrations
from test_architecture import SOURCE, heavy_modules_after

NAMES = list(demonstrations())


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def script(name: str) -> ModuleType:
    """The script as a module of its own, which a test may change."""
    return lab.load(demonstrations()[name])


def shown(name: str, out: Path, **settings: Any) -> dict[str, float]:
    """Run a demonstration with small settings -> its numbers; its picture has something in it."""
    numbers: dict[str, float] = script(name).run(out, **settings)
    with Image.open(out / f"{name}.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) >= 500
    assert 0.005 < (pixels != 255).any(axis=2).mean() < 1
    assert len(np.unique(pixels[::4, ::4].reshape(-1, 3), axis=0)) > 20
    return numbers


def test_neuron_gets_autograds_gradient_and_ends_where_its_source_says(tmp_path: Path) -> None:
    numbers = shown("neuron", tmp_path)
    assert all(value < 1e-12 for name, value in numbers.items() if "difference" in name)
    assert round(numbers["output, squared error"], 2) == 0.20  # Nielsen 2015, chapter 3
    assert numbers["output, cross-entropy"] < 0.02


def test_four_equations_give_autograds_gradients(tmp_path: Path) -> None:
    numbers = shown("backpropagation", tmp_path, sizes=(5, 9, 9, 9, 9, 3), batch=7)
    assert all(value < 1e-10 for name, value in numbers.items() if "difference" in name)
    shares = {name: value for name, value in numbers.items() if "share" in name}
    sigmoid, relu = (next(value for name, value in shares.items() if name.endswith(end)) for end in ("sigmoid", "ReLU"))
    assert sigmoid < 0.1 < relu


def test_a_wrong_equation_would_be_seen() -> None:
    """BP2 without its transpose, on layers of one size; and the slope of the sigmoid without its second factor."""
    module = script("backpropagation")
    rng = np.random.default_rng(0)
    layers = module.make_layers((4, 4, 4), rng)
    x, y = rng.normal(size=(4, 6)), rng.uniform(size=(4, 6))
    truth = module.by_autograd(layers, x, y, "sigmoid")[0][0]
    right = module.backpropagate(layers, x, y, "sigmoid")[1][0][0]
    transposed = [layers[0], (layers[1][0].T, layers[1][1])]
    errors = module.backpropagate(layers, x, y, "sigmoid")[0]
    hidden = module.sigmoid(layers[0][0] @ x + layers[0][1])
    wrong = (transposed[1][0].T @ errors[1] * hidden * (1 - hidden)) @ x.T / 6
    assert np.abs(right - truth).max() < 1e-12
    assert np.abs(wrong - truth).max() > 1e-3
    activation, _, reference = module.ACTIVATIONS["sigmoid"]
    module.ACTIVATIONS["sigmoid"] = (activation, activation, reference)
    assert np.abs(module.backpropagate(layers, x, y, "sigmoid")[1][0][0] - truth).max() > 1e-3


def test_only_activations_separate_the_spirals(tmp_path: Path) -> None:
    numbers = shown("spirals", tmp_path, count=100, steps=600)
    assert 0.5 < numbers.pop("no activation") < 0.75
    assert all(accuracy > 0.95 for accuracy in numbers.values()), numbers


def test_learned_kernels_are_the_filters(tmp_path: Path) -> None:
    assert script("filters").worked_example().tolist() == [[12, 12, 17], [10, 17, 19], [9, 6, 14]]
    assert max(shown("filters", tmp_path).values()) < 1e-3


def test_a_kernel_is_not_learned_without_steps() -> None:
    module = script("filters")
    image = module.photograph()[:20, :20]
    kernel = module.torch.tensor(module.FILTERS["sharpen"], dtype=image.dtype)
    assert float((module.learn(image, module.convolve(image, kernel), 1) - kernel).abs().max()) > 0.1


def test_features_move_with_the_picture_and_units_see_what_the_formula_says(tmp_path: Path) -> None:
    numbers = shown("equivariance", tmp_path)
    for shift in range(9):
        assert numbers[f"stride 1, shift {shift}"] < 1e-12
        assert (numbers[f"stride 2, shift {shift}"] < 1e-12) == (shift % 2 == 0)
    module = script("equivariance")
    for name, layers in module.STACKS.items():
        assert numbers[f"receptive field, {name}"] == module.receptive_field(layers)
    assert numbers["receptive field, 6 layers"] == 13


def test_a_rate_can_be_too_small_and_too_large(tmp_path: Path) -> None:
    small, good, large = shown("rates", tmp_path, epochs=3, rates=(0.001, 0.1, 3.0)).values()
    assert small < 0.6 < 0.85 < good
    assert large < 0.2


def test_folded_batch_norms_say_the_same_and_training_mode_does_not(tmp_path: Path) -> None:
    numbers = shown("batchnorm_folding", tmp_path, epochs=1)
    assert numbers["float64"] < 1e-11
    assert numbers["float32"] < 1e-4
    assert numbers["answers changed, batches of 2"] > numbers["answers changed, batches of 128"]


def test_folding_is_that_of_torch() -> None:
    import torch
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
    norm(torch.randn(40, 5, 4, 4) * 3 + 1)  # gives it a mean and a variance to fold
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    (folded,) = script("batchnorm_folding").fold(nn.Sequential(conv, norm).eval())
    reference = fuse_conv_bn_eval(conv.eval(), norm.eval())
    assert torch.allclose(folded.weight, reference.weight, atol=1e-6)
    assert torch.allclose(folded.bias, reference.bias, atol=1e-6)


@pytest.mark.usefixtures("undrawn")
def test_ladder_takes_a_folder_and_leaves_a_report_for_each_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = save_folders(tmp_path / "shapes", per_class=12, side=8)
    settings = {"epochs": 1, "device": "cpu", "precision": "fp32", "threads": 1, "workers": 1, "groups": "none"}
    numbers = shown("ladder", tmp_path / "out", data=str(data), cache=str(tmp_path / "cache"), **settings)
    assert [name.split(" of ")[0] for name in numbers] == ["logistic regression", "MLP", "CNN"]
    assert all(0 <= accuracy <= 1 for accuracy in numbers.values())
    said = capsys.readouterr().out
    reports = [Path(line.split()[-1]) for line in said.splitlines()]
    assert [path.parent.name for path in reports] == ["logistic", "mlp", "cnn"]
    assert all(path.is_file() for path in reports)


@pytest.mark.parametrize("name", NAMES)
def test_every_demonstration_says_what_to_see_and_was_measured(name: str) -> None:
    known = demonstrations()[name]
    text = known.path.read_text(encoding="utf-8")
    assert 20 < len(known.title) < 90
    assert "\nTo be seen: " in text and "\nSource: " in text
    assert known.seconds is not None and known.seconds > 0
    assert len(text.splitlines()) <= 125


def test_the_table_names_no_demonstration_that_is_gone() -> None:
    table = (demonstrations()["neuron"].path.parent / "README.md").read_text(encoding="utf-8")
    assert list(dict(lab._ROW.findall(table))) == NAMES


def test_the_list_has_a_line_for_each_and_loads_nothing_heavy() -> None:
    code, out, err = called(["lab"])
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == NAMES
    assert max(map(len, out.splitlines())) <= 120
    assert heavy_modules_after("from snellen.lab import demonstrations; demonstrations()", SOURCE.parent) == []


def test_json_has_standard_output_to_itself(tmp_path: Path) -> None:
    code, out, err = called(["lab", "neuron", "--out", str(tmp_path / "new"), "--json"])
    assert code == 0
    said = json.loads(out)
    assert said["demonstration"] == "neuron"
    assert round(said["numbers"]["output, squared error"], 2) == 0.20
    assert "squared error: output 0.982 -> 0.203" in err
    assert f"Picture: {tmp_path / 'new' / 'neuron.png'}" in err


def test_the_same_seed_gives_the_same_picture(tmp_path: Path) -> None:
    for place in ("one", "two"):
        shown("backpropagation", tmp_path / place, seed=3, sizes=(3, 4, 2), batch=4)
    one, two = ((tmp_path / place / "backpropagation.png").read_bytes() for place in ("one", "two"))
    assert one == two


def test_unknown_demonstration_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown demonstration 'spiral'; did you mean 'spirals'"):
        demonstrate("spiral", out=tmp_path)


def test_data_is_refused_where_it_would_be_ignored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'neuron' makes its own data"):
        demonstrate("neuron", out=tmp_path, data="photos")


def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file is where a folder is needed"):
        demonstrate("neuron", out=tmp_path / "file" / "lab")


def test_an_installation_without_scripts_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lab, "_PLACES", (tmp_path / "absent",))
    with pytest.raises(ConfigError, match="not installed"):
        demonstrations()


def test_a_script_runs_by_itself(tmp_path: Path) -> None:
    path = demonstrations()["neuron"].path
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "lab" / "neuron.png").is_file()
