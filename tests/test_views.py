"""Several views of an image: each is resampled once, and what is found in it is told where it is on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dense_cases import same
from snellen.core.errors import ConfigError
from snellen.core.geometry import Size, compose, map_boxes, map_points
from snellen.core.preprocessing import Fit, Preprocessing
from snellen.core.sample import Frame
from snellen.data.tiles import Tiling
from snellen.predict.answering import NetworkAnswering, Seen
from snellen.predict.predictor import Predictor
from snellen.predict.views import VIEWS, View, Views, combined
from snellen.tasks.instances.finding import mask_in
from snellen.tasks.loading import LoadedModel
from view_networks import Shades, a_picture, model_of

FITS: tuple[Fit, ...] = ("squash", "letterbox", "center crop")
MOVES = [view for name, views in VIEWS.items() if name not in ("scale", "crops") for view in views]


pytestmark = pytest.mark.usefixtures("one_thread")


def answered(model: LoadedModel, views: Sequence[View], pixels: np.ndarray, size: Size | None = None) -> Any:
    """What is said of one image in these views."""
    looking = Views(NetworkAnswering(model), "vflip")
    looking.views = tuple(views)
    return looking.decide([looking.prepare(pixels, size or (pixels.shape[1], pixels.shape[0]))])[0]


# --- geometry


PREPROCESSINGS = st.builds(
    lambda width, height, fit, fraction: Preprocessing(
        input_size=(width, height), fit=fit, crop_fraction=fraction, mean=(0.5,) * 3, std=(0.25,) * 3
    ),
    st.sampled_from([32, 64, 96]),
    st.sampled_from([32, 64]),
    st.sampled_from(FITS),
    st.sampled_from([0.8, 1.0]),
)
SIZES = st.tuples(st.integers(20, 200), st.integers(20, 200))
ANY_VIEW = st.sampled_from(
    [view for names in (["flip", "scale"], ["d4"], ["crops", "turns"]) for view in combined(names)]
)


@given(st.sampled_from(MOVES), st.sampled_from(MOVES))
def test_two_moves_are_one(one: View, other: View) -> None:
    square = Preprocessing(input_size=(64, 64), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    frames = [view.frame((64, 64), square).matrix for view in (one, other, one.then(other))]
    assert np.allclose(compose(frames[0], frames[1]), frames[2])


@pytest.mark.parametrize(
    ("names", "count"),
    [(["flip"], 2), (["scale"], 3), (["flip", "scale"], 6), (["d4"], 8), (["d4", "flip"], 8), (["crops", "flip"], 10)],
)
def test_names_are_combined_and_no_view_comes_twice(names: list[str], count: int) -> None:
    views = combined(names)
    assert len(views) == len(set(views)) == count and views[0] == View()


def test_d4_is_every_way_to_lay_down_a_square() -> None:
    corners = np.array([[0.0, 0], [64, 0], [64, 64], [0, 64]])
    square = Preprocessing(input_size=(64, 64), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    placed = {str(map_points(view.frame((64, 64), square).matrix, corners).tolist()) for view in combined(["d4"])}
    assert len(placed) == 8


@given(ANY_VIEW, SIZES, PREPROCESSINGS)
def test_a_view_shows_what_lies_at_the_places_that_its_frame_names(
    view: View, size: Size, preprocessing: Preprocessing
) -> None:
    """Of an image whose colours name its places, read off the input at the places the frame sends them to."""
    width, height = size
    ramp = np.stack(
        np.broadcast_arrays(
            255 * (np.arange(width) + 0.5) / width, 255 * (np.arange(height)[:, None] + 0.5) / height, 0
        ),
        axis=2,
    )
    looking = Views(NetworkAnswering(model_of("classification")), "vflip")
    looking.views, looking._answering.plan = (view,), replace(looking._answering.plan, preprocessing=preprocessing)
    (seen,) = looking.prepare(ramp.round().astype(np.uint8), size)
    assert seen.pixels.shape == (*seen.frame.input_size[::-1], 3)
    inner = np.array([(x * width, y * height) for x in (0.4, 0.5, 0.6) for y in (0.45, 0.55)])
    at = map_points(seen.frame.matrix, inner)
    shown = ((at >= 2) & (at <= np.array(seen.frame.input_size) - 2)).all(axis=1)
    columns, rows = np.floor(at[shown]).astype(int).T
    told = seen.pixels[rows, columns, :2] / 255 * [width, height]
    input_pixel = np.abs(np.linalg.inv(seen.frame.matrix)[:2, :2]).sum(axis=1)
    assert (np.abs(told - inner[shown]) <= input_pixel + np.array(size) / 128).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("view", MOVES, ids=str)
def test_a_moved_view_has_the_very_pixels_of_the_plain_one_moved(view: View, fit: Fit) -> None:
    """So it was resampled once; a turn swaps rows and columns, which round in turn."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (90, 150, 3), np.uint8)
    looking = Views(NetworkAnswering(model_of("classification", fit=fit)), "vflip")
    looking.views = (View(), view)
    plain, moved = (each.pixels.astype(int) for each in looking.prepare(pixels, (150, 90)))
    expected = np.rot90(plain[:, ::-1] if view.mirrored else plain, -view.turns)
    assert np.abs(moved - expected).max() <= (1 if view.turns % 2 else 0)


# --- answers come back to their places


def _agree(one: Any, other: Any) -> bool:
    if not same(one, other, 1e-3):
        return False
    return one.scores is None or np.allclose(one.scores, other.scores, atol=1e-4)


DENSE = ["detection", "segmentation", "instances"]


@pytest.mark.parametrize("size", [(64, 48), (128, 96)], ids=["as the input", "shrunk"])
@pytest.mark.parametrize("task", DENSE)
def test_each_moved_view_says_the_same_as_the_plain_one(task: str, size: Size) -> None:
    model, pixels = model_of(task), a_picture(size)
    plain = answered(model, [View()], pixels)
    assert _agree(plain, NetworkAnswering(model).decide([NetworkAnswering(model).prepare(pixels, size)])[0])
    assert plain.size == size and (task == "segmentation" or len(plain) == 4)
    for view in MOVES:
        assert _agree(answered(model, [view], pixels), plain), view


@pytest.mark.parametrize("task", DENSE)
def test_all_views_together_say_what_each_says(task: str) -> None:
    model, pixels = model_of(task, input_size=(64, 64)), a_picture((64, 64))
    plain = answered(model, [View()], pixels)
    assert _agree(answered(model, combined(["d4"]), pixels), plain)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("task", DENSE)
def test_other_scales_find_the_same_places(task: str, fit: Fit) -> None:
    """To the pixel of the input that they round to."""
    size = (256, 192)
    model, pixels = model_of(task, input_size=(128, 96), fit=fit), a_picture(size)
    plain = answered(model, [View()], pixels)
    for view in (View(scale=0.75), View(scale=1.25), View(scale=1.25, mirrored=True, turns=1)):
        found = answered(model, [view], pixels)
        if task == "segmentation":
            assert (found.array == plain.array).mean() > 0.94
            continue
        assert found.labels.tolist() == plain.labels.tolist()
        assert np.abs(found.boxes - plain.boxes).max() <= 5
        if task == "instances":
            for one, other in zip(found.stacked(), plain.stacked(), strict=True):
                assert (one & other).sum() > 0.8 * (one | other).sum()


@pytest.mark.parametrize("task", DENSE)
def test_a_wrong_way_back_is_found(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the pixels are moved, the answers taken back as if they were not; or moved half a pixel."""
    prepare, model, pixels = Views.prepare, model_of(task), a_picture()
    plain = answered(model, [View()], pixels)

    def unmoved(self: Views, pixels: np.ndarray, size: Size) -> list[Seen]:
        frame = View().frame(size, self.preprocessing)
        return [
            Seen(each.pixels, replace(frame, input_size=each.frame.input_size)) for each in prepare(self, pixels, size)
        ]

    def shifted(self: Views, pixels: np.ndarray, size: Size) -> list[Seen]:
        seen = prepare(self, pixels, size)
        by = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 1.0]])
        return [Seen(each.pixels, replace(each.frame, matrix=by @ each.frame.matrix)) for each in seen]

    for wrong in (unmoved, shifted):
        monkeypatch.setattr(Views, "prepare", wrong)
        for view in MOVES:
            assert not _agree(answered(model, [view], pixels), plain), view


@given(ANY_VIEW, SIZES, PREPROCESSINGS, st.integers(0, 10**6))
def test_a_mask_is_cut_where_its_log_odds_cross_zero_in_any_view(
    view: View, size: Size, preprocessing: Preprocessing, seed: int
) -> None:
    """Against torch's sampling at every pixel of the image."""
    frame = view.frame(size, preprocessing)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(frame.input_size[1] // 4, frame.input_size[0] // 4)).astype(np.float32)
    box = map_boxes(np.linalg.inv(frame.matrix), np.array([[5.0, 5, *np.array(frame.input_size) - 5]]))[0]
    mask = mask_in(logits, box, frame).within((0, 0, *size))
    expected = _log_odds(logits, frame)
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    within = np.minimum(np.minimum(x - box[0], box[2] - x), np.minimum(y - box[1], box[3] - y))  # of the box, pixels
    sure = (np.abs(expected) > 1e-3) & (within > 1e-6)
    assert np.array_equal(mask[sure], expected[sure] > 0)
    assert not mask[within < -1e-6].any()


def _log_odds(logits: np.ndarray, frame: Frame) -> np.ndarray:
    """At the pixels of the image on disk, [H, W]."""
    width, height = frame.size
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    at = 2 * map_points(frame.matrix, centres) / np.array(frame.input_size) - 1
    grid = torch.from_numpy(at)[None]
    found = F.grid_sample(
        torch.from_numpy(logits).double()[None, None], grid, padding_mode="border", align_corners=False
    )
    return found[0, 0].numpy()


# --- what can be asked for


def test_whole_images_are_told_by_the_mean_of_their_views() -> None:
    model, pixels = model_of("classification"), a_picture()
    views = combined(["flip", "crops"])
    alone = np.array([answered(model, [view], pixels).scores for view in views])
    assert answered(model, views, pixels).scores == pytest.approx(alone.mean(axis=0), abs=1e-5)
    assert np.ptp(alone, axis=0).max() > 0.1


@pytest.mark.parametrize(
    ("task", "hflip", "names"),
    [("classification", 0.5, ("flip",)), ("detection", 0.5, ("flip", "scale")), ("segmentation", 0.0, ("scale",))],
)
def test_auto_is_the_mirror_image_that_training_knew_and_scales_where_places_are_asked(
    task: str, hflip: float, names: tuple[str, ...]
) -> None:
    looking = Views(NetworkAnswering(model_of(task, hflip=hflip)))
    assert looking.names == names and looking.views == combined(names) and looking.warnings == ()


def test_auto_mirrors_nothing_that_training_did_not() -> None:
    with pytest.raises(ConfigError, match="tta = 'auto' finds no view to add: the training did not mirror images"):
        Views(NetworkAnswering(model_of("classification")))


def test_a_view_that_training_ruled_out_has_to_be_named_and_is_warned_about() -> None:
    reason = "mirrored images of left look like right: hflip is switched off"
    (warned,) = Views(NetworkAnswering(model_of("classification", reason=reason)), "flip").warnings
    assert "shows images mirrored, and the training never did (mirrored images of left look like right" in warned
    assert Views(NetworkAnswering(model_of("classification", hflip=0.5)), "flip").warnings == ()
    (warned,) = Views(NetworkAnswering(model_of("classification", hflip=0.5)), "d4").warnings
    assert "shows images turned by a quarter" in warned and "images mirrored," not in warned


def test_what_training_did_in_turn_it_did_together() -> None:
    model = model_of("classification")
    plan = replace(model.plan, augmentation={"hflip": 0.5, "rotate_degrees": 90.0})
    assert Views(NetworkAnswering(replace(model, plan=plan)), "d4").warnings == ()


@pytest.mark.parametrize(
    ("task", "asked", "words"),
    [
        ("classification", "flop", "'flop' is not known: give 'auto', or some of .* did you mean 'flip'"),
        ("classification", "", "'' is not known"),
        ("classification", "flip,", "'' is not known"),
        ("classification", "flip,auto", "'auto' is not known"),
        ("detection", "crops", "crops show parts of an image"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_words(task: str, asked: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Views(NetworkAnswering(model_of(task)), asked)


class OfOneSize(Shades):
    """As a transformer with a position for each of its patches."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.zeros(3, 48, 64)


def test_a_network_of_one_input_size_is_not_asked_for_others() -> None:
    model = model_of("segmentation", OfOneSize(), hflip=0.5)
    with pytest.raises(ConfigError, match=r"the network takes no input of 48 x 40 pixels beside its own 64 x 48"):
        Views(NetworkAnswering(model), "scale")
    with pytest.raises(ConfigError, match="leave out scale, and turns of an input that is no square"):
        Views(NetworkAnswering(model), "turns")
    looking = Views(NetworkAnswering(model))
    assert looking.names == ("flip",) and len(looking.views) == 2
    assert looking.warnings == ("tta: scale is left out, as the network takes no input but that of its own size",)


def test_files_and_tiles_are_looked_at_in_views_as_in_one(tmp_path: Path) -> None:
    """A JPEG is decoded as finely as the largest view needs; a broken file is named."""
    Image.fromarray(a_picture((128, 96))).save(tmp_path / "things.png")
    (tmp_path / "broken.jpg").write_bytes(b"none")
    model = model_of("detection", hflip=0.5)
    files = [tmp_path / "broken.jpg", tmp_path / "things.png"]
    for tiling in (None, Tiling(tile=(96, 96))):
        plain, viewed = (
            list(Predictor(way, tiling).predict(files)) for way in (model, Views(NetworkAnswering(model), "flip"))
        )
        assert plain[0].error and plain[0].error == viewed[0].error
        assert plain[1].result == viewed[1].result and len(plain[1].result["objects"]) == 4
    looking = Views(NetworkAnswering(model), "scale")
    assert looking.min_side == 80 > NetworkAnswering(model).min_side
    assert looking.batch < NetworkAnswering(model).batch / 3
