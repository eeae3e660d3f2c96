"""Every detector of the table keeps one contract, learns, and calls classes by their numbers."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import torch

from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.nn.catalog import SMALL_RESNET
from snellen.nn.detection import table
from snellen.nn.detection.architectures import create_detector
from snellen.nn.detection.boxes import iou
from snellen.nn.detection.table import ARCHITECTURES
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.folding import for_inference
from tiny_detectors import (
    ALL_CROWD,
    NAMES,
    NUM_CLASSES,
    OBJECTS,
    PREPROCESSING,
    Patches,
    Plain,
    a_detector,
    make_smaller,
    noise,
    one_step,
    scenes,
    total_of,
)
from tiny_runs import a_plan

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    make_smaller(monkeypatch)


# --- the table


def test_the_table_is_read_without_torch() -> None:
    said = "import sys, snellen.nn.detection.table; assert not {'torch', 'timm', 'effdet'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="architecture = 'retinanett' is not known; did you mean 'retinanet'"):
        a_detector("retinanett")


@pytest.mark.parametrize(("name", "extra"), (("d-fine", "hf"), ("rt-detr", "hf"), ("efficientdet", "effdet")))
def test_a_missing_library_is_told_with_its_extra(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda library: None)
    with pytest.raises(ConfigError, match=rf"pip install 'snellen\[{extra}\]', or use 'dense'"):
        a_detector(name)
    for other in ("dense", "ssd"):
        assert table.check(other).extra == ""


def test_a_loss_of_the_dense_head_is_not_silently_left_out() -> None:
    plan = a_plan(model=SMALL_RESNET, architecture="fcos", loss="focal", preprocessing=PREPROCESSING)
    with pytest.raises(ConfigError, match="'fcos' brings its own"):
        create_detector(plan, NUM_CLASSES)


# --- the contract


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_boxes_and_a_score_for_each_class(name: str) -> None:
    detector = a_detector(name, Plain).eval()
    assert {part for part, _ in detector.named_children()} == {"normalize", "backbone", "head"}
    assert isinstance(detector.backbone, MapBackbone) and detector.needs_nms == ARCHITECTURES[name].needs_nms
    with torch.no_grad():
        one, three = detector(noise(1)), detector(noise(3))
        torch.testing.assert_close(detector(noise(3).float()), three)
    assert one.shape == three[:1].shape and one.shape[2] == 4 + NUM_CLASSES and one.dtype == torch.float32
    assert bool(three.isfinite().all()) and 0 <= float(three[..., 4:].min()) and float(three[..., 4:].max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_losses_have_names_and_are_finite_whatever_is_in_the_images(name: str) -> None:
    detector = a_detector(name, Plain)
    crowded = Truth(torch.cat([OBJECTS.boxes, ALL_CROWD.boxes]), torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]) > 0)
    tiny = Truth.of_boxes(torch.tensor([[20.2, 20.2, 20.9, 21.0], [0, 0, 64, 64]]), torch.tensor([1, 1]))
    for truths in ([OBJECTS, Truth.empty()], [Truth.empty()] * 2, [ALL_CROWD] * 2, [crowded, ALL_CROWD], [tiny] * 2):
        losses = detector.losses(noise(), truths)
        assert set(losses) == (set(detector.LOSS_WEIGHTS) if name != "dense" else {"class", "box"})
        assert all(term.shape == () and term.dtype == torch.float32 for term in losses.values())
        total = total_of(losses)
        detector.zero_grad()
        total.backward()
        assert bool(total.isfinite()), (losses, truths)
        grads = [p.grad for p in detector.parameters() if p.grad is not None]
        assert all(bool(grad.isfinite().all()) for grad in grads)


@pytest.mark.parametrize("name", NAMES)
def test_images_without_objects_teach_background(name: str) -> None:
    """SSD as published learns nothing from them: three negatives for each of no objects."""
    detector = a_detector(name, Plain)
    total_of(detector.losses(noise(), [Truth.empty()] * 2)).backward()
    assert sum(float(p.grad.abs().sum()) for p in detector.head.parameters() if p.grad is not None) > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_learnt(name: str) -> None:
    """At the second step: some layers begin as zero, so that at the first others have no slope."""
    detector = a_detector(name, Plain)
    optimizer = torch.optim.SGD(detector.parameters(), 0.01)
    large = Truth.of_boxes(torch.tensor([[0.0, 0, 64, 64], [2, 2, 10, 9], [0, 0, 38, 38]]), torch.tensor([0, 1, 1]))
    images = scenes()[0]
    for _ in range(2):
        one_step(detector, optimizer, images, [OBJECTS, large])
    unlearnt = [
        key
        for key, p in detector.named_parameters()
        if p.requires_grad and (p.grad is None or not bool(p.grad.abs().sum() > 0))
    ]
    assert unlearnt == []


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_calls_classes_by_their_own_numbers(name: str) -> None:
    """Class 0 is found as class 0 and the last as the last, where they are: background shifts none of them."""
    detector, (images, truths) = a_detector(name, Plain), scenes()
    steps, rate = (36, 1.5e-2) if ARCHITECTURES[name].library == "transformers" else (50, 3e-3)
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.0)
    told = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min((step + 1) / 5, 1.0, 2 * (1 - step / steps))
        told.append(one_step(detector, optimizer, images, truths))
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
    detector = a_detector(name, Plain).eval()
    images, truths = scenes()
    images, truths = torch.cat([images, noise(1)]), [*truths, Truth.empty()]
    one = detector.assess(images, truths)[0]
    other = detector.assess(images.flip(0), truths[::-1])[0]
    for term, value in one.items():
        torch.testing.assert_close(other[term], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_assessing_is_losses_and_answers_without_draws_or_slopes(name: str) -> None:
    detector, (images, truths) = a_detector(name).eval(), scenes()
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
    one, other = a_detector(name, Plain, seed=0).eval(), a_detector(name, Plain, seed=1).eval()
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(noise()), other(noise()))
        torch.testing.assert_close(for_inference(one)(noise()), one(noise()))


@pytest.mark.parametrize("name", NAMES)
def test_terms_are_weighted_as_asked_and_unknown_ones_refused(name: str) -> None:
    usual, other = (a_detector(name, Plain, loss_weights=asked).eval() for asked in ({}, {"class": 3.0}))
    was = usual.loss_weights["class"]
    one, two = (each.assess(*scenes())[0] for each in (usual, other))
    assert float(two["class"]) == pytest.approx(3 / was * float(one["class"]), rel=1e-4)
    assert float(two["box"]) == pytest.approx(float(one["box"]), rel=1e-4)
    with pytest.raises(ConfigError, match="no loss 'boxes'; did you mean 'box'"):
        a_detector(name, Plain, loss_weights={"boxes": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_losses_hardly_change_in_bf16(name: str) -> None:
    detector, (images, truths) = a_detector(name, Plain).eval(), scenes()
    plain = detector.assess(images, truths)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough, candidates = detector.assess(images, truths)
    assert candidates.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in rough.values())
    assert float(total_of(rough)) == pytest.approx(float(total_of(plain)), rel=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_does_not_fit_is_refused_with_one_that_does(name: str) -> None:
    with pytest.raises(ConfigError, match="multiples of 16, not 60 x 70 pixels: use 64 x 64"):
        a_detector(name, Plain)(torch.zeros(1, 3, 70, 60))


# --- backbones


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_one_scale_become_a_pyramid(name: str) -> None:
    detector = a_detector(name, lambda: Patches(16))
    assert bool(total_of(detector.losses(*scenes())).isfinite())
    assert detector.eval()(noise(1)).shape[2] == 4 + NUM_CLASSES


@pytest.mark.parametrize("name", NAMES)
def test_a_misfit_is_told_with_what_fits(name: str) -> None:
    """Patches of 14 pixels: two libraries take levels to be powers of two apart from the image."""
    told = Preprocessing(input_size=(56, 56), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    if name in ("faster-rcnn", "efficientdet"):
        with pytest.raises(ConfigError, match=r"not by 7, 14, 28.*: use architecture = 'dense'.*model = 'resnet18'"):
            a_detector(name, lambda: Patches(14), preprocessing=told)
    else:
        detector = a_detector(name, lambda: Patches(14), preprocessing=told)
        truth = Truth.of_boxes(torch.tensor([[10.0, 10, 40, 50]]), torch.tensor([0]))
        assert bool(total_of(detector.losses(noise(1)[..., :56, :56], [truth])).isfinite())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ("ssd", "efficientdet"))
def test_one_stage_detectors_export_for_any_batch(name: str) -> None:
    detector = a_detector(name, Plain).eval()
    exported = torch.export.export(detector, (noise(2),), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    for count in (1, 3):
        torch.testing.assert_close(exported(noise(count)), detector(noise(count)))
