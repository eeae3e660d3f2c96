"""Every object is learnt by the cells that see it best, whatever its size and its neighbours; crowds by none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from snellen.nn.detection.assign import Assignment, Cells, assign
from snellen.nn.detection.boxes import iou
from snellen.nn.detection.truth import Truth

torch.set_num_threads(1)

SIDE, STRIDES = 64, (8, 16, 32)


def _cells() -> Cells:
    """Of an image of 64 x 64: 8 x 8, 4 x 4 and 2 x 2."""
    centres, sides = [], []
    for stride in STRIDES:
        for y in range(SIDE // stride):
            for x in range(SIDE // stride):
                centres.append(((x + 0.5) * stride, (y + 0.5) * stride))
                sides.append(float(stride))
    return Cells(torch.tensor(centres), torch.tensor(sides))


CELLS = _cells()
COUNT = len(CELLS.strides)


def _at_first() -> Tensor:
    """What an untrained detector predicts: boxes of four strides."""
    reach = 2 * CELLS.strides[:, None]
    return torch.cat([CELLS.centres - reach, CELLS.centres + reach], 1)


def _truth(boxes: list[list[float]], labels: list[int] | None = None, crowd: list[bool] | None = None) -> Truth:
    labels = [0] * len(boxes) if labels is None else labels
    crowds = torch.tensor([False] * len(boxes) if crowd is None else crowd, dtype=torch.bool)
    return Truth(torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(labels, dtype=torch.int64), crowds)


def _assign(truth: Truth, boxes: Tensor | None = None, scores: Tensor | None = None, topk: int = 13) -> Assignment:
    boxes = _at_first() if boxes is None else boxes
    return assign(boxes, torch.full((COUNT, 3), 0.01) if scores is None else scores, CELLS, truth, topk=topk)


def _is_in(box: Tensor) -> Tensor:
    return ((CELLS.centres >= box[:2]) & (CELLS.centres < box[2:])).all(1)


def test_cells_of_an_object_lie_in_it_and_the_rest_is_background() -> None:
    truth = _truth([[3, 5, 30, 28], [40, 40, 60, 62]])
    asked = _assign(truth)
    for k in range(2):
        mine = asked.truth == k
        assert 0 < int(mine.sum()) <= 13
        assert bool(_is_in(truth.boxes[k])[mine].all())
    background = asked.truth < 0
    assert bool((asked.quality[background] == 0).all()) and bool((asked.share[background] == 0).all())
    assert not asked.ignored.any()


def test_the_best_are_taken_by_score_and_overlap_together() -> None:
    """Three cells of one object, by hand: score * IoU**6."""
    truth = _truth([[0, 0, 64, 64]])
    boxes, scores = torch.zeros(COUNT, 4), torch.full((COUNT, 3), 0.5)
    boxes[0], boxes[1], boxes[2] = torch.tensor([[0.0, 0, 64, 64], [0, 0, 64, 32], [0, 0, 64, 48]])  # IoU 1, 1/2, 3/4
    scores[0, 0], scores[1, 0], scores[2, 0] = 0.1, 1.0, 1.0
    asked = _assign(truth, boxes, scores, topk=2)
    assert asked.truth[:3].tolist() == [0, -1, 0]  # 0.1 and 0.75**6 = 0.178 beat 0.5**6 = 0.0156
    torch.testing.assert_close(asked.share[:3], torch.tensor([0.1 / 0.75**6, 0, 1]))
    torch.testing.assert_close(asked.quality, asked.share)  # the best IoU is 1


def test_the_target_of_the_best_cell_is_its_best_overlap() -> None:
    truth = _truth([[3, 5, 30, 28], [40, 40, 60, 62]])
    asked = _assign(truth)
    overlaps = iou(_at_first()[:, None], truth.boxes)
    for k in range(2):
        mine = asked.truth == k
        assert float(asked.quality[mine].max()) == pytest.approx(float(overlaps[mine, k].max()))
        assert float(asked.share[mine].max()) == 1.0


def test_large_and_small_objects_find_their_level_before_anything_is_learnt() -> None:
    large, small = _assign(_truth([[0, 0, 64, 64]])), _assign(_truth([[20, 20, 32, 32]]))
    assert float(CELLS.strides[large.share.argmax()]) == 16.0
    assert float(CELLS.strides[small.share.argmax()]) == 8.0


@given(x=st.floats(0, 63.9), y=st.floats(0, 63.9), width=st.floats(0.05, 6), height=st.floats(0.05, 6))
def test_no_object_is_too_small(x: float, y: float, width: float, height: float) -> None:
    truth = _truth([[x, y, min(x + width, 64.0), min(y + height, 64.0)]])
    asked = _assign(truth)
    mine = asked.truth == 0
    middle = (truth.boxes[0, :2] + truth.boxes[0, 2:]) / 2
    near = (CELLS.centres - middle).abs().amax(1) <= CELLS.strides / 2 + 1e-2
    assert bool(mine.any()) and bool((near | _is_in(truth.boxes[0]))[mine].all())
    assert float(asked.share.max()) == 1.0 and float(asked.quality.max()) > 0


def test_an_object_at_the_rim_or_beyond_it_has_a_cell() -> None:
    """Boxes end within the image where data is healthy; one that does not must not be lost."""
    for box in ([63.9, 63.9, 64, 64], [60, 60, 80, 80], [-20, -20, 1, 1]):
        assert int((_assign(_truth([list(map(float, box))])).truth == 0).sum()) > 0, box


def test_a_cell_of_two_objects_goes_to_the_one_it_overlaps_best() -> None:
    truth = _truth([[0, 0, 64, 64], [16, 16, 48, 48]], [0, 1])
    overlaps = iou(_at_first()[:, None], truth.boxes)
    asked = _assign(truth, topk=COUNT)
    inner = _is_in(truth.boxes[1])
    assert asked.truth[inner].tolist() == overlaps[inner].argmax(1).tolist()
    assert bool((asked.truth[~inner] == 0).all())


def test_an_object_that_loses_all_its_cells_gets_one_back() -> None:
    """Two boxes of the same place: every cell overlaps the first better, or as well."""
    same = [20.0, 20.0, 44.0, 44.0]
    for boxes in ([same, same], [same, same, same], [same, [20, 20, 44, 45]]):
        asked = _assign(_truth(boxes))
        assert set(asked.truth.tolist()) == {-1, *range(len(boxes))}


def test_two_tiny_objects_in_one_cell_are_both_learnt() -> None:
    asked = _assign(_truth([[33, 33, 34, 34], [34, 34, 35, 35]], [0, 1]))
    assert {0, 1} <= set(asked.truth.tolist())


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12))
def test_every_object_has_a_cell_with_a_target(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    corners = 50 * torch.rand(count, 2, generator=generator)
    sizes = 1 + 12 * torch.rand(count, 2, generator=generator)
    truth = Truth.of_boxes(torch.cat([corners, corners + sizes], 1), torch.arange(count) % 3)
    asked = _assign(truth, scores=torch.rand(COUNT, 3, generator=generator))
    for k in range(count):
        assert float(asked.share[asked.truth == k].max()) == 1.0
    assert 0 <= float(asked.quality.min()) and float(asked.quality.max()) <= 1


def test_crowds_are_not_asked_and_not_learnt() -> None:
    truth = _truth([[4, 4, 20, 20], [0, 0, 40, 40]], crowd=[False, True])
    asked = _assign(truth)
    assert set(asked.truth.tolist()) == {-1, 0}
    in_crowd = _is_in(truth.boxes[1])
    assert torch.equal(asked.ignored, in_crowd & (asked.truth < 0))
    assert int(asked.ignored.sum()) > 0


def test_the_number_of_an_object_counts_crowds_before_it() -> None:
    truth = _truth([[40, 40, 64, 64], [4, 4, 20, 20]], [2, 1], crowd=[True, False])
    assert set(_assign(truth).truth.tolist()) == {-1, 1}


def test_a_crowd_alone_leaves_its_surroundings_background() -> None:
    asked = _assign(_truth([[0, 0, 32, 64]], crowd=[True]))
    assert bool((asked.truth == -1).all())
    assert asked.ignored.tolist() == (CELLS.centres[:, 0] < 32).tolist()


def test_an_image_without_objects_is_all_background() -> None:
    asked = _assign(Truth.empty())
    assert bool((asked.truth == -1).all()) and not asked.ignored.any()
    assert float(asked.quality.sum()) == float(asked.share.sum()) == 0


def test_an_object_that_nothing_scores_or_meets_is_learnt_all_the_same() -> None:
    asked = _assign(_truth([[10, 10, 30, 30]]), torch.zeros(COUNT, 4), torch.zeros(COUNT, 3))
    assert bool((asked.share[asked.truth == 0] == 1).all()) and bool((asked.truth == 0).any())
    assert float(asked.quality.sum()) == 0


def test_more_cells_may_be_asked_for_than_there_are() -> None:
    assert int((_assign(_truth([[0, 0, 64, 64]]), topk=10_000).truth == 0).sum()) == COUNT


def test_misshapen_truth_is_refused() -> None:
    with pytest.raises(ValueError, match="boxes"):
        Truth.of_boxes(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels"):
        Truth.of_boxes(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64))
