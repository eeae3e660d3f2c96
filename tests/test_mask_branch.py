"""Masks out of prototypes and by Mask R-CNN: targets by hand, losses at their ends, and the contract of both."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.detection.dense import Raw
from snellen.nn.detection.mask_architectures import ARCHITECTURES, create_instance_detector
from snellen.nn.detection.mask_rcnn import FOUND, MaskRCNN, spread
from snellen.nn.detection.masks import (
    MASK_STRIDE,
    NUM_PROTOTYPES,
    DenseInstanceDetector,
    Prototypes,
    mask_loss,
    mask_targets,
)
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from tiny_runs import a_plan

torch.set_num_threads(1)

SIDE = 64
PREPROCESSING = Preprocessing(
    input_size=(SIDE, SIDE), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3
)


class Tinted(MapBackbone):
    """Maps of mere means over 8, 16 and 32 pixels: a backbone for tests that are not about seeing."""

    channels = (3, 3, 3)
    reductions = (8, 16, 32)

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.gain * nn.functional.avg_pool2d(images, side) for side in self.reductions]


def _images(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)


def _truth() -> Truth:
    """A filled box, half of a box, and a crowd."""
    boxes = torch.tensor([[8.0, 8, 24, 24], [32, 32, 64, 48], [0, 48, 16, 64]])
    masks = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    masks[0, 8:24, 8:24] = masks[1, 32:48, 32:48] = masks[2, 48:, :16] = True
    return Truth(boxes, torch.tensor([0, 1, 0]), torch.tensor([False, False, True]), masks)


def _empty() -> Truth:
    return replace(Truth.empty(), masks=torch.zeros(0, SIDE, SIDE, dtype=torch.bool))


def _detector(name: str, **settings: object) -> DenseInstanceDetector | MaskRCNN:
    torch.manual_seed(0)
    if name == "dense":
        return DenseInstanceDetector(PREPROCESSING, Tinted(), 2, width=16, **settings)
    return MaskRCNN(PREPROCESSING, Tinted(), 2, **settings)  # type: ignore[arg-type]


BOTH = pytest.mark.parametrize("name", ARCHITECTURES)

# --- targets and loss


def test_targets_are_the_share_of_each_cell_that_the_object_covers() -> None:
    """Cells of 4 pixels; the second object covers columns 8 to 11, and half of nothing else."""
    covered, inside = mask_targets(_truth(), torch.tensor([1, 0, 1]), (16, 16))
    expected = torch.zeros(16, 16)
    expected[8:12, 8:12] = 1
    assert torch.equal(covered[0], expected) and torch.equal(covered[2], expected)
    assert float(covered[1].sum()) == 16.0
    assert torch.equal(inside[0].nonzero()[[0, -1]], torch.tensor([[8, 8], [11, 15]]))


def test_a_cell_that_is_half_covered_is_asked_for_a_half() -> None:
    truth = Truth.of_boxes(torch.tensor([[2.0, 0, 6, 4]]), torch.tensor([0]))
    masks = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    masks[0, :4, 2:6] = True
    covered, inside = mask_targets(replace(truth, masks=masks), torch.tensor([0]), (16, 16))
    assert covered[0, 0, :3].tolist() == [0.5, 0.5, 0.0] and float(covered.sum()) == 1.0
    assert inside[0, 0, :3].tolist() == [1.0, 1.0, 0.0]


def test_a_perfect_mask_costs_nothing_and_what_lies_beyond_its_box_is_not_asked() -> None:
    covered, inside = mask_targets(_truth(), torch.tensor([0, 1]), (16, 16))
    perfect = 80.0 * covered - 40.0
    assert mask_loss(perfect, covered, inside).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    loud_outside = torch.where(inside > 0, perfect, torch.tensor(40.0))
    assert mask_loss(loud_outside, covered, inside).tolist() == pytest.approx([0.0, 0.0], abs=1e-5)


@pytest.mark.parametrize("fault", ("inverted", "empty", "full", "shifted"))
def test_a_wrong_mask_costs(fault: str) -> None:
    covered, inside = mask_targets(_truth(), torch.tensor([1]), (16, 16))
    perfect = 80.0 * covered - 40.0
    wrong = {
        "inverted": -perfect,
        "empty": torch.full_like(perfect, -40.0),
        "full": torch.full_like(perfect, 40.0),
        "shifted": perfect.roll(2, 2),
    }[fault]
    assert float(mask_loss(wrong, covered, inside)) > 1.0


def test_masks_are_learnt_from_truths_with_masks_only() -> None:
    with pytest.raises(ValueError, match="has none"):
        mask_targets(replace(_truth(), masks=None), torch.tensor([0]), (16, 16))


# --- the contract


@BOTH
def test_answers_have_the_shapes_that_are_promised(name: str) -> None:
    detector = _detector(name).eval()
    with torch.no_grad():
        candidates, prototypes = detector(_images(3))
    kept = NUM_PROTOTYPES if name == "dense" else FOUND
    cells = SIDE // MASK_STRIDE
    assert candidates.shape[0] == 3 and candidates.shape[2] == 4 + 2 + kept
    assert prototypes.shape == (3, kept, cells, cells)
    assert candidates.dtype == prototypes.dtype == torch.float32
    scores, coefficients = candidates[..., 4:6], candidates[..., 6:]
    assert 0 <= float(scores.min()) and float(scores.max()) <= 1
    assert float(coefficients.abs().max()) <= 1


@BOTH
def test_every_term_is_finite_and_masks_have_one(name: str) -> None:
    detector = _detector(name).train()
    losses = detector.losses(_images(), [_truth(), _empty()])
    assert "mask" in losses and float(losses["mask"].detach()) > 0
    assert all(bool(term.isfinite()) for term in losses.values())
    losses["mask"].backward()
    reached = [n for n, p in detector.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0]
    mask_parts = {"dense": ("coefficients", "prototypes"), "mask-rcnn": ("mask_head", "mask_predictor")}[name]
    assert all(any(part in n for n in reached) for part in mask_parts)


@BOTH
def test_images_without_objects_cost_no_masks(name: str) -> None:
    losses = _detector(name).train().losses(_images(), [_empty(), _empty()])
    assert float(losses["mask"].detach()) == 0.0
    torch.stack(list(losses.values())).sum().backward()


@BOTH
def test_the_masks_of_crowds_are_not_learnt(name: str) -> None:
    truth = _truth()
    crowd = replace(truth, crowd=torch.ones(3, dtype=torch.bool))
    assert float(_detector(name).train().losses(_images(1), [crowd])["mask"].detach()) == 0.0


@BOTH
def test_assessing_is_losses_and_answers_in_one(name: str) -> None:
    detector, images, truths = _detector(name).eval(), _images(), [_truth(), _empty()]
    terms, (candidates, prototypes) = detector.assess(images, truths)
    with torch.no_grad():
        expected = detector(images)
    torch.testing.assert_close((candidates, prototypes), expected)
    assert "mask" in terms and not terms["mask"].requires_grad


@BOTH
def test_losses_are_float32_and_hardly_change_in_bf16(name: str) -> None:
    detector = _detector(name).eval()
    plain, _ = detector.assess(_images(), [_truth(), _empty()])
    with torch.autocast("cpu", torch.bfloat16):
        rough, outputs = detector.assess(_images(), [_truth(), _empty()])
    assert all(each.dtype == torch.float32 for each in (*rough.values(), *outputs))
    assert float(rough["mask"]) == pytest.approx(float(plain["mask"]), rel=0.05)


@BOTH
def test_masks_weigh_as_much_as_is_asked(name: str) -> None:
    detector = _detector(name, loss_weights={"mask": 0.0})
    assert float(detector.losses(_images(), [_truth(), _empty()])["mask"].detach()) == 0.0
    with pytest.raises(ConfigError, match="no loss 'maks'; did you mean 'mask'"):
        _detector(name, loss_weights={"maks": 1.0})


@BOTH
def test_the_plan_names_the_detector(name: str) -> None:
    plan = a_plan(model="small-resnet", architecture=name, loss="quality-focal+giou", loss_weights={"mask": 3.0})
    detector = create_instance_detector(replace(plan, preprocessing=PREPROCESSING), 2)
    assert isinstance(detector, DenseInstanceDetector if name == "dense" else MaskRCNN)
    assert detector.loss_weights["mask"] == 3.0
    with pytest.raises(ConfigError, match="'mask-rnn' gives no masks; did you mean 'mask-rcnn'"):
        create_instance_detector(replace(plan, architecture="mask-rnn"), 2)


@pytest.mark.filterwarnings("ignore")
def test_the_dense_detector_exports_with_its_masks() -> None:
    detector = _detector("dense").eval()
    exported = torch.export.export(detector, (_images(2),), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for count in (1, 3):
        torch.testing.assert_close(exported(_images(count)), detector(_images(count)))


# --- parts


@pytest.mark.parametrize(("stride", "cells"), ((8, 16), (4, 16), (16, 8)))
def test_prototypes_are_a_step_finer_unless_they_are_fine(stride: int, cells: int) -> None:
    net = Prototypes(4, 3, stride).eval()
    assert net(torch.zeros(1, 4, SIDE // stride, SIDE // stride)).shape == (1, 3, cells, cells)


def test_only_the_cells_with_the_best_boxes_learn_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def counting(logits: Tensor, covered: Tensor, inside: Tensor) -> Tensor:
        seen.append(len(logits))
        return logits.sum((1, 2))

    monkeypatch.setattr("snellen.nn.detection.masks.mask_loss", counting)
    monkeypatch.setattr("snellen.nn.detection.masks._MOST_LEARNT", 3)
    detector = _detector("dense")
    assert isinstance(detector, DenseInstanceDetector)
    raw: Raw = detector.raw(_images(1))
    detector.terms(raw, [_truth()])
    assert seen == [3]


def test_a_mask_is_spread_over_its_box_by_hand() -> None:
    """Two columns, -1 and 1, over a box of 8 cells: their centres lie at 2 and 6, and 0 is half-way between."""
    logits = torch.tensor([[[-1.0, 1.0], [-1.0, 1.0]]])
    row = spread(logits, torch.tensor([[4.0, 4, 12, 12]]), (16, 16))[0, 8]
    assert row[:6].tolist() == pytest.approx([-1.0] * 6) and row[10:].tolist() == pytest.approx([1.0] * 6)
    assert row[6:10].tolist() == pytest.approx([-0.75, -0.25, 0.25, 0.75])
