"""Colours are one matrix an image, and say what Pillow says; a poor camera blurs and adds noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from snellen.data.augment import Augmentation
from snellen.data.colours import draw_colours, erase, erase_batch, recolour, recolour_batch
from snellen.data.effects import add_noise, blur, draw_effects
from snellen.data.warp import FILL

IDS = [f"train/ant/{number}.jpg" for number in range(400)]


def picture(width: int = 120, height: int = 90, seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(30, 226, (7, 9, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def one(image: npt.NDArray[np.uint8], seed: int, **settings: float) -> npt.NDArray[np.uint8]:
    return recolour(Augmentation(**settings), draw_colours(seed, 0, ["a"])[0], image)  # type: ignore[arg-type]


def recoloured(images: Any, **settings: float) -> Any:
    return recolour_batch(Augmentation(**settings), draw_colours(0, 0, IDS[: len(images)]), images)  # type: ignore[arg-type]


ENHANCERS = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


@pytest.mark.parametrize("name", ENHANCERS)
@pytest.mark.parametrize("seed", range(1, 5))
def test_each_colour_setting_is_pillows_own(name: str, seed: int) -> None:
    image = picture()
    found = one(image, seed, **{name: 0.5})
    draw = draw_colours(seed, 0, ["a"])[0][list(ENHANCERS).index(name)]
    expected = np.asarray(ENHANCERS[name](Image.fromarray(image)).enhance(0.5 + draw))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert not np.array_equal(found, image)


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_colour_settings_together_are_one_after_the_other(seed: int) -> None:
    muted = (picture() // 4 + 96).astype(np.uint8)  # nothing to clip on the way
    factors = 0.7 + 0.6 * draw_colours(seed, 0, ["a"])[0][:3]
    luma = np.array([0.299, 0.587, 0.114])  # in floats, for Pillow cuts the fraction off after each step
    brighter = muted * factors[0]
    mean = (brighter @ luma).mean()
    contrasted = mean + factors[1] * (brighter - mean)
    grey = (contrasted @ luma)[..., None]
    found = one(muted, seed, brightness=0.3, contrast=0.3, saturation=0.3)
    assert np.abs(found - (grey + factors[2] * (contrasted - grey))).max() <= 0.75


def test_grey_is_grey_and_a_turn_of_hue_keeps_the_luma() -> None:
    image = picture()
    grey = one(image, 0, grayscale=1.0)
    assert np.abs(grey.astype(int) - np.asarray(Image.fromarray(image).convert("L"))[..., None]).max() <= 1
    muted = (image // 4 + 96).astype(np.uint8)  # nothing to clip
    turned = one(muted, 1, hue=0.5)
    assert np.abs(turned.astype(int) - muted).max() > 5
    luma = [np.asarray(Image.fromarray(one).convert("L"), int) for one in (muted, turned)]
    assert np.abs(luma[0] - luma[1]).max() <= 1
    flat = np.full((4, 4, 3), 99, np.uint8)
    assert np.abs(one(flat, 1, hue=0.5).astype(int) - 99).max() <= 1


def test_a_batch_recolours_as_the_settings_say() -> None:
    import torch

    images = torch.from_numpy(np.stack([picture(32, 32, seed) for seed in range(40)])).permute(0, 3, 1, 2).contiguous()
    before = images.clone()
    brighter = recoloured(images, brightness=0.3)
    ratio = brighter.float().mean(dim=(1, 2, 3)) / images.float().mean(dim=(1, 2, 3))
    assert 0.69 < ratio.min() < 0.8 and 1.15 < ratio.max() < 1.31
    grey = recoloured(images, grayscale=1.0)
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() == 0
    contrast = recoloured(images, contrast=0.5)
    spread = contrast.float().std(dim=(1, 2, 3)) / images.float().std(dim=(1, 2, 3))
    assert 0.48 < spread.min() < 0.75 and spread.max() > 1.1
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    moved = ((contrast.float() - images.float()) * luma).sum(dim=1).mean(dim=(1, 2)).abs()
    assert moved.max() < 4  # but for clipping, contrast keeps the mean grey
    assert torch.equal(images, before)
    assert recoloured(images) is images


def test_erasing_blanks_at_most_a_quarter_and_leaves_the_rest_alone() -> None:
    import torch

    image = picture()
    blanked = [erase(Augmentation(erase=1.0), draw, image) for draw in draw_colours(0, 0, IDS[:60])]
    changed = np.stack([np.any(one != image, axis=-1) for one in blanked])
    share = changed.mean(axis=(1, 2))
    assert 0.2 < share.max() <= 0.26 and share.min() > 0.04  # the centre is inside, so a quarter of the square is
    assert all(np.all(one[where] == FILL) for one, where in zip(blanked, changed, strict=True))
    batch = torch.from_numpy(np.stack([image] * 200)).permute(0, 3, 1, 2).contiguous()
    half = erase_batch(Augmentation(erase=0.5), draw_colours(0, 0, IDS[:200]), batch)
    touched = (half != batch).any(dim=1)
    assert 70 < int(touched.any(dim=(1, 2)).sum()) < 130
    assert 0.2 < touched.float().mean(dim=(1, 2)).max() <= 0.26


def test_a_colour_cast_is_a_factor_for_each_channel() -> None:
    muted = (picture() // 4 + 96).astype(np.uint8)
    found = one(muted, 3, colour_cast=0.3)
    factors = 0.7 + 0.6 * draw_colours(3, 0, ["a"])[0][8:11]
    assert np.abs(found - muted * factors).max() <= 0.51 and len(set(factors.round(3))) == 3
    grey = one(muted, 3, colour_cast=0.3, grayscale=1.0)
    assert np.ptp(grey.astype(int), axis=2).max() == 0


def test_blur_is_pillows_and_noise_is_as_wide_as_it_says() -> None:
    image, draw = picture(), draw_effects(0, 0, ["a"])[0]
    expected = Image.fromarray(image).filter(ImageFilter.GaussianBlur(float(3.0 * draw[0])))
    assert np.array_equal(blur(Augmentation(blur=3.0), draw, image), np.asarray(expected))
    flat = np.full((90, 120, 3), 128, np.uint8)
    noise = add_noise(Augmentation(noise=0.1), draw, flat, 0, 0, "a").astype(float) - 128
    assert noise.std() == pytest.approx(25.5 * draw[1], rel=0.05) and abs(noise.mean()) < 1
    channels = noise.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.05  # each value has a number of its own
    white = np.full((90, 120, 3), 250, np.uint8)
    assert add_noise(Augmentation(noise=0.5), draw, white, 0, 0, "a").min() > 0  # nothing wraps round
    assert blur(Augmentation(), draw, image) is image and add_noise(Augmentation(), draw, image, 0, 0, "a") is image
