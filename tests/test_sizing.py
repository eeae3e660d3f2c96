"""Tiny images: the small network or the pretrained one, by what a linear model makes of either on training images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET
from snellen.train.reading import TrainingData, read_data

SIDE = 24
ONE_THREAD = {"precision": "fp32", "device": "cpu", "threads": 1, "workers": 1, "groups": "none"}


def _texture(kind: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes or a checkerboard anywhere, in any two colours: no pixel by itself says which."""
    y, x = np.indices((SIDE, SIDE))
    shift = rng.integers(8, size=2)
    stripes = (x + shift[0]) // 4 % 2
    board = stripes ^ ((y + shift[1]) // 4 % 2)
    colours = rng.integers(256, size=(2, 3))
    return colours[(stripes, board)[kind]].astype(np.uint8)


def _corner(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A bright square in one of two places on noise: any linear model of the pixels sees it."""
    image = rng.integers(0, 120, size=(SIDE, SIDE, 3)).astype(np.uint8)
    corner = slice(3, 8) if kind == 0 else slice(15, 20)
    image[corner, corner] = 255
    return image


def _written(folder: Path, make: object) -> Path:
    rng = np.random.default_rng(0)
    for kind, name in enumerate(("first", "second")):
        (folder / name).mkdir(parents=True)
        for i in range(60):
            Image.fromarray(make(kind, rng)).save(folder / name / f"{i}.png")  # type: ignore[operator]
    return folder


def _read(data: Path, folder: Path, **settings: object) -> TrainingData:
    return read_data(Config.of(data=str(data), **{**ONE_THREAD, **settings}), folder / "cache", Console(io.StringIO()))


def test_textures_that_no_pixel_tells_apart_get_the_pretrained_network(tmp_path: Path) -> None:
    known = _read(_written(tmp_path / "data", _texture), tmp_path)
    assert known.choice.model == EMBEDDED_MODEL
    assert known.choice.preprocessing.input_size == (128, 128)
    assert "held-out training images" in known.choice.reasons["model"]
    assert known.store.prepared(known.survey.side("train")[0]).shape == (128, 128, 3)


def test_images_that_pixels_tell_apart_keep_the_small_network(tmp_path: Path) -> None:
    known = _read(_written(tmp_path / "data", _corner), tmp_path)
    assert known.choice.model == SMALL_RESNET
    assert known.store.preprocessing.input_size == (SIDE, SIDE)
    assert EMBEDDED_MODEL in known.choice.reasons["model"]  # both sides of the comparison are told


@pytest.mark.parametrize("settings", [{"pretrained": False}, {"model": SMALL_RESNET}])
def test_what_was_asked_for_is_not_put_to_the_test(tmp_path: Path, settings: dict[str, object]) -> None:
    known = _read(_written(tmp_path / "data", _texture), tmp_path, **settings)
    assert known.choice.model == SMALL_RESNET
    assert EMBEDDED_MODEL not in known.choice.reasons.get("model", "")
