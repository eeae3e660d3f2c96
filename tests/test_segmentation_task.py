"""Segmentation as a task: truth from masks and outlines, answers in pixels of the image, numbers over all pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load, save

from class_map_scenes import CLASSES, TASK, random_maps, scene
from snellen.core.annotation import Annotation, MaskFile
from snellen.core.errors import ConfigError, DataError
from snellen.core.geometry import center_crop, hflip, identity, letterbox, squash
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.core.sample import Batch, Frame
from snellen.nn.segmentation.answers import decide
from snellen.tasks.segmentation.target import VOID, ClassMap, from_arrays, to_arrays
from snellen.tasks.segmentation.task import Segmentation


@pytest.fixture(autouse=True)
def _seeded(one_thread: None) -> None:
    torch.manual_seed(0)


class _Plan:
    """As much of a plan as the task looks at."""

    def __init__(self, size: tuple[int, int] = (32, 24), **changes: Any) -> None:
        self.architecture, self.model, self.dropout = "unet", "small-resnet", 0.0
        self.norm = self.activation = "auto"
        self.preprocessing = Preprocessing(
            input_size=size, fit="squash", crop_fraction=1.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
        )
        self.loss, self.class_weights, self.label_smoothing, self.focal_gamma = "cross-entropy+dice", (), 0.0, 2.0
        self.weights, self.pretrained = None, False
        self.__dict__.update(changes)


def batch(scenes: list[tuple[np.ndarray, ClassMap]], frames: tuple[Frame, ...] = ()) -> Batch[ClassMap]:
    pixels = torch.from_numpy(np.stack([picture for picture, _ in scenes])).permute(0, 3, 1, 2)
    return Batch(images=pixels, targets=[truth for _, truth in scenes], ids=[""] * len(scenes), frames=frames)


def logits_of(truth: list[ClassMap]) -> torch.Tensor:
    maps = torch.from_numpy(np.stack([each.array for each in truth])).long()
    return 12 * F.one_hot(maps.masked_fill(maps == VOID, 0), 3).movedim(-1, 1).float()


# --- truth


def record(**truth: Any) -> Record:
    return Record(id="photo.jpg", path=Path("photo.jpg"), **{"size": (6, 4), **truth})


def mask_file(folder: Path, pixels: list[list[int]], values: dict[int, int]) -> MaskFile:
    Image.fromarray(np.array(pixels, np.uint8)).save(folder / "mask.png")
    return MaskFile(path=folder / "mask.png", values=values)


def test_truth_is_what_the_mask_says_and_void_what_it_does_not_name(tmp_path: Path) -> None:
    mask = mask_file(tmp_path, [[0, 10, 20], [20, 99, 0]], {0: 0, 10: 1, 20: 2})
    truth = TASK.target(record(mask=mask, size=(3, 2)))
    assert truth.array.tolist() == [[0, 1, 2], [2, VOID, 0]] and truth.size == (3, 2) and truth.scores is None


def test_objects_are_drawn_in_their_order_on_background() -> None:
    disc = Annotation(label="disc", box=(0, 0, 4, 4), polygons=((0, 0, 4, 0, 4, 4, 0, 4),))
    block = Annotation(label="block", box=(3, 1, 6, 3), polygons=((3, 1, 6, 1, 6, 3, 3, 3),))
    truth = TASK.target(record(objects=(disc, block)))
    assert truth.array.tolist() == [[1, 1, 1, 1, 0, 0], [1, 1, 1, 2, 2, 2], [1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]]
    assert set(TASK.target(record(objects=())).array.ravel()) == {0}


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ({"labels": ("disc",)}, r"photo\.jpg: no class is given for its pixels"),
        ({"objects": (Annotation(label="disc", box=(0, 0, 2, 2)),)}, "'disc' is given by a box only"),
        (
            {"objects": (Annotation(label="ball", box=(0, 0, 2, 2), polygons=((0, 0, 2, 0, 2, 2),)),)},
            "'ball' is not one of the classes",
        ),
        ({"objects": (), "size": None}, "the size of the image is not known"),
    ],
)
def test_truth_of_another_kind_is_refused(truth: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        TASK.target(record(**truth))


def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    mask = mask_file(tmp_path, [[0, 1], [1, 3]], {0: 0, 1: 1, 3: 3})
    with pytest.raises(DataError, match="2 x 2 pixels and the image 6 x 4"):
        TASK.target(record(mask=mask))
    with pytest.raises(DataError, match="holds the class 3, and there are 3 classes"):
        TASK.target(record(mask=mask, size=(2, 2)))


def test_uncovered_pixels_need_a_class() -> None:
    whole = Annotation(label="disc", box=(0, 0, 6, 4), polygons=((0, 0, 6, 0, 6, 4, 0, 4),))
    bare = Segmentation(("disc", "block"))
    assert not bare.target(record(objects=(whole,))).array.any()
    with pytest.raises(DataError, match="'background' must be one of the classes"):
        bare.target(record(objects=()))


def test_a_map_moves_with_its_image_and_is_void_beyond_it() -> None:
    (truth,) = random_maps(0, 1)
    assert np.array_equal(TASK.warp(truth, hflip(12), (12, 9)).array, truth.array[:, ::-1])
    boxed = TASK.warp(truth, letterbox((12, 9), (12, 12)), (12, 12))
    assert (boxed.array != VOID).sum() <= 12 * 9 and (boxed.array[[0, -1]] == VOID).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(0, 5), width=st.integers(1, 40), height=st.integers(1, 40))
def test_maps_come_back_from_arrays_and_from_a_file(seed: int, n: int, width: int, height: int) -> None:
    maps = random_maps(seed, n, size=(width, height))
    arrays = load(save(to_arrays(maps, "truth")))
    again = from_arrays(arrays, "truth")
    assert [each.size for each in again] == [each.size for each in maps]
    assert all(np.array_equal(one.array, other.array) for one, other in zip(again, maps, strict=True))


def test_a_map_of_a_large_image_takes_little_memory() -> None:
    classes = np.zeros((1000, 1500), np.uint8)
    classes[200:700, 300:900] = 1
    assert len(ClassMap.from_array(classes).packed) < classes.size / 100


# --- answers


@pytest.mark.parametrize("make", [squash, letterbox])
@pytest.mark.parametrize("size", [(100, 70), (48, 90), (31, 17)])
def test_answers_are_given_in_pixels_of_the_image(make: Any, size: tuple[int, int]) -> None:
    """Right at every pixel that is not within a pixel of the input from a contour."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    truth = ((x > 0.3 * width) + (y > 0.6 * height)).astype(np.uint8)
    matrix, input_size = make(size, (64, 48)), (64, 48)
    moved = ClassMap.from_array(truth).moved(matrix, input_size, None)
    frame = Frame(size=size, matrix=matrix, input_size=input_size)
    (found,) = TASK.decode(logits_of([moved]), [frame])
    assert found.size == size
    step = int(np.ceil(1 / min(matrix[0, 0], matrix[1, 1]))) + 1
    near = np.zeros_like(truth, bool)
    for axis in (0, 1):
        for shift in range(-step, step + 1):
            near |= np.roll(truth, shift, axis) != truth
    assert (found.array == truth)[~near].all() and (found.array == truth).mean() > 0.8


def test_squashed_logits_come_back_as_a_bilinear_resize_would_bring_them() -> None:
    logits = torch.randn(3, 24, 32)
    frame = Frame(size=(50, 61), matrix=squash((50, 61), (32, 24)), input_size=(32, 24))
    classes, _ = decide(logits, frame)
    expected = F.interpolate(logits[None], (61, 50), mode="bilinear", align_corners=False)[0].argmax(0)
    assert (torch.from_numpy(classes) == expected).float().mean() > 0.999


def test_without_frames_answers_are_for_the_input_and_a_frame_that_moves_nothing_changes_nothing() -> None:
    logits = torch.randn(2, 3, 24, 32)
    still = Frame(size=(32, 24), matrix=identity(), input_size=(32, 24))
    for one, other in zip(TASK.decode(logits), TASK.decode(logits, [still, still]), strict=True):
        assert one.packed == other.packed and np.array_equal(one.scores, other.scores)  # type: ignore[arg-type]
        assert one.size == (32, 24)


def test_pieces_of_a_large_image_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(3, 12, 16)
    frame = Frame(size=(40, 33), matrix=center_crop((40, 33), (16, 12)), input_size=(16, 12))
    whole = decide(logits, frame)
    monkeypatch.setattr("snellen.nn.segmentation.answers._MOST_VALUES", 3 * 40 * 4)
    assert all(np.allclose(one, other) for one, other in zip(whole, decide(logits, frame), strict=True))


def test_scores_are_the_mean_probability_where_a_class_was_given() -> None:
    logits = torch.randn(3, 5, 6)
    (found,) = TASK.decode(logits[None])
    best, chosen = logits.softmax(0).max(0)
    for i in range(3):
        expected = best[chosen == i].mean() if (chosen == i).any() else torch.tensor(0.0)
        assert found.scores is not None and found.scores[i] == pytest.approx(expected.item(), abs=1e-6)
    assert TASK.describe(found)["confidence"] == pytest.approx(best.mean().item(), abs=1e-5)


def test_a_decision_moves_what_is_said() -> None:
    logits = torch.randn(1, 3, 20, 20)
    (usual,), (even,) = TASK.decode(logits), Segmentation(CLASSES, (0.5, 0.5, 0.5)).decode(logits)
    (biased,) = Segmentation(CLASSES, (1e-9, 1.0, 1.0)).decode(logits)
    assert usual.packed == even.packed
    assert (usual.array == 0).any() and not (biased.array == 0).any()


def test_an_ensemble_says_what_the_mean_probability_says() -> None:
    one, other = torch.randn(2, 3, 6, 5), torch.randn(2, 3, 6, 5)
    mean = (one.softmax(1) + other.softmax(1)) / 2
    said = np.stack([each.array for each in TASK.decode_together([one, other])])
    assert np.array_equal(said, mean.argmax(1).numpy())


# --- learning


def test_a_network_learns_the_shapes() -> None:
    rng = np.random.default_rng(0)
    train, test = [scene(rng) for _ in range(24)], [scene(rng) for _ in range(8)]
    plan: Any = _Plan()
    model = TASK.build_model(plan).train()
    TASK.load_weights(model, plan)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for step in range(30):
        terms = TASK.losses(model, batch([train[(8 * step + i) % 24] for i in range(8)]), plan)
        assert list(terms) == ["cross-entropy", "dice"]
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    frames = tuple(Frame(size=(64, 48), matrix=squash((64, 48), (32, 24)), input_size=(32, 24)) for _ in test)
    model.eval()
    with torch.no_grad():
        losses, said = TASK.assess(model, batch(test, frames), plan)
    large = [ClassMap.from_array(truth.array.repeat(2, 0).repeat(2, 1)) for _, truth in test]
    metrics = TASK.metrics()
    metrics.update(said, large)
    numbers = metrics.compute(intervals=False)
    assert numbers["mean_iou"].value > 0.7, numbers
    assert list(losses) == ["cross_entropy"] and losses["cross_entropy"] < 0.3
    trivial = TASK.metrics()
    trivial.update(TASK.majority([truth for _, truth in train], len(test)), large)
    assert trivial.compute(intervals=False)["mean_iou"].value < 0.4


def test_void_pixels_are_not_learnt_from() -> None:
    plan: Any = _Plan()
    outputs = torch.randn(1, 3, 9, 12, requires_grad=True)
    nothing = Batch(images=torch.empty(1), targets=[ClassMap.from_array(np.full((9, 12), VOID, np.uint8))], ids=[""])
    assert sum(TASK.criterion(outputs, nothing, plan).values()) == 0
    assert TASK.criterion(outputs.detach(), nothing, plan) == {"cross_entropy": 0}


def test_any_sum_of_losses_is_accepted_and_nonsense_refused() -> None:
    for loss in (*TASK.loss_names, "focal+0.3*lovasz"):
        TASK.check_loss(loss)
    with pytest.raises(ConfigError, match="did you mean 'dice'"):
        TASK.check_loss("cross-entropy+dicce")
