"""Large images in tiles: every pixel is looked at, every object is named once, and maps have no seams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

import snellen
from snellen.core.errors import ConfigError
from snellen.core.geometry import Size
from snellen.data.tiles import Tiling, nearest
from snellen.predict.answering import NetworkAnswering
from snellen.predict.prediction import Prediction
from snellen.predict.predictor import Predictor
from snellen.tasks.base import TASKS, Task, create_task
from snellen.tasks.loading import LoadedModel
from snellen.tasks.segmentation.target import ClassMap
from tiny_runs import a_plan

INPUT = 64
SIZE = (400, 300)
TILE = 80

# Black on white: boxes in the large image, and what makes each of them hard. Tiles begin at x = 0, 53, 106, ... and at
# y = 0, 55, 110, ...; they end 80 further.
SMALL = {
    "inside a tile": (20, 22, 28, 30),
    "across the border of two tiles": (76, 20, 84, 28),
    "in the overlap of two tiles": (66, 40, 74, 48),
    "at the corner of four tiles": (74, 72, 84, 82),
    "two that touch the same border": (120, 74, 128, 81),
    "... beside each other": (132, 74, 140, 81),
    "at the corner of the image": (392, 292, 400, 300),
}
LONG = (96, 120, 146, 130)  # longer than the overlap: no tile holds it
LARGE = (200, 60, 360, 240)  # longer than a tile, in both directions


pytestmark = pytest.mark.usefixtures("one_thread")


# --- where tiles are


lengths = st.integers(1, 700)
tilings = st.builds(
    lambda tile, overlap: Tiling(tile=tile, overlap=overlap),
    st.tuples(st.integers(16, 300), st.integers(16, 300)),
    st.floats(0, 0.9),
)


@given(tilings, st.tuples(lengths, lengths))
def test_tiles_lie_in_the_image_and_overlap_as_asked(tiling: Tiling, size: Size) -> None:
    tiles = tiling.regions(size, whole=False)
    for axis in (0, 1):
        side = min(tiling.tile[axis], size[axis])
        stretches = sorted({(tile[axis], tile[axis + 2]) for tile in tiles})
        assert all(end - start == side for start, end in stretches)
        assert stretches[0][0] == 0 and stretches[-1][1] == size[axis]
        least = int(tiling.overlap * side)
        assert all(end - start >= least for (_, end), (start, _) in pairwise(stretches))
        # No more than needed: one fewer, at the largest step allowed, would leave pixels out.
        step = max(1, int(side * (1 - tiling.overlap) + 1e-9))
        assert side + (len(stretches) - 2) * step < size[axis] or len(stretches) == 1
    assert len(tiles) == len(set(tiles))


@given(tilings, st.tuples(st.integers(1, 120), st.integers(1, 120)))
def test_each_pixel_belongs_to_the_tile_whose_middle_is_nearest(tiling: Tiling, size: Size) -> None:
    tiles = tiling.regions(size, whole=False)
    told = np.zeros(size[::-1], int)
    for (x0, y0, x1, y1), (left, top, right, bottom) in zip(nearest(tiles), tiles, strict=True):
        assert left <= x0 < x1 <= right and top <= y0 < y1 <= bottom
        told[y0:y1, x0:x1] += 1
        if len(tiles) < 200:
            x, y = np.meshgrid(np.arange(x0, x1) + 0.5, np.arange(y0, y1) + 0.5)
            away = [np.hypot(x - (a + c) / 2, y - (b + d) / 2) for a, b, c, d in tiles]
            own = np.hypot(x - (left + right) / 2, y - (top + bottom) / 2)
            assert (own <= np.min(away, axis=0) + 1e-9).all()
    assert (told == 1).all()


def test_the_whole_image_comes_last_and_once() -> None:
    tiling = Tiling(tile=(64, 64))
    assert tiling.regions((100, 64), whole=True) == [(0, 0, 64, 64), (36, 0, 100, 64), (0, 0, 100, 64)]
    assert tiling.regions((64, 64), whole=True) == [(0, 0, 64, 64)]
    assert tiling.regions((50, 30), whole=False) == [(0, 0, 50, 30)]


@pytest.mark.parametrize("tile", [640, "640", (640, 640), [640, 640]])
def test_a_tile_is_a_side_or_two(tile: Any) -> None:
    assert Tiling.of(tile) == Tiling(tile=(640, 640), overlap=0.2)
    assert Tiling.of("640x480", 0.5, "iou") == Tiling(tile=(640, 480), overlap=0.5, merge="iou")
    assert Tiling.of(None) is None


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        (("640 by 480",), "tile = '640 by 480' is not a size"),
        ((0,), "tile = 0 is not a size: give a side of at least 16 pixels"),
        ((-640,), "is not a size"),
        ((640.0,), "is not a size"),
        ((True,), "is not a size"),
        (((640, 480, 3),), "is not a size"),
        (((640, 8),), "is not a size"),
        ((640, 1.0), "tile_overlap = 1.0 is not a share from 0 to 0.9"),
        ((640, -0.1), "tile_overlap"),
        ((640, float("nan")), "tile_overlap"),
        ((None, 0.3), "give tile as well"),
        ((None, None, "iou"), "give tile as well"),
    ],
)
def test_a_wrong_tile_is_refused_in_words(given_: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("(", r"\(")):
        Tiling.of(*given_)


# --- from files to answers, with networks that see without having learnt


class BlackThings(nn.Module):
    """images [n, 3, h, w] -> candidates: the connected dark things of 4 x 4 pixels or more, the larger the surer.

    As networks do, it overlooks what is too small in its input.
    """

    def forward(self, images: Tensor) -> Tensor:
        from scipy.ndimage import find_objects, label

        candidates = torch.zeros(len(images), 64, 5)
        for i, image in enumerate(images):
            areas, _ = label(image.float().mean(0).numpy() < 100)
            things = [
                (slice_x.start, slice_y.start, slice_x.stop, slice_y.stop) for slice_y, slice_x in find_objects(areas)
            ]
            large = [box for box in things if min(box[2] - box[0], box[3] - box[1]) >= 4]
            for k, box in enumerate(large):
                candidates[i, k] = torch.tensor([*box, 0.5 + min(box[2] - box[0], 40) / 100])
        return candidates


class Shades(nn.Module):
    """images [n, 3, h, w] -> logits of three classes: dark, middle, light. What is at the border it tells wrongly."""

    def forward(self, images: Tensor) -> Tensor:
        shade = images.float().mean(1)
        logits = -(shade[:, None] - torch.tensor([0.0, 128.0, 255.0])[:, None, None]).abs()
        for edge in (logits[:, :, 0], logits[:, :, -1], logits[..., 0], logits[..., -1]):
            edge[:] = torch.tensor([0.0, 0.0, 9.0])[:, None]
        return logits


def model_of(network: nn.Module, task: str, classes: Sequence[str], **changes: Any) -> LoadedModel:
    plan = a_plan()
    preprocessing = replace(plan.preprocessing, input_size=(INPUT, INPUT), fit="letterbox", crop_fraction=1.0)
    plan = replace(plan, preprocessing=replace(preprocessing, **changes), nms="none")
    return LoadedModel(network, create_task(task, classes).configured(plan), plan)


def detector(**changes: Any) -> LoadedModel:
    return model_of(BlackThings(), "detection", ["square"], **changes)


def segmenter() -> LoadedModel:
    return model_of(Shades(), "segmentation", ["dark", "middle", "light"])


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    pixels = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    for x0, y0, x1, y1 in [*SMALL.values(), LARGE, LONG]:
        pixels[y0:y1, x0:x1] = 0
    Image.fromarray(pixels).save(tmp_path / "squares.png")
    return tmp_path / "squares.png"


def boxes_of(prediction: Prediction) -> np.ndarray:
    assert prediction.result is not None
    return np.array([each["box"] for each in prediction.result["objects"]]).reshape(-1, 4)


def times_found(box: Sequence[float], found: np.ndarray) -> int:
    """How many of ``found`` overlap a box by half of their union or more."""
    low, high = np.maximum(found[:, :2], box[:2]), np.minimum(found[:, 2:], box[2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    areas = (found[:, 2:] - found[:, :2]).prod(axis=1)
    return int((shared >= 0.5 * (areas + np.prod(np.subtract(box[2:], box[:2])) - shared)).sum())


@pytest.mark.parametrize("merge", [None, "iou", "smaller"])
def test_tiles_find_each_object_once_and_without_them_the_small_ones_are_missed(
    squares: Path, merge: str | None
) -> None:
    (tiled,) = Predictor(detector(), Tiling(tile=(TILE, TILE), overlap=0.3, merge=merge)).predict([squares])
    found = boxes_of(tiled)
    regions = Tiling(tile=(TILE, TILE), overlap=0.3).regions(SIZE, whole=False)
    assert [(x0, y0) for x0, y0, _, _ in regions][:8] == [*((x, 0) for x in (0, 53, 106, 160, 213, 266, 320)), (0, 55)]
    truth = {**SMALL, "larger than a tile": LARGE, "longer than the overlap": LONG}
    assert {name: times_found(box, found) for name, box in truth.items()} == dict.fromkeys(truth, 1)
    assert len(found) == len(truth) and tiled.result["size"] == list(SIZE)
    (plain,) = Predictor(detector()).predict([squares])
    assert [times_found(box, boxes_of(plain)) for box in SMALL.values()] == [0] * len(SMALL)
    assert times_found(LARGE, boxes_of(plain)) == 1


def test_a_large_photo_is_decoded_in_full_for_tiles(squares: Path, tmp_path: Path) -> None:
    """A JPEG may come at a quarter of its scale where the whole is looked at; small things would be lost."""
    Image.open(squares).resize((1600, 1200)).save(tmp_path / "photo.jpg", quality=95)
    (tiled,) = Predictor(detector(), Tiling(tile=(TILE, TILE), overlap=0.5)).predict([tmp_path / "photo.jpg"])
    assert times_found([4 * side for side in SMALL["inside a tile"]], boxes_of(tiled)) == 1


@pytest.mark.parametrize("tile", [(400, 300), (5000, 5000)])
def test_a_tile_as_large_as_the_image_is_the_same_as_no_tiling(squares: Path, tile: Size, tmp_path: Path) -> None:
    Image.open(squares).save(tmp_path / "photo.jpg")
    files = [squares, tmp_path / "photo.jpg"]
    tiled, plain = (list(Predictor(detector(), tiling).predict(files)) for tiling in (Tiling(tile=tile), None))
    assert [each.to_json() for each in tiled] == [each.to_json() for each in plain]


@pytest.mark.parametrize("tile", [(64, 64), (100, 48)])
def test_the_map_of_tiles_is_the_truth_without_seams(tmp_path: Path, tile: Size) -> None:
    """Shades change at each pixel, and each tile is wrong at its borders: those of the image alone show."""
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 3, (13, 17)), np.ones((16, 16), int)).astype(np.uint8)
    height, width = truth.shape
    Image.fromarray(np.array([0, 128, 255], np.uint8)[truth]).save(tmp_path / "shades.png")
    model = segmenter()
    model = replace(model, plan=replace(model.plan, preprocessing=replace(model.plan.preprocessing, input_size=tile)))
    (tiled,) = Predictor(model, Tiling(tile=tile)).predict([tmp_path / "shades.png"])
    expected = truth.copy()
    for edge in (expected[0], expected[-1], expected[:, 0], expected[:, -1]):
        edge[:] = 2
    found = tiled._draw.target
    assert found.size == (width, height) and np.array_equal(found.array, expected)
    assert tiled.confidence == pytest.approx(1.0, abs=1e-3)
    shares = np.bincount(expected.ravel(), minlength=3) / expected.size
    assert [tiled.result["shares"][name] for name in ("dark", "middle", "light")] == pytest.approx(shares)


def test_the_scores_of_a_map_are_weighted_by_the_pixels_that_each_tile_gave() -> None:
    task: Task[Any] = create_task("segmentation", ["a", "b"])
    left = ClassMap.from_array(np.zeros((20, 40), np.uint8), np.array([0.9, 0.0], np.float32))
    right = ClassMap.from_array(np.eye(20, 40, dtype=np.uint8), np.array([0.6, 0.7], np.float32))
    whole = task.merge([left, right], [(0, 0, 40, 20), (20, 0, 60, 20)], (60, 20), "nearest")
    assert whole.size == (60, 20)
    assert np.array_equal(whole.array[:, :30], np.zeros((20, 30)))
    assert np.array_equal(whole.array[:, 30:], np.eye(20, 40, dtype=np.uint8)[:, 10:])
    dark = 20 * 30 - 10
    assert whole.scores == pytest.approx([(600 * 0.9 + dark * 0.6) / (600 + dark), 0.7])


def test_order_is_kept_and_a_broken_file_is_named(squares: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (40, 30), "white").save(tmp_path / "empty.png")
    truncated = tmp_path / "cut.png"
    truncated.write_bytes(squares.read_bytes()[:300])
    files = [tmp_path / "broken.png", squares, tmp_path / "empty.png", truncated, squares]
    predictions = list(Predictor(detector(), Tiling(tile=(TILE, TILE))).predict(files))
    assert [Path(each.path).name for each in predictions] == [path.name for path in files]
    assert [each.error is not None for each in predictions] == [True, False, False, True, False]
    assert predictions[1].to_json() == predictions[4].to_json()
    assert predictions[2].label == "nothing"


def test_no_more_than_two_images_and_one_batch_of_tiles_are_in_memory(
    squares: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    batches: list[int] = []
    module = import_module("snellen.predict.images")
    decoder, decide = module.read_image, NetworkAnswering.decide

    def counted(*given: Any, **options: Any) -> Any:
        opened.append(1)
        return decoder(*given, **options)

    def watched(self: NetworkAnswering, seen: Sequence[Any]) -> Any:
        batches.append(len(seen))
        return decide(self, seen)

    monkeypatch.setattr(module, "read_image", counted)
    monkeypatch.setattr(NetworkAnswering, "decide", watched)
    answers = Predictor(detector(), Tiling(tile=(TILE, TILE))).predict([squares] * 6)
    for i, _ in enumerate(answers):
        assert len(opened) <= i + 2
    assert max(batches) <= 32 and sum(batches) == 6 * len(Tiling(tile=(TILE, TILE)).regions(SIZE, whole=True))


CANNOT = [name for name in TASKS if not create_task(name, ["a", "b"]).tile_merges]


@pytest.mark.parametrize("name", CANNOT)
def test_a_task_that_cannot_merge_says_so_before_any_image_is_read(name: str) -> None:
    with pytest.raises(ConfigError, match=f"the task '{name}' cannot merge the answers for tiles"):
        Predictor(model_of(nn.Identity(), name, ["a", "b"]), Tiling(tile=(64, 64)))


def test_what_does_not_fit_tiles_is_refused(squares: Path) -> None:
    assert {"classification", "regression"} <= set(CANNOT) and not {"detection", "segmentation", "instances"} & set(
        CANNOT
    )
    with pytest.raises(ConfigError, match=r"tile_merge = 'nearest' does not fit the task 'detection': use iou or sm"):
        Predictor(detector(), Tiling(tile=(64, 64), merge="nearest"))
    with pytest.raises(ConfigError, match="the middle of an image only"):
        Predictor(detector(fit="center crop"), Tiling(tile=(64, 64)))


def test_the_verb_and_the_command_line_hand_tiles_on(
    squares: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from snellen import cli
    from snellen.api import predicting
    from snellen.api.opening import Opened

    opened = Opened(Path("run"), NetworkAnswering(detector()), (), None)
    monkeypatch.setattr(predicting, "check_is_model", lambda path: None)
    monkeypatch.setattr(predicting, "open_model", lambda path, **asked: opened)
    (answer,) = snellen.predict("run", squares, tile=(TILE, TILE), tile_overlap=0.3, tile_merge="smaller")
    assert len(boxes_of(answer)) == len(SMALL) + 2
    assert cli.run(["predict", "run", str(squares), "--tile", f"{TILE}x{TILE}", "--tile-overlap", "0.3"]) == 0
    assert f"{len(SMALL) + 2} square" in capsys.readouterr().out
    assert cli.run(["predict", "run", str(squares)]) == 0
    assert "1 square" in capsys.readouterr().out
    assert cli.run(["predict", "run", str(squares), "--tile", "many"]) == 2
    assert "tile = 'many' is not a size" in capsys.readouterr().err
