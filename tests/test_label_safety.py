"""Flips and turns that would change what an image shows are found, told and switched off; healthy data stay silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from snellen.core.plan import Plan
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.data.augment import Augmentation
from snellen.data.image_sets import ImageSet
from snellen.train.label_safety import Danger, heed, label_dangers
from tiny_runs import a_plan

Pixels = npt.NDArray[np.uint8]
SIDE = 24
TURNS = {"right": 0, "down": 90, "left": 180, "up": 270}


def arrow(kind: str, rng: np.random.Generator) -> Pixels:
    """Somewhere near the middle, in any colours, pointing about where it should."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in rng.integers(0, 90, 3)))
    outline = np.array([(-8, -2), (1, -2), (1, -6), (8, 0), (1, 6), (1, 2), (-8, 2)], float)
    angle = np.radians(TURNS[kind] + rng.uniform(-12, 12))
    turned = outline @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    placed = turned + SIDE / 2 + rng.uniform(-2, 2, 2)
    ImageDraw.Draw(image).polygon([tuple(point) for point in placed], fill=tuple(rng.integers(140, 256, 3).tolist()))
    return np.asarray(image)


def blob(kind: str, rng: np.random.Generator) -> Pixels:
    """A disc or a ring: they look the same from every side."""
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in rng.integers(0, 90, 3)))
    x, y = SIDE / 2 + rng.uniform(-2, 2, 2)
    colour = tuple(rng.integers(140, 256, 3).tolist())
    ImageDraw.Draw(image).ellipse((x - 7, y - 7, x + 7, y + 7), outline=colour, width=3 if kind == "ring" else 9)
    return np.asarray(image)


class Eyes(nn.Module):
    """Random edges and corners, and where they are: like a trained network's last map, it knows left from right."""

    output_fmt = "NCHW"

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.edges = nn.Conv2d(1, 32, 5, stride=2, padding=2)
        self.pool = nn.AvgPool2d(4)

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(1, keepdim=True)
        seen: Tensor = self.pool(self.edges(grey - grey.mean((2, 3), keepdim=True)).abs())
        return seen.mean((2, 3))


class Pretrained(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Eyes()

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images.float() / 255)
        return features


def images_of(draw: Any, kinds: list[str], num: int, seed: int = 0) -> tuple[ImageSet, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    classes = np.arange(num) % len(kinds)
    pixels = {f"{i}": draw(kinds[kind], rng) for i, kind in enumerate(classes)}
    records = [Record(id=name, path=Path(name), group=f"g{int(name) // 2}") for name in pixels]
    store = SimpleNamespace(prepared=lambda record: pixels[record.id])
    return ImageSet(records=records, targets=classes.tolist(), store=store), classes  # type: ignore[arg-type]


def planned(tiny: bool, **augmentation: Any) -> Plan:
    return a_plan(
        augmentation={**augmentation},
        vary_by_batch=tiny,
        pretrained=not tiny,
        epochs=2,
        preprocessing=Preprocessing(
            input_size=(SIDE, SIDE), fit="squash", crop_fraction=1.0, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
    )


def dangers(draw: Any, kinds: list[str], tiny: bool, **augmentation: Any) -> dict[str, str]:
    train, classes = images_of(draw, kinds, 240)
    found = label_dangers(Pretrained(), train, classes, kinds, planned(tiny, **augmentation))
    return {danger.choice: danger.sentence for danger in found}


EVERYTHING = {"hflip": 0.5, "vflip": 0.5, "rotate90": 0.5}


@pytest.mark.parametrize("tiny", [True, False])
def test_a_flip_that_turns_left_into_right_is_found(tiny: bool) -> None:
    found = dangers(arrow, ["left", "right"], tiny, hflip=0.5, vflip=0.5)
    assert set(found) == {"hflip"}  # upside down, an arrow to the left still points to the left
    assert found["hflip"].startswith("mirrored, ") and "look like" in found["hflip"]


@pytest.mark.parametrize("tiny", [True, False])
def test_turns_that_make_one_class_another_are_found(tiny: bool) -> None:
    assert set(dangers(arrow, ["left", "right", "up", "down"], tiny, **EVERYTHING)) == {"hflip", "vflip", "rotate90"}
    assert set(dangers(arrow, ["right", "down"], tiny, rotate_degrees=90)) == {"rotate_degrees"}
    assert set(dangers(arrow, ["left", "right"], tiny, rotate_degrees=180)) == {"rotate_degrees"}


@pytest.mark.parametrize("tiny", [True, False])
def test_images_without_a_direction_and_choices_without_one_stay_silent(tiny: bool) -> None:
    assert dangers(blob, ["disc", "ring"], tiny, **EVERYTHING, rotate_degrees=180) == {}
    assert dangers(arrow, ["left", "right"], tiny, rotate_degrees=15, translate=0.1, area=(0.5, 1.0)) == {}


@pytest.mark.parametrize("seed", range(20))
def test_chance_alone_confuses_no_classes(seed: int) -> None:
    """Classes that no judge can tell: it is wrong half of the time, mirrored or not."""
    rng = np.random.default_rng(seed)
    train, _ = images_of(blob, ["disc"], 100, seed)
    found = label_dangers(Pretrained(), train, rng.integers(0, 5, 100), list("abcde"), planned(False, **EVERYTHING))
    assert found == []


def digit(kind: str, rng: np.random.Generator) -> Pixels:
    image = Image.new("L", (SIDE, SIDE), int(rng.integers(0, 90)))
    font = ImageFont.load_default(int(rng.integers(18, 24)))
    middle = tuple((SIDE / 2 + rng.uniform(-2, 2, 2)).tolist())
    ImageDraw.Draw(image).text(middle, kind, fill=int(rng.integers(140, 256)), font=font, anchor="mm")
    return np.asarray(image.convert("RGB"))


def test_six_turned_by_half_is_nine() -> None:
    assert "look like" in dangers(digit, ["6", "9"], True, rotate90=0.5)["rotate90"]
    assert dangers(digit, ["6", "9"], True, rotate_degrees=20) == {}


def test_a_network_is_asked_about_few_images_and_left_as_it_was() -> None:
    model, seen = Pretrained().train(), []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    train, classes = images_of(arrow, ["left", "right"], 400)
    label_dangers(model, train, classes, ["left", "right"], planned(False, **EVERYTHING))
    assert 150 <= sum(seen) <= 200 and model.training
    assert all(not module._forward_hooks for module in model.modules())
    nothing_trained = replace(planned(False, **EVERYTHING), epochs=0, head_epochs=0)
    assert label_dangers(model, train, classes, ["left", "right"], nothing_trained) == [] and sum(seen) <= 200


def test_tokens_of_a_transformer_are_a_map_too() -> None:
    class Tokens(Eyes):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            places = self.pool(images.mean(1, keepdim=True)).flatten(2).transpose(1, 2)  # [n, 36, 1]
            tokens: Tensor = self.last(torch.cat([places.mean(1, keepdim=True), places], 1))
            return tokens.mean(1)

    model = Pretrained()
    model.backbone = Tokens()
    train, classes = images_of(arrow, ["left", "right"], 240)
    found = label_dangers(model, train, classes, ["left", "right"], planned(False, hflip=0.5))
    assert [danger.choice for danger in found] == ["hflip"]


def test_what_was_not_asked_for_by_name_is_switched_off_and_the_rest_is_told() -> None:
    plan = replace(planned(False, **EVERYTHING), reasons={"augmentation": "random crops"})
    found = [Danger(choice="hflip", sentence="mirrored, it is bad"), Danger(choice="vflip", sentence="also bad")]
    heeded, said = heed(plan, found, "photos, vflip=0.5, rotate90=0.5")
    assert Augmentation(**heeded.augmentation) == Augmentation(hflip=0.0, vflip=0.5, rotate90=0.5)
    assert "hflip is switched off" in said[0] and "vflip is kept, as asked" in said[1]
    assert heeded.reasons["augmentation"] == f"random crops; {said[0]}; {said[1]}"
    assert heed(plan, [], "auto") == (plan, [])
