"""Variants of training images: what moves, what changes colour, and that both follow from (seed, epoch, sample id)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from snellen.core import geometry as g
from snellen.core.errors import ConfigError
from snellen.data.augment import Augmentation, is_auto, written_out
from snellen.data.placement import geometry
from snellen.data.variants import vary, vary_batch
from snellen.data.warp import warp_image

IN, OUT = (500, 375), (96, 96)
IDS = [f"train/ant/{number}.jpg" for number in range(400)]
STRONG = Augmentation(
    hflip=0.5, vflip=0.3, area=(0.2, 0.9), aspect=(0.6, 1.7), rotate_degrees=40, translate=0.2, shear_degrees=15,
    brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, erase=0.4, rotate90=0.3, scale=(0.8, 1.25),
    perspective=0.06, elastic=0.02, colour_cast=0.2, blur=1.0, noise=0.05, policy="randaugment",
)  # fmt: skip
# One value for each setting that shows in a picture.
ONE_BY_ONE: dict[str, Any] = {
    "hflip": 1.0, "vflip": 1.0, "rotate90": 1.0, "area": (0.3, 0.5), "aspect": (0.4, 0.6), "scale": (1.3, 1.6),
    "rotate_degrees": 30.0, "translate": 0.3, "shear_degrees": 30.0, "perspective": 0.1, "elastic": 0.03,
    "brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.5, "colour_cast": 0.5, "grayscale": 1.0,
    "blur": 4.0, "noise": 0.2, "erase": 1.0, "policy": "trivialaugment",
}  # fmt: skip


def picture(width: int = 120, height: int = 90, seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(30, 226, (7, 9, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC))


def augmented(sample_id: str, seed: int = 3, epoch: int = 2, settings: Augmentation = STRONG) -> npt.NDArray[np.uint8]:
    return vary(settings, seed, epoch, sample_id, picture(), (48, 48))


def batch_of(count: int, side: int = 32) -> Any:
    import torch

    return torch.from_numpy(np.stack([picture(side, side, seed) for seed in range(count)])).permute(0, 3, 1, 2)


# -- keyed randomness -----------------------------------------------------------------------------------------------


def test_the_same_key_gives_the_same_pixels_in_any_order_and_thread() -> None:
    forwards = {name: augmented(name) for name in IDS[:24]}
    with ThreadPoolExecutor(4) as pool:
        backwards = dict(zip(IDS[23::-1], pool.map(augmented, IDS[23::-1]), strict=True))
    assert all(np.array_equal(forwards[name], backwards[name]) for name in forwards)


def test_seed_epoch_and_sample_each_change_the_draw() -> None:
    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (0, 0, ""), (1, 10, "a"), (11, 0, "a")]
    matrices = {geometry(STRONG, seed, epoch, [name], IN, OUT).tobytes() for seed, epoch, name in keys}
    pictures = {augmented(name, seed, epoch, Augmentation(noise=0.2)).tobytes() for seed, epoch, name in keys}
    assert len(matrices) == len(pictures) == len(keys)


def test_a_key_draws_the_same_numbers_on_every_machine_and_in_every_process() -> None:
    """Pinned: a change here changes what every resumed run sees. A salted hash would differ in the other process."""
    code = (
        "from snellen.data.placement import *\n"
        "m = geometry(Augmentation(translate=1.0), 7, 3, ['x/ä.png'], (9, 9), (10, 10))\n"
        "print(*m[0, :2, 2].round(6))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, encoding="utf-8")
    assert found.stdout.split() == ["-6.644537", "2.905209"]


def test_a_file_name_that_is_not_utf8_is_a_key_like_any_other() -> None:
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert not np.array_equal(augmented(name), augmented("cafe.jpg"))


def test_a_sample_of_a_batch_does_not_depend_on_the_others() -> None:
    images = batch_of(12)
    together = vary_batch(STRONG, 1, 2, IDS[:12], images, (32, 32))
    some = vary_batch(STRONG, 1, 2, [IDS[5], IDS[3]], images[[5, 3]], (32, 32))
    apart = (together[[5, 3]].int() - some.int()).abs()
    # Sums run in another order for another batch shape: a pixel may round the other way, and a policy amplify it.
    assert (apart > 1).float().mean() < 0.01


@pytest.mark.parametrize("name", [*ONE_BY_ONE, "all"])
def test_a_batch_is_what_one_image_at_a_time_is(name: str) -> None:
    values: dict[str, Any] = {"rotate_degrees": 20.0, "shear_degrees": 10.0, "aspect": (0.9, 1.0)}
    smooth = replace(STRONG, policy="none", noise=0.0, erase=0.0)
    settings = smooth if name == "all" else Augmentation(**{name: values.get(name, ONE_BY_ONE[name])})
    images = batch_of(6)
    together = vary_batch(settings, 1, 2, IDS[:6], images, (32, 32)).permute(0, 2, 3, 1).numpy()
    for i, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        alone = vary(settings, 1, 2, IDS[i], np.ascontiguousarray(image), (32, 32))
        apart = np.abs(together[i].astype(int) - alone)
        assert apart.mean() < 1.5, i
        assert np.mean(apart > 4) < 0.06, i  # a pixel at the very edge may be filled by one and not by the other


@pytest.mark.parametrize(
    "name", ["rotate90", "scale", "perspective", "elastic", "colour_cast", "blur", "noise", "policy"]
)
def test_switching_one_setting_on_leaves_the_draws_of_the_others_alone(name: str) -> None:
    """With a strength that shows nothing, every other choice must come out as without."""
    nothing: dict[str, Any] = {"scale": (1.0, 1.0 + 1e-12), "policy": "randaugment", "magnitude": 0.0}
    few = {key: value for key, value in asdict(STRONG).items() if key in ONE_BY_ONE and key not in nothing}
    few |= dict.fromkeys(("perspective", "elastic", "blur", "noise", "rotate90", "colour_cast"), 0.0)
    before = Augmentation(**few)
    changed: dict[str, Any] = {name: nothing.get(name, 1e-9), "magnitude": 0.0}
    after = replace(before, **changed)
    rows = slice(0, 40)
    assert np.allclose(geometry(before, 0, 0, IDS[rows], IN, OUT), geometry(after, 0, 0, IDS[rows], IN, OUT), atol=1e-4)
    if name != "policy":  # at strength 0 it still equalizes and stretches contrast
        apart = np.abs(augmented("a", settings=before).astype(int) - augmented("a", settings=after))
        assert np.mean(apart > 2) < 0.02


# -- geometry -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_size", [IN, (375, 500), (64, 64)])
@pytest.mark.parametrize("out", [(96, 96), (96, 48)])
def test_nothing_to_vary_is_the_evaluation_geometry(in_size: g.Size, out: g.Size) -> None:
    nothing = Augmentation.none()
    assert np.allclose(geometry(nothing, 0, 0, ["a"], in_size, out, fit="squash"), g.squash(in_size, out))
    plain, matrix = g.center_crop(in_size, out), geometry(nothing, 0, 0, ["a"], in_size, out)[0]
    corners = [(0, 0), (in_size[0], in_size[1])]
    assert np.abs(g.map_points(plain, corners) - g.map_points(matrix, corners)).max() <= 1.0  # whole-pixel rounding


@given(
    st.tuples(st.integers(1, 900), st.integers(1, 900)), st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.sampled_from(["crop", "squash"]), st.integers(0, 10**6),
)  # fmt: skip
def test_a_random_crop_lies_inside_the_image_and_keeps_its_area(
    in_size: g.Size, out: g.Size, fit: Any, seed: int
) -> None:
    settings = Augmentation(hflip=0.5, vflip=0.5, area=(0.35, 0.8), aspect=(0.75, 4 / 3))
    for matrix in geometry(settings, seed, 0, IDS[:8], in_size, out, fit=fit):
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
    matrices = geometry(settings, 0, 0, [f"{number}" for number in range(4000)], (96, 96), (96, 96))
    flipped = np.linalg.det(matrices) < 0
    assert abs(flipped.mean() - (0.3 * 0.4 + 0.7 * 0.6)) < 0.03
    centre = np.array([g.map_points(matrix, (48, 48)) for matrix in matrices[:1000]]) - 48
    assert np.abs(centre).max() <= 9.6 + 1e-9 and np.abs(centre).max() > 9.0 and np.abs(centre.mean(axis=0)).max() < 0.6
    turn = np.degrees(np.arctan(matrices[:, 1, 0] / matrices[:, 0, 0]))
    assert np.abs(turn).max() <= 20 + 1e-6 and 10.5 < turn.std() < 12.5  # 20 / sqrt(3) = 11.5


def test_quarter_turns_zooms_and_corners_are_as_wide_as_they_say() -> None:
    names, square = [f"{number}" for number in range(3000)], (90, 90)
    turned = geometry(Augmentation(rotate90=0.6), 0, 0, names, square, square)
    kinds, counts = np.unique(turned.round(6), axis=0, return_counts=True)
    assert len(kinds) == 4 and all(g.is_axis_aligned(kind) for kind in kinds)
    assert sorted(np.round(counts / 3000, 1)) == [0.2, 0.2, 0.2, 0.4]
    zooms = geometry(Augmentation(scale=(0.5, 2.0)), 0, 0, names, square, square)[:, 0, 0]
    assert 0.5 <= zooms.min() < 0.51 and 1.96 < zooms.max() <= 2.0 and abs(np.log(zooms).mean()) < 0.03
    corners = np.array([(0, 0), (90, 0), (90, 90), (0, 90)])
    tilted = geometry(Augmentation(perspective=0.1), 0, 0, names[:300], square, square)
    moved = np.array([g.map_points(matrix, corners) for matrix in tilted]) - corners
    assert 8.9 < np.abs(moved).max() <= 9.0 and np.abs(moved.mean(axis=0)).max() < 1.2


@given(st.integers(0, 10**6))
def test_the_horizon_never_crosses_the_picture(seed: int) -> None:
    settings = Augmentation(perspective=0.1, translate=1.0, rotate_degrees=180, shear_degrees=60, scale=(0.1, 10.0))
    frame = np.array([(-0.2, -0.2), (1.2, -0.2), (1.2, 1.2), (-0.2, 1.2)]) * OUT  # an elastic field may look so far
    for matrix in geometry(settings, seed, 0, IDS[:40], IN, OUT):
        g.map_points(g.invert(matrix), frame)  # raises where it does


def test_a_flip_moves_the_annotation_with_the_picture() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[10:30, 5:25] = 255
    (matrix,) = geometry(Augmentation(hflip=1.0), 0, 0, ["a"], (80, 60), (80, 60))
    warped = warp_image(image, matrix, (80, 60))[..., 0] > 127
    rows, columns = np.nonzero(warped)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert np.array_equal(g.map_boxes(matrix, [(5, 10, 25, 30)])[0], box)
    assert box == (55, 10, 75, 30)


# -- settings -------------------------------------------------------------------------------------------------------


def test_no_augmentation_is_the_default_and_presets_change_something() -> None:
    assert Augmentation() == Augmentation.none()
    assert len({Augmentation.none(), Augmentation.for_photos(), Augmentation.for_tiny_images()}) == 3


def test_every_setting_changes_the_picture() -> None:
    assert {*ONE_BY_ONE, "operations", "magnitude"} == {field.name for field in fields(Augmentation)}
    for name, value in ONE_BY_ONE.items():
        settings = Augmentation(**{name: value})
        assert any(
            not np.array_equal(augmented(key, settings=settings), augmented(key, settings=Augmentation()))
            for key in IDS[:8]
        )


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
        ({"scale": (0.0, 1.0)}, "scale must be a range within 0.1 to 10"),
        ({"perspective": 0.3}, "perspective must be between 0 and 0.1"),
        ({"operations": 2.5}, "operations must be a whole number"),
        ({"policy": "randaug"}, "policy must be a known one, got 'randaug'; did you mean 'randaugment'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Augmentation(**settings)


@given(st.data())
def test_settings_come_back_from_the_plans_json(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(sorted(ONE_BY_ONE)), unique=True))
    settings = Augmentation(**{name: ONE_BY_ONE[name] for name in chosen})
    assert Augmentation(**json.loads(json.dumps(asdict(settings)))) == settings


def test_a_plan_of_before_these_settings_is_read_with_them_off() -> None:
    old: dict[str, Any] = {
        "hflip": 0.5,
        "vflip": 0.0,
        "area": [0.35, 1.0],
        "aspect": [0.75, 1.33],
        "rotate_degrees": 0.0,
        "erase": 0.1,
    }
    assert Augmentation(**old) == Augmentation(hflip=0.5, area=(0.35, 1.0), aspect=(0.75, 1.33), erase=0.1)


# -- the line of text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("auto", Augmentation.for_photos()),
        ("none", Augmentation.none()),
        (" tiny ", Augmentation.for_tiny_images()),
        ("rotate_degrees=5", replace(Augmentation.for_photos(), rotate_degrees=5.0)),
        (
            "photos, rotate_degrees=15, blur=0.2, area=0.5..1",
            replace(Augmentation.for_photos(), rotate_degrees=15.0, blur=0.2, area=(0.5, 1.0)),
        ),
        ("none,scale = 0.8..1.25,erase=1", Augmentation(scale=(0.8, 1.25), erase=1.0)),
        (
            "randaugment, operations=3, magnitude=12",
            Augmentation(
                hflip=0.5, area=(0.35, 1.0), aspect=(3 / 4, 4 / 3), policy="randaugment", operations=3, magnitude=12.0
            ),
        ),
    ],
)
def test_a_line_is_a_preset_and_what_differs_from_it(text: str, settings: Augmentation) -> None:
    assert Augmentation.parse(text) == settings


def test_tiny_images_have_their_own_presets() -> None:
    assert Augmentation.parse("auto", preset="tiny") == Augmentation.for_tiny_images()
    assert Augmentation.parse("photos", preset="tiny") == Augmentation.for_photos()
    assert Augmentation.parse("autoaugment", preset="tiny") == replace(
        Augmentation.for_tiny_images(), policy="autoaugment"
    )
    assert (
        written_out("photos, hflip=0.5, erase=1") == {"hflip", "erase"} and is_auto("hflip=0") and not is_auto("tiny")
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("photo", "augment = 'photo' is not known; did you mean 'photos'"),
        ("", "augment = '' is not known; known: auto"),
        ("photos, rotat_degrees=5", "'rotat_degrees' is not known; did you mean 'rotate_degrees'"),
        ("photos, blur", "'blur' is no setting: after the preset write name=value"),
        ("hflip=1, photos", "'photos' is no setting"),
        ("photos, hflip=yes", "hflip = 'yes' is no number: give one between 0 and 1"),
        ("photos, hflip=0..1", "hflip = '0..1' is no number: give one between 0 and 1"),
        ("photos, area=0.5", "area = '0.5' is no range: write two numbers within 0 to 1 as area=0.5..1"),
        ("photos, area=a..b", "area = 'a..b' is no range"),
        ("photos, hue=3", "hue must be between 0 and 0.5, got 3"),
        ("photos, hue=nan", "hue must be between 0 and 0.5, got nan"),
        ("photos, hue=0.1, hue=0.2", "'hue' is given twice: 0.1 and 0.2"),
        ("randaugment, operations=1.5", "operations must be a whole number"),
        ("photos, policy=rand", "did you mean 'randaugment'"),
    ],
)
def test_a_line_that_makes_no_sense_is_told_in_one_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)) as error:
        Augmentation.parse(text)
    assert "\n" not in str(error.value)


def test_the_modules_do_not_load_torch() -> None:
    imports = "import sys, snellen.data.variants, snellen.data.mixing"
    code = f"{imports}; print(sorted({{'torch', 'torchvision'}} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"
