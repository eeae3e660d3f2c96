"""Instance segmentation: masks that move, truth from outlines, and answers in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from instance_scenes import (
    CLASSES,
    SIZE,
    TASK,
    TRUTH,
    Mask,
    blank_mask,
    disc_mask,
    frame_of,
    instance_set,
    record_of,
    scores_of,
    square_mask,
    whole_mask,
)
from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.geometry import hflip, letterbox, rotation, scaling, squash, translation
from snellen.core.masks import encode, mask_box
from snellen.core.record import Record
from snellen.core.sample import Frame
from snellen.data.elastic import elastic_fields
from snellen.data.warp import warp_mask
from snellen.tasks.instances import finding
from snellen.tasks.instances.finding import mask_in
from snellen.tasks.instances.object_mask import ObjectMask
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.instances.task import Instances
from tiny_runs import a_plan

torch.set_num_threads(1)

masks = st.integers(0, 2**32).flatmap(
    lambda seed: st.builds(
        lambda width, height, share: np.random.default_rng(seed).random((height, width)) < share,
        st.integers(1, 9),
        st.integers(1, 9),
        st.sampled_from((0.0, 0.2, 0.8, 1.0)),
    )
)

# --- masks


@given(masks)
def test_a_mask_comes_back_from_its_runs(mask: Mask) -> None:
    kept = ObjectMask.of(mask)
    height, width = mask.shape
    assert np.array_equal(kept.within((0, 0, width, height)), mask)
    assert kept.area == mask.sum()
    assert mask_box(mask) in (None, tuple(map(float, kept.region)))
    assert kept == ObjectMask.of(kept.pixels(), kept.left, kept.top)


@given(masks, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_runs_of_the_whole_image_are_those_that_encoding_it_gives(
    mask: Mask, left: int, top: int, right: int, below: int
) -> None:
    """Also where an object fills columns from head to foot, and runs go on in the next."""
    whole = np.pad(mask, ((top, below), (left, right)))
    kept = ObjectMask.of(mask, left, top)
    assert kept.rle((whole.shape[1], whole.shape[0])) == encode(whole)


@given(masks, masks)
def test_two_masks_are_equal_where_their_pixels_are(one: Mask, other: Mask) -> None:
    padded = [np.pad(each, ((0, 9 - each.shape[0]), (0, 9 - each.shape[1]))) for each in (one, other)]
    assert (ObjectMask.of(one) == ObjectMask.of(other)) == np.array_equal(*padded)


@given(masks, st.sampled_from(("flip", "shift", "turn", "enlarge", "shrink")))
def test_a_moved_mask_is_the_warped_mask(mask: Mask, how: str) -> None:
    height, width = mask.shape
    matrix, size = {
        "flip": (hflip(width), (width, height)),
        "shift": (translation(3, -2), (width, height)),
        "turn": (rotation(33, (width / 2, height / 2)), (width, height)),
        "enlarge": (scaling(2.3, 1.7), (2 * width, 2 * height)),
        "shrink": (scaling(0.6, 0.6), (max(1, width // 2), max(1, height // 2))),
    }[how]
    moved = ObjectMask.of(mask).moved(matrix, size)
    expected = warp_mask(mask, matrix, size, ignore=0)
    assert np.array_equal(moved.within((0, 0, *size)), expected)


def test_masks_follow_an_elastic_field() -> None:
    field, discs = elastic_fields(0.05, 1, 0, ["a"], SIZE)[0], [disc_mask(20, 15, 9), disc_mask(10, 8, 6)]
    bent = TASK.warp(instance_set(discs, [0, 1]), hflip(SIZE[0]), SIZE, field).stacked()
    for seen, disc in zip(bent, discs, strict=True):
        assert np.array_equal(seen, warp_mask(disc, hflip(SIZE[0]), SIZE, ignore=0, field=field))
        assert not np.array_equal(seen, disc[:, ::-1])


# --- truth


def test_the_truth_is_what_outlines_and_runs_cover() -> None:
    square = Annotation(label="square", box=(5, 5, 15, 15), polygons=((5, 5, 15, 5, 15, 15, 5, 15),))
    ring = disc_mask(28, 15, 9) & ~disc_mask(28, 15, 4)
    holed = Annotation(label="circle", box=(19, 6, 37, 24), mask=encode(ring))
    two = Annotation(label="square", box=(0, 20, 12, 30), polygons=((0, 20, 4, 20, 4, 30), (8, 20, 12, 20, 12, 30)))
    target = TASK.target(record_of(square, holed, two))
    assert target.labels.tolist() == [1, 0, 1] and not target.crowd.any()
    assert np.array_equal(whole_mask(target, 0), square_mask(5, 5, 10)) and np.array_equal(whole_mask(target, 1), ring)
    assert whole_mask(target, 2)[:, 4:8].sum() == 0 and whole_mask(target, 2)[25, [3, 11]].all()
    assert target.area.tolist() == [100, ring.sum(), whole_mask(target, 2).sum()]


def test_an_outline_beyond_the_image_is_cut() -> None:
    target = TASK.target(
        record_of(Annotation(label="square", box=(30, 0, 40, 10), polygons=((30, -5, 50, -5, 50, 10, 30, 10),)))
    )
    assert np.array_equal(whole_mask(target), square_mask(30, 0, 10))


def test_a_box_beside_outlines_is_neither_learnt_nor_judged() -> None:
    known = Annotation(label="square", box=(5, 5, 15, 15), polygons=((5, 5, 15, 5, 15, 15, 5, 15),))
    box = Annotation(label="square", box=(20, 5, 30, 15))
    thin = Annotation(label="circle", box=(20, 20, 30, 21), polygons=((20, 20.1, 30, 20.1, 30, 20.2),))
    target = TASK.target(record_of(known, box, thin))
    assert target.crowd.tolist() == [False, True, True]
    found = instance_set(
        [square_mask(5, 5, 10), square_mask(20, 5, 10)], [1, 1], scores=np.array([0.9, 0.95], np.float32)
    )
    assert scores_of([found], [target])["mask_map"] == pytest.approx(1)
    judged = instance_set([square_mask(5, 5, 10)], [1])
    assert scores_of([found], [judged])["mask_map"] < 1.0


def test_boxes_alone_are_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match=r"photo\.jpg: none of its 1 objects has an outline.*task = 'detection'"):
        TASK.target(record_of(Annotation(label="square", box=(5, 5, 15, 15))))
    with pytest.raises(DataError, match="outlines of objects are needed"):
        TASK.target(Record(id="a", path=Path("a"), labels=("circle",)))
    with pytest.raises(DataError, match=r"'circel' is not one of the classes.*did you mean 'circle'"):
        TASK.target(record_of(Annotation(label="circel", box=(5, 5, 15, 15))))
    assert len(TASK.target(record_of())) == 0
    assert TASK.target(record_of(Annotation(label="circle", box=(5, 5, 9, 9), crowd=True))).crowd.tolist() == [True]


# --- moving


def test_a_flip_moves_masks_and_boxes() -> None:
    width = SIZE[0]
    flipped = TASK.warp(TRUTH, hflip(width), SIZE)
    assert np.array_equal(flipped.stacked(), TRUTH.stacked()[:, :, ::-1])
    x0, y0, x1, y1 = TRUTH.boxes.T
    assert np.array_equal(flipped.boxes, np.stack([width - x1, y0, width - x0, y1], 1))
    back = TASK.warp(flipped, hflip(width), SIZE)
    assert all(one == other for one, other in zip(back.masks, TRUTH.masks, strict=True))


def test_objects_that_a_crop_cuts_away_are_dropped_by_their_pixels() -> None:
    """Of the triangle's box 40 % is left, of its pixels 16 %: it is judged by those."""
    triangle = np.tril(np.ones((20, 20), np.bool_))
    whole = blank_mask((20, 20)) | triangle
    target = instance_set([whole, square_mask(12, 0, 8, (20, 20))], [0, 1], (20, 20))
    cut = TASK.warp(target, translation(-12, 0), (8, 20))
    assert cut.labels.tolist() == [1]
    kept = TASK.warp(target, translation(-8, 0), (12, 20))
    assert kept.labels.tolist() == [0, 1]
    assert kept.boxes.tolist() == [[0, 8, 12, 20], [4, 0, 12, 8]]


def test_a_crowd_is_kept_as_long_as_anything_of_it_is_seen() -> None:
    target = instance_set([square_mask(0, 0, 20)], [0], crowd=np.array([True]))
    assert len(TASK.warp(target, translation(-19, 0), SIZE)) == 1
    assert len(TASK.warp(target, translation(-20, 0), SIZE)) == 0


def test_the_area_grows_with_the_mask() -> None:
    target = replace(TRUTH, area=np.array([50.0, 100.0], np.float32))
    doubled = TASK.warp(target, scaling(2, 2), (80, 60))
    np.testing.assert_allclose(doubled.area, [200.0, 400.0], rtol=0.02)


def test_overlaying_shows_each_image_on_its_side() -> None:
    other = instance_set([disc_mask(20, 15, 10), square_mask(0, 0, 5)], [0, 1])
    both = TASK.overlay(TRUTH, other, (20, 0, 40, 30))
    expected = [whole_mask(TRUTH, 0), whole_mask(other, 0) & (np.arange(40) >= 20)]
    assert both.labels.tolist() == [0, 0]
    assert np.array_equal(both.stacked(), np.stack(expected))
    assert both.boxes[1].tolist() == list(mask_box(expected[1]) or ())
    assert len(TASK.overlay(TASK.nothing(TRUTH), TRUTH, (0, 0, 40, 30))) == 2


# --- answers


def _outputs(targets: Sequence[InstanceSet], frames: Sequence[Frame], cells: int = 4) -> tuple[Tensor, Tensor]:
    """What a network that makes no mistake would say: a prototype for each object, and 3 candidates without any."""
    most = max(len(each) for each in targets)
    width, height = frames[0].input_size
    candidates = torch.zeros(len(targets), most + 3, 4 + len(CLASSES) + most)
    prototypes = torch.zeros(len(targets), most, height // cells, width // cells)
    for i, (target, frame) in enumerate(zip(targets, frames, strict=True)):
        moved = target.moved(frame.matrix, frame.input_size)
        for k in range(len(moved)):
            fine = torch.from_numpy(moved.masks[k].within((0, 0, width, height)).astype(np.float32))
            prototypes[i, k] = 20 * torch.nn.functional.avg_pool2d(fine[None], cells)[0] - 10
            candidates[i, k, :4] = torch.from_numpy(moved.boxes[k])
            candidates[i, k, 4 + int(moved.labels[k])] = 0.9 - 0.01 * k
            candidates[i, k, 4 + len(CLASSES) + k] = 1
    return candidates, prototypes


def _iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("fit", ("squash", "letterbox"))
def test_perfect_answers_are_the_truth_in_the_image_s_own_pixels(fit: str) -> None:
    sizes = [(80, 60), (50, 90)]
    targets = [
        instance_set([disc_mask(24, 24, 16, sizes[0]), square_mask(48, 20, 24, sizes[0])], [0, 1], sizes[0]),
        instance_set([disc_mask(25, 60, 20, sizes[1])], [0], sizes[1]),
    ]
    place = squash if fit == "squash" else letterbox
    frames = [Frame(size=size, matrix=place(size, (128, 96)), input_size=(128, 96)) for size in sizes]
    found = TASK.decode(_outputs(targets, frames), frames)
    for said, true in zip(found, targets, strict=True):
        assert said.size == true.size and said.labels.tolist() == true.labels.tolist()
        np.testing.assert_allclose(said.boxes, true.boxes, atol=1.5)
        for i in range(len(true)):
            assert _iou(whole_mask(said, i), whole_mask(true, i)) > 0.93


def test_a_frame_that_was_forgotten_would_be_seen() -> None:
    size, input_size = (50, 90), (128, 96)
    target = instance_set([disc_mask(25, 60, 20, size)], [0], size)
    right = Frame(size=size, matrix=letterbox(size, input_size), input_size=input_size)
    wrong = replace(right, matrix=squash(size, input_size))
    said = TASK.decode(_outputs([target], [right]), [wrong])[0]
    assert _iou(whole_mask(said), whole_mask(target)) < 0.5


def test_masks_end_where_their_box_ends() -> None:
    frame = Frame(size=(40, 40), matrix=np.eye(3), input_size=(40, 40))
    everywhere = np.full((10, 10), 5.0, np.float32)
    mask = mask_in(everywhere, np.array([3.4, 10.6, 20.2, 30.0]), frame)
    assert mask.region == (3, 11, 20, 30) and mask.area == 17 * 19


def test_a_mask_made_in_strips_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = Frame(size=(40, 40), matrix=np.eye(3), input_size=(40, 40))
    logits, box = np.random.default_rng(0).normal(size=(10, 10)).astype(np.float32), np.array([3.4, 10.6, 37.2, 30.0])
    at_once = mask_in(logits, box, frame)
    monkeypatch.setattr(finding, "_STRIP", 7)
    assert mask_in(logits, box, frame) == at_once and at_once.area > 100


def test_an_edge_is_found_between_cells() -> None:
    """Log-odds of -1 and 3 at x = 2 and 6: they cross 0 at x = 3, between the pixels 2 and 3."""
    frame = Frame(size=(8, 8), matrix=np.eye(3), input_size=(8, 8))
    logits = np.array([[-1.0, 3.0], [-1.0, 3.0]], np.float32)
    assert mask_in(logits, np.array([0.0, 0, 8, 8]), frame).region == (3, 0, 8, 8)


def test_an_object_without_a_pixel_is_none() -> None:
    candidates, prototypes = _outputs([TRUTH], [_own_frame()])
    prototypes[0, 1] = -10.0
    assert TASK.decode((candidates, prototypes), [_own_frame()])[0].labels.tolist() == [0]


def _own_frame() -> Frame:
    return Frame(size=SIZE, matrix=np.eye(3), input_size=SIZE)


def test_without_frames_answers_are_in_pixels_of_the_input() -> None:
    outputs = _outputs([instance_set([disc_mask(12, 12, 8, (40, 32))], [0], (40, 32))], [frame_of((40, 32))])
    plain = TASK.decode(outputs)[0]
    plan = a_plan(preprocessing=replace(a_plan().preprocessing, input_size=(80, 64)))
    doubled = Instances(CLASSES).configured(plan).decode(outputs)[0]
    assert plain.size == (40, 32) and doubled.size == (80, 64)


def test_several_networks_answer_as_one_with_prototypes_of_their_own() -> None:
    """Two that know one object each, at different resolutions."""
    frame = frame_of((80, 64))
    one, other = (
        instance_set([disc_mask(20, 20, 12, (80, 64))], [0], (80, 64)),
        instance_set([square_mask(40, 20, 24, (80, 64))], [1], (80, 64)),
    )
    outputs = [_outputs([one], [frame]), _outputs([other], [frame], cells=8)]
    found = TASK.decode_together(outputs, [[frame], [frame]])[0]
    assert found.labels.tolist() == [0, 1]
    assert _iou(whole_mask(found, 0), whole_mask(one)) > 0.9 and _iou(whole_mask(found, 1), whole_mask(other)) > 0.9


def test_empty_images_have_empty_answers() -> None:
    nothing = instance_set([], [])
    candidates, prototypes = torch.zeros(1, 5, 4 + 2 + 3), torch.zeros(1, 3, 8, 10)
    found = TASK.decode((candidates, prototypes), [_own_frame()])[0]
    assert len(found) == 0 and found.stacked().shape == (0, 30, 40)
    assert TASK.caption(found) == "nothing" and TASK.describe(found)["objects"] == []
    assert TASK.draw(np.zeros((30, 40, 3), np.uint8), found).size == (480, 360)
    assert len(TASK.warp(nothing, hflip(40), SIZE)) == 0
    with pytest.raises(DataError, match="nothing to measure"):
        TASK.metrics().compute()
