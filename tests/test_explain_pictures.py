"""Pictures of maps, channels and filters show what they say they show, and the command line makes files of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from torch import nn

from command_line import called, tree
from explain_cases import SIDE, marked_model, photograph
from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import ConfigError, DataError
from snellen.draw.heat import draw_heat, heat_colours, heat_over
from snellen.explain.channels import channels_of, strongest
from snellen.explain.explanation import MEANING
from snellen.explain.filters import filters_of, patches_of
from snellen.explain.grad_cam import grad_cam_of
from snellen.nn.plain import MLP
from snellen.predict.images import ImageFile
from snellen.tasks.base import create_task
from tiny_runs import a_plan

MARK = (32, 8, 40, 16)


def test_the_colours_are_those_of_inferno_and_lighten_all_the_way() -> None:
    values = np.linspace(0, 1, 256)
    own = heat_colours(values).astype(float)
    assert np.abs(own - 255 * colormaps["inferno"](values)[:, :3]).max() < 8
    assert (np.diff(own @ [0.2126, 0.7152, 0.0722]) >= -0.5).all()


def test_what_the_model_does_not_see_has_no_colour() -> None:
    shown = heat_over(photograph(MARK), np.ones((44, 60), np.float32), (10, 0, 50, 44)).astype(int)
    assert np.ptp(shown[:, :10], axis=2).max() == 0
    assert np.ptp(shown[:, 10:50], axis=2).min() > 20


@pytest.mark.parametrize("size", [(9, 7), (60, 44), (30, 400)])
def test_nothing_of_what_is_said_is_cut_off(size: tuple[int, int]) -> None:
    pixels = photograph(None, size)
    heat = np.zeros(pixels.shape[:2], np.float32)
    lines = ["a line of many words that does not fit below a narrow picture " * 3]
    made = {
        n: draw_heat(pixels, heat, photograph=pixels, seen=(0, 0, *size), lines=lines * n, hottest="most")
        for n in (1, 3)
    }
    assert made[3].height > made[1].height
    assert made[1].width == made[3].width


def test_a_notebook_is_shown_the_map_beside_the_photograph() -> None:
    [told] = grad_cam_of(marked_model(), photograph(MARK), of="mark", check=False)
    picture = told.picture()
    assert picture.width > 2 * 480
    assert told._repr_png_()[:4] == b"\x89PNG"  # type: ignore[index]


def test_the_strongest_channels_come_first_and_dead_ones_are_dark() -> None:
    maps = torch.zeros(3, 4, 4)
    maps[1, 2, 3], maps[2, 0, 0] = 2.0, 5.0
    found = strongest(maps, 3)
    assert [channel for channel, _ in found] == [2, 1, 0]
    assert (found[0][1].max(), found[2][1].max()) == (1, 0)
    assert found[1][1][2, 3] == 1


def test_channels_and_filters_are_pictures_with_their_names() -> None:
    model = marked_model()
    assert channels_of(model, photograph(MARK)).picture().width > 100
    filters = filters_of(model)
    assert filters is not None
    tile = np.asarray(filters.picture())
    assert (tile == (255, 0, 0)).all(-1).any()  # the one that looks for red, and for neither green nor blue
    assert (tile == (0, 0, 255)).all(-1).any()


def test_patches_are_cut_where_a_channel_is_excited_most(tmp_path: Path) -> None:
    images = []
    for i in range(12):
        pixels = photograph((4 * i, 8, 4 * i + 8, 16) if i % 3 == 0 else None)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        images.append(ImageFile(tmp_path / f"{i}.png", f"{i}.png"))
    (tmp_path / "broken.png").write_bytes(b"no image")
    model = _two_stages()
    made = patches_of(model, [ImageFile(tmp_path / "broken.png", "broken.png"), *images])
    first_row = np.asarray(made[-1].picture())[30:158, 6:134]
    assert (first_row[..., 0].astype(int) - first_row[..., 1] > 100).any()
    with pytest.raises(DataError, match="none of the images"):
        patches_of(model, [ImageFile(tmp_path / "broken.png", "broken.png")])


def test_a_network_without_maps_has_pictures_of_its_first_weights_alone() -> None:
    model = marked_model(backbone=MLP(SIDE, (4,), "none", "relu", 0.0))
    assert filters_of(model) is not None
    with pytest.raises(ConfigError, match="occlusion"):
        channels_of(model, photograph(MARK))


def _two_stages():  # type: ignore[no-untyped-def]
    """A second stage whose channels are the first one's."""
    model = marked_model()
    backbone = model.network.get_submodule("backbone")
    again = nn.Conv2d(2, 2, 1, bias=False)
    nn.init.dirac_(again.weight)
    backbone.add_module("act", nn.Sequential(nn.ReLU(), again, nn.ReLU()))
    return model


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A run with a model that never learnt."""
    plan = a_plan(precision="fp32")
    torch.manual_seed(0)
    network = create_task(plan.task, plan.classes).build_model(plan)
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "STATUS").write_text("done\n")
    weights = network.state_dict()
    Checkpoint(weights=weights, plan=plan, origin="fine-tuned", epoch=1, step=1).save(
        folder / "checkpoints" / "best.safetensors"
    )
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for name in ("a/mark", "b/mark", "nothing"):
        path = tmp_path / "photographs" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(MARK if "mark" in name else None)).save(path)
    return tmp_path / "photographs"


@pytest.mark.parametrize(("how", "num"), [("grad-cam", 3), ("occlusion", 3), ("features", 3), ("filters", 4)])
def test_the_command_writes_a_picture_of_each(how: str, num: int, run_folder: Path, photographs: Path) -> None:
    out = run_folder.parent / "out"
    coarse = ["--patch", "30", "--stride", "30", "--fill", "grey"] if how == "occlusion" else []
    code, said, errors = called(
        ["explain", str(run_folder), str(photographs), "--how", how, "--out", str(out), "--json", *coarse]
    )
    assert code == 0, errors
    told = json.loads(said)
    assert len(told["explanations"]) == num
    pictures = {name for name in tree(out) if name.endswith(".png")}
    assert len(pictures) == num
    written = json.loads((out / "explanations.json").read_text())
    assert {each["picture"] for each in written["explanations"]} == pictures
    assert (MEANING in errors) == (how in ("grad-cam", "occlusion"))
    assert ("A patch hides" in errors) == (how == "occlusion")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--of", "circl"], "did you mean 'circle'?"),
        (["--how", "oclusion"], "did you mean 'occlusion'?"),
        (["--patch", "8"], "patch is a setting of how = 'occlusion'"),
        (["--how", "occlusion", "--fill", "black"], "use blur or grey"),
        (["--how", "filters", "--of", "circle"], "how = 'filters' is about none"),
    ],
)
def test_a_wrong_request_is_refused_in_one_line_before_anything_is_written(
    arguments: list[str], words: str, run_folder: Path, photographs: Path
) -> None:
    out = run_folder.parent / "out"
    code, _, errors = called(["explain", str(run_folder), str(photographs), "--out", str(out), *arguments])
    assert code == 2
    assert words in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not out.exists()


def test_a_broken_image_is_named_and_the_others_are_explained(run_folder: Path, photographs: Path) -> None:
    (photographs / "broken.png").write_bytes(b"no image")
    out = run_folder.parent / "out"
    code, said, _ = called(["explain", str(run_folder), str(photographs), "--out", str(out)])
    assert code == 0
    assert "broken.png  not explained: " in said
    assert len([name for name in tree(out) if name.endswith(".png")]) == 3
    code, _, errors = called(["explain", str(run_folder), str(photographs / "broken.png"), "--out", str(out) + "2"])
    assert code == 2
    assert "none of the images can be explained" in errors


def test_an_interrupt_leaves_the_pictures_that_are_finished(
    run_folder: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_at_last(model: object, pixels: np.ndarray, **asked: object) -> object:
        if "nothing" in str(asked["path"]):
            raise KeyboardInterrupt
        return grad_cam_of(model, pixels, **asked)  # type: ignore[arg-type]

    monkeypatch.setattr(sys.modules["snellen.explain.grad_cam"], "grad_cam_of", interrupted_at_last)
    out = run_folder.parent / "out"
    code, _, errors = called(["explain", str(run_folder), str(photographs), "--out", str(out)])
    assert (code, errors) == (130, "error: interrupted\n")
    assert len([name for name in tree(out) if name.endswith(".png")]) == 2
