"""Every detector of the table keeps one contract, learns, and calls classes by their numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.catalog import SMALL_RESNET
from snellen.nn.detection import architectures, table
from snellen.nn.detection.adapter import best, of_crowd
from snellen.nn.detection.architectures import create_detector
from snellen.nn.detection.boxes import iou
from snellen.nn.detection.dense import cells
from snellen.nn.detection.loss_names import USUAL_LOSS
from snellen.nn.detection.table import ARCHITECTURES
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.folding import for_inference
from tiny_runs import a_plan

torch.set_num_threads(1)

NAMES = tuple(ARCHITECTURES)
NUM_CLASSES, SIDE = 3, 64
PREPROCESSING = Preprocessing(
    input_size=(SIDE, SIDE), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3
)
SMALLER: dict[str, dict[str, object]] = {  # than usual, for the time that tests take
    "torchvision_models": {"WIDTH": 32, "HIDDEN": 64, "PROPOSALS": 40, "SAMPLED_PROPOSALS": 32},
    "effdet_models": {"LEVELS": 3},
    "transformers_models": {"WIDTH": 32, "HIDDEN": 64, "LAYERS": 2, "HEADS": 4, "QUERIES": 30, "DENOISING": 20},
}
OBJECTS = Truth.of_boxes(torch.tensor([[34.0, 4, 60, 24], [6, 28, 30, 62]]), torch.tensor([0, 2]))
ALL_CROWD = Truth(torch.tensor([[0.0, 0, SIDE, SIDE]]), torch.tensor([1]), torch.tensor([True]))
# Queries are matched within the library, so that crowds are left out of the truth, but not of the background.
HEEDS_CROWDS = tuple(name for name in NAMES if ARCHITECTURES[name].library != "transformers")


class Plain(MapBackbone):
    """Maps of 4, 8 and 16 pixels by a convolution each: quick, and the same in training and evaluation."""

    channels = (8, 16, 24)
    reductions = (4, 8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2), nn.Conv2d(16, 24, 2, 2)])

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for conv in self.convs:
            maps.append(torch.relu(conv(maps[-1] if maps else images)))
        return maps


class Patches(MapBackbone):
    """As a plain vision transformer: all maps are of one scale."""

    channels = (8, 8)

    def __init__(self, patch: int) -> None:
        super().__init__()
        self.reductions = (patch, patch)
        self.convs = nn.ModuleList(nn.Conv2d(3, 8, patch, patch) for _ in self.reductions)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [conv(images) for conv in self.convs]


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, sizes in SMALLER.items():
        for name, size in sizes.items():
            monkeypatch.setattr(import_module(f"snellen.nn.detection.{module}"), name, size)


def _detector(name: str, backbone: Callable[[], MapBackbone] | None = None, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    plan = a_plan(
        model=SMALL_RESNET,
        architecture=name,
        loss=USUAL_LOSS,
        preprocessing=PREPROCESSING,
        norm="auto",
        activation="auto",
        **changes,
    )
    with pytest.MonkeyPatch.context() as patch:
        if backbone is not None:
            patch.setattr(architectures, "create_map_backbone", lambda *args, **settings: backbone())
        return create_detector(plan, NUM_CLASSES)


def _images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randint(
        0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )


def _scenes() -> tuple[Tensor, list[Truth]]:
    """Two images with an object each, of the first class and of the last, in a colour of its own."""
    images = _images() // 4
    images[0, 0, 4:24, 34:60] = 250
    images[1, 2, 28:62, 6:30] = 250
    return images, [Truth.of_boxes(OBJECTS.boxes[i, None], OBJECTS.labels[i, None]) for i in range(2)]


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _step(detector: Any, optimizer: torch.optim.Optimizer, images: Tensor, truths: Sequence[Truth]) -> float:
    total = _total(detector.losses(images, truths))
    optimizer.zero_grad()
    total.backward()
    nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
    optimizer.step()
    return float(total.detach())


# --- the table


def test_the_table_is_read_without_torch() -> None:
    said = "import sys, snellen.nn.detection.table; assert not {'torch', 'timm', 'effdet'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="architecture = 'retinanett' is not known; did you mean 'retinanet'"):
        _detector("retinanett")


@pytest.mark.parametrize(("name", "extra"), (("d-fine", "hf"), ("rt-detr", "hf"), ("efficientdet", "effdet")))
def test_a_missing_library_is_told_with_its_extra(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda library: None)
    with pytest.raises(ConfigError, match=rf"pip install 'snellen\[{extra}\]', or use 'dense'"):
        _detector(name)
    for other in ("dense", "ssd"):
        assert table.check(other).extra == ""


def test_a_loss_of_the_dense_head_is_not_silently_left_out() -> None:
    plan = a_plan(model=SMALL_RESNET, architecture="fcos", loss="focal", preprocessing=PREPROCESSING)
    with pytest.raises(ConfigError, match="'fcos' brings its own"):
        create_detector(plan, NUM_CLASSES)


# --- the contract


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_boxes_and_a_score_for_each_class(name: str) -> None:
    detector = _detector(name, Plain).eval()
    assert {part for part, _ in detector.named_children()} == {"normalize", "backbone", "head"}
    assert isinstance(detector.backbone, MapBackbone) and detector.needs_nms == ARCHITECTURES[name].needs_nms
    with torch.no_grad():
        one, three = detector(_images(1)), detector(_images(3))
        torch.testing.assert_close(detector(_images(3).float()), three)
    assert one.shape == three[:1].shape and one.shape[2] == 4 + NUM_CLASSES and one.dtype == torch.float32
    assert bool(three.isfinite().all()) and 0 <= float(three[..., 4:].min()) and float(three[..., 4:].max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_losses_have_names_and_are_finite_whatever_is_in_the_images(name: str) -> None:
    detector = _detector(name, Plain)
    crowded = Truth(torch.cat([OBJECTS.boxes, ALL_CROWD.boxes]), torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]) > 0)
    tiny = Truth.of_boxes(torch.tensor([[20.2, 20.2, 20.9, 21.0], [0, 0, 64, 64]]), torch.tensor([1, 1]))
    for truths in ([OBJECTS, Truth.empty()], [Truth.empty()] * 2, [ALL_CROWD] * 2, [crowded, ALL_CROWD], [tiny] * 2):
        losses = detector.losses(_images(), truths)
        assert set(losses) == (set(detector.LOSS_WEIGHTS) if name != "dense" else {"class", "box"})
        assert all(term.shape == () and term.dtype == torch.float32 for term in losses.values())
        total = _total(losses)
        detector.zero_grad()
        total.backward()
        assert bool(total.isfinite()), (losses, truths)
        grads = [p.grad for p in detector.parameters() if p.grad is not None]
        assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("name", NAMES)
def test_images_without_objects_teach_background(name: str) -> None:
    """SSD as published learns nothing from them: three negatives for each of no objects."""
    detector = _detector(name, Plain)
    _total(detector.losses(_images(), [Truth.empty()] * 2)).backward()
    assert sum(float(p.grad.abs().sum()) for p in detector.head.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_learnt(name: str) -> None:
    """At the second step: some layers begin as zero, so that at the first others have no slope."""
    detector = _detector(name, Plain)
    optimizer = torch.optim.SGD(detector.parameters(), 0.01)
    large = Truth.of_boxes(torch.tensor([[0.0, 0, 64, 64], [2, 2, 10, 9], [0, 0, 38, 38]]), torch.tensor([0, 1, 1]))
    images = _scenes()[0]
    for _ in range(2):
        _step(detector, optimizer, images, [OBJECTS, large])
    unlearnt = [
        key
        for key, p in detector.named_parameters()
        if p.requires_grad and (p.grad is None or not bool(p.grad.abs().sum() > 0))
    ]
    assert unlearnt == []


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_calls_classes_by_their_own_numbers(name: str) -> None:
    """Class 0 is found as class 0 and the last as the last, where they are: background shifts none of them."""
    detector, (images, truths) = _detector(name, Plain), _scenes()
    steps, rate = (60, 1e-2) if ARCHITECTURES[name].library == "transformers" else (50, 3e-3)
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.0)
    told = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 5, 1.0, 2 * (1 - step / steps))
        told.append(_step(detector, optimizer, images, truths))
    assert told[-1] < 0.6 * told[0], told[::10]
    with torch.no_grad():
        candidates = detector.eval()(images)
    for found, truth in zip(candidates, truths, strict=True):
        first = int(found[:, 4:].amax(1).argmax())
        assert int(found[first, 4:].argmax()) == int(truth.labels)
        assert float(iou(found[first, :4], truth.boxes[0])) > 0.5


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_a_batch_do_not_depend_on_its_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where regions are sampled, as long as there are enough."""
    for sampled in ("SAMPLED_ANCHORS", "SAMPLED_PROPOSALS"):
        monkeypatch.setattr(import_module("snellen.nn.detection.torchvision_models"), sampled, 5000)
    detector = _detector(name, Plain).eval()
    images, truths = _scenes()
    images, truths = torch.cat([images, _images(1)]), [*truths, Truth.empty()]
    one = detector.assess(images, truths)[0]
    other = detector.assess(images.flip(0), truths[::-1])[0]
    for term, value in one.items():
        torch.testing.assert_close(other[term], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_assessing_is_losses_and_answers_without_draws_or_slopes(name: str) -> None:
    detector, (images, truths) = _detector(name).eval(), _scenes()
    modes = [module.training for module in detector.modules()]
    state, kept = torch.get_rng_state(), {key: value.clone() for key, value in detector.state_dict().items()}
    terms, candidates = detector.assess(images, truths)
    again, _ = detector.assess(images, truths)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, kept[key]) for key, value in detector.state_dict().items())
    assert modes == [module.training for module in detector.modules()]
    with torch.no_grad():
        torch.testing.assert_close(candidates, detector(images))
    for term, value in terms.items():
        assert not value.requires_grad and torch.equal(value, again[term])


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_read_again_and_twins_answer_alike(name: str) -> None:
    one, other = _detector(name, Plain, seed=0).eval(), _detector(name, Plain, seed=1).eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(_images()), other(_images()))
        torch.testing.assert_close(for_inference(one)(_images()), one(_images()))


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_weighted_as_asked_and_unknown_ones_refused(name: str) -> None:
    usual, other = (_detector(name, Plain, loss_weights=asked).eval() for asked in ({}, {"class": 3.0}))
    was = usual.loss_weights["class"]
    one, two = (each.assess(*_scenes())[0] for each in (usual, other))
    assert float(two["class"]) == pytest.approx(3 / was * float(one["class"]), rel=1e-4)
    assert float(two["box"]) == pytest.approx(float(one["box"]), rel=1e-4)
    with pytest.raises(ConfigError, match="no loss 'boxes'; did you mean 'box'"):
        _detector(name, Plain, loss_weights={"boxes": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_losses_hardly_change_in_bf16(name: str) -> None:
    detector, (images, truths) = _detector(name, Plain).eval(), _scenes()
    plain = detector.assess(images, truths)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough, candidates = detector.assess(images, truths)
    assert candidates.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in rough.values())
    assert float(_total(rough)) == pytest.approx(float(_total(plain)), rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(name: str) -> None:
    with pytest.raises(ConfigError, match="multiples of 16, not 60 x 70 pixels: use 64 x 64"):
        _detector(name, Plain)(torch.zeros(1, 3, 70, 60))


# --- backbones


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_one_scale_become_a_pyramid(name: str) -> None:
    detector = _detector(name, lambda: Patches(16))
    assert bool(_total(detector.losses(*_scenes())).isfinite())
    assert detector.eval()(_images(1)).shape[2] == 4 + NUM_CLASSES


@pytest.mark.parametrize("name", NAMES)
def test_a_misfit_is_told_with_what_fits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patches of 14 pixels: two libraries take levels to be powers of two apart from the image."""
    monkeypatch.setattr(sys.modules[__name__], "PREPROCESSING", _sized(56))
    if name in ("faster-rcnn", "efficientdet"):
        with pytest.raises(ConfigError, match=r"not by 7, 14, 28.*: use architecture = 'dense'.*model = 'resnet18'"):
            _detector(name, lambda: Patches(14))
    else:
        images = _images(1)[..., :56, :56]
        truth = Truth.of_boxes(torch.tensor([[10.0, 10, 40, 50]]), torch.tensor([0]))
        assert bool(_total(_detector(name, lambda: Patches(14)).losses(images, [truth])).isfinite())


def _sized(side: int) -> Preprocessing:
    return Preprocessing(input_size=(side, side), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)


# --- crowds


def test_what_is_of_a_crowd_is_within_it_and_apart_from_objects() -> None:
    truth = Truth(torch.tensor([[0.0, 0, 32, 64], [10, 10, 20, 20]]), torch.tensor([0, 1]), torch.tensor([True, False]))
    boxes = torch.tensor([[2.0, 30, 8, 40], [28, 30, 34, 40], [24, 30, 42, 40], [12, 12, 30, 40], [40, 2, 50, 9]])
    assert of_crowd(boxes, truth).tolist() == [True, True, False, False, False]
    assert not of_crowd(boxes, Truth.empty()).any()


@pytest.mark.parametrize("name", HEEDS_CROWDS)
def test_what_is_said_within_a_crowd_hardly_costs(name: str) -> None:
    """Where all is crowd, at most one place an image is still asked."""
    detector = _detector(name, Plain).eval()
    empty, crowd = (detector.assess(_images(), [truth] * 2)[0] for truth in (Truth.empty(), ALL_CROWD))
    if name != "faster-rcnn":
        assert float(empty["class"]) > 0.001 and float(crowd["class"]) == pytest.approx(0, abs=1e-6)


def test_anchors_of_a_crowd_are_neither_object_nor_background() -> None:
    head = _detector("faster-rcnn", Plain).head
    crowd = Truth(torch.tensor([[0.0, 0, 32, 64]]), torch.tensor([0]), torch.tensor([True]))
    anchors = torch.tensor([[2.0, 2, 12, 12], [40, 2, 50, 12], [4, 30, 20, 50]])
    target = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "truth": crowd}
    assert head.rpn.assign_targets_to_anchors([anchors], [target])[0][0].tolist() == [-1, 0, -1]
    sampled = head.roi_heads.select_training_samples([anchors], [target])[0][0]
    assert sampled.tolist() == anchors[1:2].tolist()
    covered = {**target, "truth": ALL_CROWD}
    assert head.rpn.assign_targets_to_anchors([anchors], [covered])[0][0].tolist() == [0, -1, -1]


# --- geometry


def test_anchors_are_round_the_centres_of_cells() -> None:
    from snellen.nn.detection.torchvision_models import CellAnchors, ImageList

    levels = [torch.zeros(1, 1, 4, 8), torch.zeros(1, 1, 2, 4)]
    told = ImageList(torch.zeros(1, 3, 32, 64), [(32, 64)])
    (boxes,) = CellAnchors(((32,), (64,)), ((1.0,), (1.0,)))(told, levels)
    torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, cells(levels, (8, 16)).centres)


@pytest.mark.parametrize("name", ("retinanet", "fcos", "ssd"))
def test_outputs_of_nothing_are_the_anchors_themselves(name: str) -> None:
    detector = _detector(name, Plain).eval()
    raw = detector.raw(_images(1))
    still = torch.zeros_like(raw.outputs["bbox_regression"])
    if name == "fcos":  # distances from the centre, in sides of the cell
        still += 0.5
    torch.testing.assert_close(detector.boxes(still, raw.anchors)[0], raw.anchors, rtol=0, atol=1e-3)


def test_efficientdets_anchors_have_x_first() -> None:
    detector = _detector("efficientdet", Plain).eval()
    raw = detector.raw(_images(1))
    for said in raw.boxes:
        said.zero_()
    for said in raw.scores:  # all the same, so that the first candidates are the first anchors
        said.zero_()
    with torch.no_grad():
        found = detector.candidates(raw)[0, :, :4]
    known = {tuple(round(x, 2) for x in box) for box in detector.anchors.tolist()}
    assert all(tuple(round(x, 2) for x in box) in known for box in found.tolist())
    wide = detector.anchors[1]  # (1.4, 0.7): the second shape
    assert float((wide[2] - wide[0]) / (wide[3] - wide[1])) == pytest.approx(2.0, rel=1e-3)


def test_the_best_candidates_are_kept_in_order() -> None:
    boxes, scores = torch.arange(12.0).view(1, 3, 4), torch.tensor([[[0.1, 0.2], [0.9, 0.0], [0.0, 0.5]]])
    found = best(boxes, scores, 2)
    assert found[0, :, 4:].tolist() == scores[0, [1, 2]].tolist() and found[0, :, :4].tolist() == boxes[0, 1:].tolist()


def test_regions_are_told_once_for_each_class_and_filled_up() -> None:
    detector = _detector("faster-rcnn", Plain).eval()
    with torch.no_grad():
        found = detector(_images(1))[0]
    assert bool(((found[:, 4:] > 0).sum(1) <= 1).all())
    filled = found[:, 4:].amax(1) > 0
    assert 0 < int(filled.sum()) <= NUM_CLASSES * 40 and not found[~filled].any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ("ssd", "efficientdet"))
def test_one_stage_detectors_export_for_any_batch(name: str) -> None:
    detector = _detector(name, Plain).eval()
    exported = torch.export.export(detector, (_images(2),), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for count in (1, 3):
        torch.testing.assert_close(exported(_images(count)), detector(_images(count)))
