"""Augmentation is one matrix for the geometry and one for the colours, keyed by (seed, epoch, sample id)."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from snellen.core import geometry as g
from snellen.core.errors import ConfigError
from snellen.data.augment import (
    Augmentation,
    generator,
    geometry,
    geometry_batch,
    photometric,
    photometric_batch,
)
from snellen.data.warp import FILL, warp_batch, warp_image

IN, OUT = (500, 375), (96, 96)
IDS = [f"train/ant/{number}.jpg" for number in range(400)]
STRONG = Augmentation(
    hflip=0.5, vflip=0.3, area=(0.2, 0.9), aspect=(0.6, 1.7), rotate_degrees=40, translate=0.2, shear_degrees=15,
    brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, erase=0.4,
)  # fmt: skip


def picture(width: int = 120, height: int = 90, seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(30, 226, (7, 9, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def augmented(sample_id: str, seed: int = 3, epoch: int = 2, settings: Augmentation = STRONG) -> npt.NDArray[np.uint8]:
    rng = generator(seed, epoch, sample_id)
    return photometric(settings, rng, warp_image(picture(), geometry(settings, rng, (120, 90), (48, 48)), (48, 48)))


# -- keyed randomness -----------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_pixels_in_any_order_and_thread() -> None:
    forwards = {name: augmented(name) for name in IDS[:24]}
    with ThreadPoolExecutor(4) as pool:
        backwards = dict(zip(IDS[23::-1], pool.map(augmented, IDS[23::-1]), strict=True))
    assert all(np.array_equal(forwards[name], backwards[name]) for name in forwards)


def test_seed_epoch_and_sample_each_change_the_draw() -> None:
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, ""), (1, 10, "a"), (11, 0, "a")]
    firsts = {generator(*key).integers(2**62) for key in keys}
    matrices = {geometry_batch(STRONG, seed, epoch, [name], IN, OUT).tobytes() for seed, epoch, name in keys}
    assert len(firsts) == len(matrices) == len(keys)


def test_a_key_draws_the_same_numbers_on_every_machine_and_in_every_process() -> None:
    """Pinned: a change here changes what every resumed run sees. A salted hash would differ in the other process."""
    code = (
        "from snellen.data.augment import *\n"
        "m = geometry_batch(Augmentation(translate=1.0), 7, 3, ['x/ä.png'], (9, 9), (10, 10))\n"
        "print(generator(7, 3, 'x/ä.png').integers(10**9), *m[0, :2, 2].round(6))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, encoding="utf-8")
    assert found.stdout.split() == ["453565807", "-6.644537", "2.905209"]


def test_a_file_name_that_is_not_utf8_is_a_key_like_any_other() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert generator(0, 0, name).random() != generator(0, 0, "cafe.jpg").random()
    assert geometry_batch(STRONG, 0, 0, [name], IN, OUT).shape == (1, 3, 3)


def test_a_sample_of_a_batch_does_not_depend_on_the_others() -> None:
    import torch

    images = torch.from_numpy(np.stack([picture(32, 32, seed) for seed in range(12)])).permute(0, 3, 1, 2).contiguous()

    def run(rows: list[int]) -> torch.Tensor:
        ids = [IDS[row] for row in rows]
        tiny = replace(STRONG, area=(0.5, 1.0), aspect=(1.0, 1.0), shear_degrees=5.0)
        warped = warp_batch(images[rows], geometry_batch(tiny, 1, 2, ids, (32, 32), (32, 32)), (32, 32))
        return photometric_batch(tiny, 1, 2, ids, warped)

    together, shuffled = run(list(range(12))), run([5, 3, 11])
    # Sums run in another order for another batch shape: a pixel may round the other way.
    assert (together[[5, 3, 11]].int() - shuffled.int()).abs().max() <= 1


def test_switching_one_setting_on_leaves_the_others_draws_alone() -> None:
    without = geometry(Augmentation(area=(0.3, 0.8)), generator(0, 0, "a"), IN, OUT)
    turned = geometry(Augmentation(area=(0.3, 0.8), rotate_degrees=30), generator(0, 0, "a"), IN, OUT)
    middle = (OUT[0] / 2, OUT[1] / 2)
    assert np.allclose(g.map_points(g.invert(without), middle), g.map_points(g.invert(turned), middle))


# -- geometry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_size", [IN, (375, 500), (64, 64)])
@pytest.mark.parametrize("out", [(96, 96), (96, 48)])
def test_nothing_to_vary_is_the_evaluation_geometry(in_size: g.Size, out: g.Size) -> None:
    rng = generator(0, 0, "a")
    assert np.allclose(geometry(Augmentation.none(), rng, in_size, out, fit="squash"), g.squash(in_size, out))
    plain, matrix = g.center_crop(in_size, out), geometry(Augmentation.none(), rng, in_size, out)
    corners = [(0, 0), (in_size[0], in_size[1])]
    assert np.abs(g.map_points(plain, corners) - g.map_points(matrix, corners)).max() <= 1.0  # whole-pixel rounding
    image = picture()
    assert photometric(Augmentation.none(), rng, image) is image


@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)), st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["crop", "squash"]), st.integers(0, 10**6),
)  # fmt: skip
def test_a_random_crop_lies_inside_the_image_and_keeps_its_area(
    in_size: g.Size, out: g.Size, fit: Any, seed: int
) -> None:
    settings = Augmentation(hflip=0.5, vflip=0.5, area=(0.35, 0.8), aspect=(0.75, 4 / 3))
    for matrix in geometry_batch(settings, seed, 0, IDS[:8], in_size, out, fit=fit):
        assert g.is_axis_aligned(matrix)
        x0, y0, x1, y1 = g.map_boxes(g.invert(matrix), [(0, 0, *out)])[0]
        assert -1e-6 <= x0 < x1 <= in_size[0] + 1e-6 and -1e-6 <= y0 < y1 <= in_size[1] + 1e-6
        shape = out if fit == "crop" else in_size
        stretch = (x1 - x0) / (y1 - y0) / (shape[0] / shape[1])
        assert 0.75 - 1e-6 <= stretch <= 4 / 3 + 1e-6
        kept = (x1 - x0) * (y1 - y0) / (in_size[0] * in_size[1])
        touching = min(abs(x1 - x0 - in_size[0]), abs(y1 - y0 - in_size[1])) < 1e-6  # no larger box would fit
        assert kept <= 0.8 + 1e-6 and (kept >= 0.35 - 1e-6 or touching)


def test_settings_are_met_in_the_long_run() -> None:
    settings = Augmentation(hflip=0.3, vflip=0.6, translate=0.1, rotate_degrees=20)
    matrices = geometry_batch(settings, 0, 0, [f"{number}" for number in range(4000)], (96, 96), (96, 96))
    flipped = np.linalg.det(matrices) < 0
    assert abs(flipped.mean() - (0.3 * 0.4 + 0.7 * 0.6)) < 0.03
    centre = np.array([g.map_points(matrix, (48, 48)) for matrix in matrices[:1000]]) - 48
    assert np.abs(centre).max() <= 9.6 + 1e-9 and np.abs(centre).max() > 9.0 and np.abs(centre.mean(axis=0)).max() < 0.6
    turn = np.degrees(np.arctan(matrices[:, 1, 0] / matrices[:, 0, 0]))
    assert np.abs(turn).max() <= 20 + 1e-6 and 10.5 < turn.std() < 12.5  # 20 / sqrt(3) = 11.5


def test_one_image_and_a_batch_draw_from_the_same_distributions() -> None:
    single = np.stack([geometry(STRONG, generator(0, 0, name), IN, OUT) for name in IDS])
    batch = geometry_batch(STRONG, 0, 0, IDS, IN, OUT)
    assert single.shape == batch.shape == (400, 3, 3)
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
        one, many = single[:, row, column], batch[:, row, column]
        assert abs(one.mean() - many.mean()) < 5 * one.std() / np.sqrt(200)
        assert 0.8 < one.std() / many.std() < 1.25


def test_a_flip_moves_the_annotation_with_the_picture() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[10:30, 5:25] = 255
    matrix = geometry(Augmentation(hflip=1.0), generator(0, 0, "a"), (80, 60), (80, 60))
    warped = warp_image(image, matrix, (80, 60))[..., 0] > 127
    rows, columns = np.nonzero(warped)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.array_equal(g.map_boxes(matrix, [(5, 10, 25, 30)])[0], box)
    assert box == (55, 10, 75, 30)


# -- colours --------------------------------------------------------------------------------------------------------

ENHANCERS = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("seed", range(1, 5))
def test_each_colour_setting_is_pillows_own(name: str, seed: int) -> None:
    image = picture()
    found = photometric(Augmentation(**{name: 0.5}), generator(seed, 0, "a"), image)
    draw = generator(seed, 0, "a").random(8)[list(ENHANCERS).index(name)]
    expected = np.asarray(ENHANCERS[name](Image.fromarray(image)).enhance(0.5 + draw))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert not np.array_equal(found, image)


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_colour_settings_together_are_one_after_the_other(seed: int) -> None:
    muted = (picture() // 4 + 96).astype(np.uint8)  # nothing to clip on the way
    factors = 0.7 + 0.6 * generator(seed, 0, "a").random(8)[:3]
    luma = np.array([0.299, 0.587, 0.114])  # in floats, for Pillow cuts the fraction off after each step
    brighter = muted * factors[0]
    mean = (brighter @ luma).mean()
    contrasted = mean + factors[1] * (brighter - mean)
    grey = (contrasted @ luma)[..., None]
    settings = Augmentation(brightness=0.3, contrast=0.3, saturation=0.3)
    found = photometric(settings, generator(seed, 0, "a"), muted)
    assert np.abs(found - (grey + factors[2] * (contrasted - grey))).max() <= 0.75


def test_grey_is_grey_and_a_turn_of_hue_keeps_the_luma() -> None:
    image = picture()
    grey = photometric(Augmentation(grayscale=1.0), generator(0, 0, "a"), image)
    assert np.abs(grey.astype(int) - np.asarray(Image.fromarray(image).convert("L"))[..., None]).max() <= 1
    muted = (image // 4 + 96).astype(np.uint8)  # nothing to clip
    turned = photometric(Augmentation(hue=0.5), generator(1, 0, "a"), muted)
    assert np.abs(turned.astype(int) - muted).max() > 5
    luma = [np.asarray(Image.fromarray(one).convert("L"), int) for one in (muted, turned)]
    assert np.abs(luma[0] - luma[1]).max() <= 1
    flat = np.full((4, 4, 3), 99, np.uint8)
    assert np.abs(photometric(Augmentation(hue=0.5), generator(1, 0, "a"), flat).astype(int) - 99).max() <= 1


def test_a_batch_recolours_as_the_settings_say() -> None:
    import torch

    images = torch.from_numpy(np.stack([picture(32, 32, seed) for seed in range(40)])).permute(0, 3, 1, 2).contiguous()
    before = images.clone()
    brighter = photometric_batch(Augmentation(brightness=0.3), 0, 0, IDS[:40], images)
    ratio = brighter.float().mean(dim=(1, 2, 3)) / images.float().mean(dim=(1, 2, 3))
    assert 0.69 < ratio.min() < 0.8 and 1.15 < ratio.max() < 1.31
    grey = photometric_batch(Augmentation(grayscale=1.0), 0, 0, IDS[:40], images)
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() == 0
    contrast = photometric_batch(Augmentation(contrast=0.5), 0, 0, IDS[:40], images)
    spread = contrast.float().std(dim=(1, 2, 3)) / images.float().std(dim=(1, 2, 3))
    assert 0.48 < spread.min() < 0.75 and spread.max() > 1.1
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    moved = ((contrast.float() - images.float()) * luma).sum(dim=1).mean(dim=(1, 2)).abs()
    assert moved.max() < 4  # but for clipping, contrast keeps the mean grey
    assert torch.equal(images, before)
    assert photometric_batch(Augmentation.none(), 0, 0, IDS[:40], images) is images


def test_erasing_blanks_at_most_a_quarter_and_leaves_the_rest_alone() -> None:
    import torch

    image = picture()
    blanked = [photometric(Augmentation(erase=1.0), generator(0, 0, name), image) for name in IDS[:60]]
    changed = np.stack([np.any(one != image, axis=-1) for one in blanked])
    share = changed.mean(axis=(1, 2))
    assert 0.2 < share.max() <= 0.26 and share.min() > 0.04  # the centre is inside, so a quarter of the square is
    assert all(np.all(one[where] == FILL) for one, where in zip(blanked, changed, strict=True))
    batch = torch.from_numpy(np.stack([image] * 200)).permute(0, 3, 1, 2).contiguous()
    half = photometric_batch(Augmentation(erase=0.5), 0, 0, IDS[:200], batch)
    touched = (half != batch).any(dim=1)
    assert 70 < int(touched.any(dim=(1, 2)).sum()) < 130
    assert 0.2 < touched.float().mean(dim=(1, 2)).max() <= 0.26


# -- settings -------------------------------------------------------------------------------------------------------


def test_no_augmentation_is_the_default_and_presets_change_something() -> None:
    assert Augmentation() == Augmentation.none()
    assert len({Augmentation.none(), Augmentation.for_photos(), Augmentation.for_tiny_images()}) == 3


@pytest.mark.parametrize("name", [field.name for field in fields(Augmentation)])
def test_every_setting_changes_the_picture(name: str) -> None:
    value = {"area": (0.3, 0.5), "aspect": (0.4, 0.6)}.get(
        name, 0.5 if name not in ("rotate_degrees", "shear_degrees") else 30.0
    )
    changed = [
        not np.array_equal(
            augmented(key, settings=Augmentation(**{name: value})), augmented(key, settings=Augmentation())
        )
        for key in IDS[:8]
    ]
    assert any(changed)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hflip": 1.5}, "hflip must be between 0 and 1, got 1.5"),
        ({"brightness": -0.1}, "brightness must be between 0 and 1"),
        ({"hue": 0.7}, "hue must be between 0 and 0.5"),
        ({"rotate_degrees": float("nan")}, "rotate_degrees must be between 0 and 180"),
        ({"area": (0.0, 1.0)}, "area must be a range within 0 to 1"),
        ({"area": (0.8, 0.3)}, "area must be a range"),
        ({"area": (0.8, 1.3)}, "area must be a range"),
        ({"aspect": (-1.0, 1.0)}, "aspect must be a range above 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Augmentation(**settings)


def test_the_modules_do_not_load_torch() -> None:
    code = "import sys, snellen.data.augment; print(sorted({'torch', 'torchvision'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"
