"""RT-DETR, D-FINE and RF-DETR as they are published: read, built again, filled, trained, refused when they misfit."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import snellen
from scenes import save_coco
from shapes import SHAPES
from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.nn.detection.architectures import create_detector, load_detector
from snellen.nn.detection.table import ARCHITECTURES
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.freeze import freeze_stages
from snellen.nn.published import check_model
from snellen.nn.stages import num_stages, parameter_stages
from tiny_detectors import total_of
from tiny_published import (
    KINDS,
    SIDE,
    a_detector,
    as_transformers_has_it,
    copied,
    noise,
    plan_of,
    publish,
    standardised,
)
from tiny_runs import FIXED

torch.set_num_threads(1)

OBJECTS = [Truth.of_boxes(torch.tensor([[4.0, 2, 20, 14], [12, 16, 30, 28]]), torch.tensor([0, 2])), Truth.empty()]
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
THREE_KINDS = pytest.mark.parametrize("kind", KINDS[:3])  # the second RT-DETR differs from the first in what it samples


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A published detector of each kind that knows the shapes. Tests read them; who changes one copies it first."""
    return {kind: publish(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(models: dict[str, str]) -> dict[str, Any]:
    """Ours of each kind with all its weights. Who changes one copies it first."""
    return {kind: a_detector(model) for kind, model in models.items()}


@pytest.fixture(scope="module")
def theirs(models: dict[str, str]) -> dict[str, Any]:
    """The same as transformers has them."""
    return {kind: as_transformers_has_it(kind, model) for kind, model in models.items()}


# --- the network


@EVERY_KIND
def test_untouched_it_answers_as_transformers_has_it(kind: str, loaded: dict[str, Any], theirs: dict[str, Any]) -> None:
    detector = loaded[kind]
    assert {part for part, _ in detector.named_children()} == {"normalize", "backbone", "head"}
    assert isinstance(detector.backbone, MapBackbone) and not detector.needs_nms
    with torch.no_grad():
        found, said = detector(noise()), theirs[kind](standardised(noise()))
    middle, sides = torch.split(said.pred_boxes, 2, 2)
    torch.testing.assert_close(found[..., :4], SIDE * torch.cat([middle - sides / 2, middle + sides / 2], 2))
    torch.testing.assert_close(found[..., 4:], said.logits.sigmoid())
    assert float(found[..., 4:].std()) > 0.02


@EVERY_KIND
def test_validation_tells_the_loss_of_transformers(
    kind: str, loaded: dict[str, Any], theirs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of RF-DETR the group that answers; transformers would share out its queries among groups that are not there."""
    detector, own = loaded[kind], theirs[kind]
    monkeypatch.setattr(own.config, "group_detr", 1, raising=False)
    box = OBJECTS[0].boxes / SIDE
    centred = torch.cat([(box[:, :2] + box[:, 2:]) / 2, box[:, 2:] - box[:, :2]], 1)
    labels = [
        {"boxes": centred, "class_labels": OBJECTS[0].labels},
        {"boxes": box[:0], "class_labels": box[:0, 0].long()},
    ]
    with torch.no_grad():
        said = own(standardised(noise()), labels=labels)
    terms, found = detector.assess(noise(), OBJECTS)
    assert float(total_of(terms)) == pytest.approx(float(said.loss), rel=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(found, detector(noise()))


@THREE_KINDS
def test_classes_of_the_same_name_keep_their_weights(kind: str, models: dict[str, str], theirs: dict[str, Any]) -> None:
    classes = (SHAPES[2], "no shape", SHAPES[0], "another")
    published = theirs[kind].state_dict()
    plan, fresh = plan_of(models[kind]), a_detector(models[kind], classes, load=False)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    provenance = load_detector(fresh, plan, classes)
    assert provenance.source.endswith("which knows 2 of the 4 classes")
    rows = [
        name
        for name, tensor in fresh.state_dict().items()
        if name.startswith("head.") and published[name.removeprefix("head.detr.")].shape != tensor.shape
    ]
    assert len(rows) >= 5
    for name in rows:
        mine, given = fresh.state_dict()[name], published[name.removeprefix("head.detr.")]
        assert torch.equal(mine[0], given[2]) and torch.equal(mine[2], given[0])
        assert torch.equal(mine[1], before[name][1]) and torch.equal(mine[3], before[name][3])
        assert len(mine) == 4 or torch.equal(mine[4], given[3])  # the denoising's row for no class


def test_as_many_classes_in_another_order_are_not_mistaken_for_each_other(
    models: dict[str, str], loaded: dict[str, Any]
) -> None:
    usual, turned = loaded["rf_detr"], a_detector(models["rf_detr"], SHAPES[::-1])
    with torch.no_grad():
        torch.testing.assert_close(usual(noise())[..., 4:].flip(-1), turned(noise())[..., 4:])


@THREE_KINDS
def test_it_learns(kind: str, loaded: dict[str, Any]) -> None:
    detector = copy.deepcopy(loaded[kind])
    before = float(total_of(detector.assess(noise(), OBJECTS)[0]))
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3, weight_decay=0.0)
    for _ in range(6):
        terms = detector.train().losses(noise(), OBJECTS)
        assert set(terms) == set(detector.LOSS_WEIGHTS)
        optimizer.zero_grad()
        total_of(terms).backward()
        optimizer.step()
    assert float(total_of(detector.eval().assess(noise(), OBJECTS)[0])) < 0.9 * before
    assert bool(detector.train()(noise()).shape == detector.eval()(noise()).shape)


@THREE_KINDS
def test_terms_are_weighted_as_asked(kind: str, models: dict[str, str], loaded: dict[str, Any]) -> None:
    usual, heavy = loaded[kind], a_detector(models[kind], load=False, loss_weights={"class": 3.0, "box": 0.0})
    heavy.load_state_dict(usual.state_dict())
    one, other = (each.assess(noise(), OBJECTS)[0] for each in (usual, heavy))
    assert float(other["class"]) == pytest.approx(3 * float(one["class"]), rel=1e-4)
    assert float(other["box"]) == 0 and float(other["giou"]) == pytest.approx(float(one["giou"]), rel=1e-4)


@THREE_KINDS
def test_losses_hardly_change_in_bf16(kind: str, loaded: dict[str, Any]) -> None:
    plain = loaded[kind].assess(noise(), OBJECTS)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough, found = loaded[kind].assess(noise(), OBJECTS)
    assert found.dtype == torch.float32 and all(term.dtype == torch.float32 for term in rough.values())
    assert float(total_of(rough)) == pytest.approx(float(total_of(plain)), rel=0.1)


@THREE_KINDS
def test_images_without_objects_have_a_loss(kind: str, loaded: dict[str, Any]) -> None:
    terms = copy.deepcopy(loaded[kind]).train().losses(noise(), [Truth.empty()] * 2)
    assert bool(total_of(terms).isfinite()) and float(terms["class"].detach()) > 0


@THREE_KINDS
def test_frozen_stages_stay_as_they_are(kind: str, loaded: dict[str, Any]) -> None:
    detector = copy.deepcopy(loaded[kind])
    assert num_stages(detector.backbone) == 5  # the stem or the embeddings, and four stages or layers
    stages = parameter_stages(detector.backbone)
    freeze_stages(detector.backbone, 2)
    before = {name: parameter.clone() for name, parameter in detector.backbone.named_parameters()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], 0.01)
    total_of(detector.train().losses(noise(), OBJECTS)).backward()
    optimizer.step()
    moved = {stages[name] for name, p in detector.backbone.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {2, 3, 4}


@THREE_KINDS
def test_the_network_is_built_again_from_the_plan_alone(
    kind: str, models: dict[str, str], loaded: dict[str, Any], tmp_path: Path
) -> None:
    model, first = copied(models[kind], tmp_path / "gone"), loaded[kind]
    plan = plan_of(model)
    shutil.rmtree(tmp_path / "gone")
    again = create_detector(plan, len(SHAPES)).eval()
    again.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first(noise()), again(noise()))


@THREE_KINDS
def test_without_pretraining_it_starts_from_scratch(kind: str, models: dict[str, str], tmp_path: Path) -> None:
    """From config.json alone; batch norms then learn as well, and none begins near zero."""
    model = copied(models[kind], tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    plan = plan_of(model, pretrained=False)
    detector = create_detector(plan, 2)
    assert load_detector(detector, plan, ("a", "b")).source.startswith("none")
    norms = [each for each in detector.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    assert all(bool((each.weight == 1).all()) for each in norms)
    assert any(each in set(detector.backbone.modules()) for each in norms) == (kind != "rf_detr")
    check_model(Config.of(data="x", model=model, pretrained=False), "detection", tuple(ARCHITECTURES))


# --- shapes that fit


@pytest.mark.parametrize("windows", (1, 2))
def test_windows_fit_together_again_in_squares_alone(windows: int, theirs: dict[str, Any]) -> None:
    """Why other shapes are refused: should transformers mend it, this fails, and the check can go."""
    body = copy.deepcopy(theirs["rf_detr"].model.backbone.backbone)
    body.config.num_windows = windows

    def returned(height: int, width: int) -> bool:
        tokens = torch.arange(1.0, 1 + height * width // 64)[None, :, None].expand(-1, -1, 16)
        cut = body.embeddings.window_partition(torch.cat([tokens[:, :1], tokens], 1), height, width)
        return torch.equal(body.window_unpartition(cut[:, 1:], height, width).reshape(tokens.shape), tokens)

    assert returned(32, 32) and returned(32, 64) == (windows == 1)


def test_shapes_that_would_be_scrambled_are_refused(loaded: dict[str, Any]) -> None:
    detector = loaded["rf_detr"]
    with pytest.raises(ConfigError, match="takes square images, not 48 x 32 pixels: use 48 x 48"):
        detector(torch.zeros(1, 3, 32, 48))
    with pytest.raises(ConfigError, match="multiples of 16, not 40 x 40 pixels: use 32 x 32"):
        detector(torch.zeros(1, 3, 40, 40))
    assert loaded["d_fine"](torch.zeros(1, 3, 32, 64)).shape == (1, 8, 7)


# --- from data to answers


def test_a_run_begins_with_it_and_answers_without_it(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snellen.api.training._write_report", lambda *run: None)  # for the time that pictures take
    model = copied(models["rf_detr"], tmp_path / "tiny")
    data = save_coco(tmp_path / "data", num=16, side=SIDE)
    settings: dict[str, Any] = {**FIXED, "epochs": 1, "batch_size": 8, "cache": str(tmp_path / "cache")}
    snellen.train(str(data), out=str(tmp_path / "run"), model=model, **settings)
    chosen = json.loads((tmp_path / "run" / "plan.json").read_text())["choices"]
    assert (chosen["architecture"], chosen["preprocessing"]["fit"], chosen["lr"]) == ("rf-detr", "squash", 1e-4)
    assert chosen["weights_source"] == "the folder tiny, which knows 3 of the 3 classes"
    shutil.rmtree(tmp_path / "tiny")
    (found,) = snellen.predict(str(tmp_path / "run"), str(tmp_path / "data" / "images" / "000.png"))
    assert found.error is None and found.result is not None and found.result["size"] == [SIDE, SIDE]
