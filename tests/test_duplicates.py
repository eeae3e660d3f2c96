"""Which images are the same picture, and which only look alike."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps

from snellen.data import proposals
from snellen.data.duplicates import Duplicate, clusters, find_duplicates
from snellen.data.fingerprint import ORIENTATIONS, PARTS, describe, fingerprint, oriented, redescribed
from snellen.data.registration import align, compare
from snellen.data.scan import ImageFacts

NUM_SCENES = 24


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A made-up photograph: noise with the 1/f spectrum of natural images, in three correlated channels."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequency[0, 0] = np.inf
    channels = [np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency**1.2).real for _ in range(4)]
    mixed = np.stack([channels[0] + 0.3 * channel for channel in channels[1:]], axis=-1)
    mixed = (mixed - mixed.mean()) / mixed.std()
    return Image.fromarray((128 + 50 * mixed).clip(0, 255).astype(np.uint8))


def facts_of(image: Image.Image) -> ImageFacts:
    pixels = np.asarray(image.convert("RGB"))
    return ImageFacts(
        width=image.width,
        height=image.height,
        mode="RGB",
        format="PNG",
        orientation=1,
        brightness=0.5,
        contrast=0.2,
        channel_means=(0.5, 0.5, 0.5),
        channel_squares=(0.3, 0.3, 0.3),
        sha256="",
        pixel_hash=f"{pixels.shape}{hash(pixels.tobytes())}",
        fingerprint=fingerprint(pixels),
    )


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [scene(seed) for seed in range(NUM_SCENES)]


def recompressed(image: Image.Image, quality: int = 40) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "JPEG", quality=quality)
    return Image.open(written).convert("RGB")


def cropped(image: Image.Image, area: float = 0.8) -> Image.Image:
    rng = random.Random(image.tobytes()[:8])
    width, height = int(image.width * area**0.5), int(image.height * area**0.5)
    left, top = rng.randint(0, image.width - width), rng.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": halved,
    "squashed": lambda image: image.resize((100, 100), Image.Resampling.BILINEAR),
    "quality 40": recompressed,
    "quality 30": lambda image: recompressed(image, 30),
    "cropped to 80 %": cropped,
    "cropped to 90 %": lambda image: cropped(image, 0.9),
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: image.point([min(255, int(value * 1.15)) for value in range(256)] * 3),
    "a fifth brighter": lambda image: image.point([min(255, int(value * 1.2)) for value in range(256)] * 3),
    "a fifth darker": lambda image: image.point([int(value * 0.8) for value in range(256)] * 3),
    "upside down": ImageOps.flip,
    "quarter turn": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "three quarter turns": lambda image: image.transpose(Image.Transpose.ROTATE_270),
    "half turn": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "cropped and turned": lambda image: cropped(image, 0.9).transpose(Image.Transpose.ROTATE_90),
    "cropped and mirrored": lambda image: ImageOps.mirror(cropped(image)),
    "halved and recompressed": lambda image: recompressed(halved(image)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found_and_nothing_else(
    scenes: list[Image.Image], change: Callable[[Image.Image], Image.Image]
) -> None:
    facts = {f"original {i}": facts_of(image) for i, image in enumerate(scenes)}
    facts |= {f"copy {i}": facts_of(change(image)) for i, image in enumerate(scenes)}
    found = find_duplicates(facts)
    right = [pair for pair in found if pair.first.split()[1] == pair.second.split()[1]]
    assert right == found
    assert all(pair.kind == "near" and 0.97 < pair.similarity <= 1.0 for pair in found)
    assert len(right) >= 0.9 * NUM_SCENES


def test_result_does_not_depend_on_the_order_of_the_listing(scenes: list[Image.Image]) -> None:
    facts = {f"{i}": facts_of(image) for i, image in enumerate(scenes)}
    facts |= {f"{i} copy": facts_of(cropped(image)) for i, image in enumerate(scenes)}
    assert find_duplicates(dict(reversed(facts.items()))) == find_duplicates(facts)


def test_the_search_by_pivots_finds_what_the_full_search_finds(
    scenes: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {f"{i}": facts_of(image) for i, image in enumerate(scenes)}
    facts |= {f"{i} copy": facts_of(ImageOps.mirror(cropped(image))) for i, image in enumerate(scenes)}
    expected = find_duplicates(facts)
    monkeypatch.setattr(proposals, "EXHAUSTIVE", 10)
    found = find_duplicates(facts)
    assert set(found) <= set(expected) and len(found) >= 0.9 * len(expected) > 0


def test_crops_are_found_beside_many_closer_copies(scenes: list[Image.Image]) -> None:
    # An export with offline augmentation: each image many times, most copies nearer to each other than the crop is.
    facts = {}
    for i, image in enumerate(scenes[:10]):
        facts |= {f"{i} copy {quality}": facts_of(recompressed(image, quality)) for quality in range(40, 100, 4)}
        facts |= {f"{i} crop": facts_of(cropped(image, 0.8))}
    found = find_duplicates(facts)
    assert all(pair.first.split()[0] == pair.second.split()[0] for pair in found)
    joined = [members for members in clusters(facts, found) if any(name.endswith("crop") for name in members)]
    assert len(joined) >= 9 and {len(members) for members in joined} == {16}


# ---- exact duplicates


def test_k_exact_copies_give_k_minus_one_pairs_with_the_first() -> None:
    facts = dict.fromkeys(("c", "a", "b"), facts_of(scene(1))) | {"d": facts_of(scene(2))}
    assert find_duplicates(facts) == [
        Duplicate(first="a", second="b", kind="exact", similarity=1.0),
        Duplicate(first="a", second="c", kind="exact", similarity=1.0),
    ]


def test_a_near_copy_of_exact_copies_joins_their_cluster() -> None:
    twin = facts_of(scene(1))
    facts = {"a": twin, "b": twin, "c": facts_of(halved(scene(1))), "d": facts_of(scene(2))}
    assert clusters(facts, find_duplicates(facts)) == [("a", "b", "c")]


@pytest.mark.parametrize("num_images", [0, 1])
def test_too_few_images_have_no_duplicates(num_images: int) -> None:
    assert find_duplicates({f"{i}": facts_of(scene(i)) for i in range(num_images)}) == []


# ---- what is not a duplicate


def shape(rng: np.random.Generator, *, side: int, colour: tuple[int, int, int]) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    radius = rng.uniform(0.15, 0.3) * side
    x, y = rng.uniform(radius, side - radius, 2)
    ImageDraw.Draw(image).ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    return image


def test_shapes_on_a_plain_ground_are_no_crops_of_each_other() -> None:
    rng = np.random.default_rng(0)
    facts = {f"{i}": facts_of(shape(rng, side=96, colour=(0, 0, 0))) for i in range(60)}
    assert find_duplicates(facts) == []


def test_same_shape_in_another_colour_is_no_duplicate() -> None:
    # Two greens and reds of one luma: in grey the two pictures are equal.
    colours = ((200, 60, 60), (60, 131, 60))
    facts = {f"{i}": facts_of(shape(np.random.default_rng(3), side=96, colour=c)) for i, c in enumerate(colours)}
    assert find_duplicates(facts) == []


def test_shapes_on_a_plain_ground_may_be_turned_on_purpose() -> None:
    # Where the direction is the label, an arrow to the left and one to the top are no copies.
    arrow = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(arrow).polygon([(20, 44), (60, 44), (60, 30), (80, 50), (60, 70), (60, 56), (20, 56)], fill="black")
    turns = [arrow, *(arrow.transpose(how) for how in (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))]
    assert find_duplicates({f"{i}": facts_of(image) for i, image in enumerate(turns)}) == []


@pytest.mark.parametrize("seed", range(5))
def test_symmetric_scenes_with_the_part_elsewhere_are_no_duplicates_in_any_orientation(seed: int) -> None:
    # Symmetric on both axes and the same ground in every frame: orientation decides nothing, only where the part lies.
    quarter = np.asarray(scene(100 + seed, 64, 64), np.float32)
    ground = np.block([[[quarter], [quarter[:, ::-1]]], [[quarter[::-1]], [quarter[::-1, ::-1]]]])
    rng = np.random.default_rng(seed)
    facts = {}
    for left, top in ((6 * i, 6 * j) for i in range(7) for j in range(i + 1)):
        frame = Image.fromarray((ground + rng.normal(0, 4, ground.shape)).clip(0, 255).astype(np.uint8))
        ImageDraw.Draw(frame).ellipse((left, top, left + 24, top + 24), fill=(20, 20, 20))
        facts[f"{left} {top}"] = facts_of(frame)
    assert find_duplicates(facts) == []


def test_flat_pictures_of_different_shades_are_no_duplicates() -> None:
    assert find_duplicates({f"{v}": facts_of(Image.new("RGB", (64, 64), (v, v, v))) for v in range(0, 256, 8)}) == []


def test_two_frames_of_a_fixed_camera_with_another_object_are_no_duplicates() -> None:
    background = scene(5)
    facts = {}
    for i in range(12):
        frame = background.copy()
        left, top = 10 * i, 6 * i
        ImageDraw.Draw(frame).ellipse((left, top, left + 24, top + 24), fill=(20, 20, 20))
        facts[f"{i}"] = facts_of(frame)
    assert find_duplicates(facts) == []


def digit_facts(pixels: npt.NDArray[np.float64]) -> ImageFacts:
    return facts_of(Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)))


def test_different_handwritten_digits_of_8_x_8_pixels_are_no_duplicates() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images = datasets.load_digits().images[:400]
    facts = {f"{i}": digit_facts(image) for i, image in enumerate(images)}
    assert find_duplicates(facts) == []
    almost = images[7].copy()
    almost[3, 3] += 0.1 if almost[3, 3] < 15 else -0.1
    pairs = find_duplicates(facts | {"almost 7": digit_facts(almost)})
    assert [(pair.first, pair.second, pair.kind) for pair in pairs] == [("7", "almost 7", "near")]


def test_a_tiny_mirrored_image_is_no_duplicate() -> None:
    tiny = scene(1).resize((16, 12))
    assert find_duplicates({"a": facts_of(tiny), "b": facts_of(ImageOps.mirror(tiny))}) == []


# ---- clusters


def pair(first: int, second: int) -> Duplicate:
    return Duplicate(first=str(first), second=str(second), kind="near", similarity=0.99)


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=30), st.randoms())
def test_clusters_are_the_connected_components(edges: list[tuple[int, int]], rng: random.Random) -> None:
    components = [{i} for i in range(16)]
    for first, second in edges:
        joined = next(c for c in components if first in c) | next(c for c in components if second in c)
        components = [c for c in components if not c & joined] + [joined]
    expected = sorted(tuple(sorted(map(str, c))) for c in components if len(c) > 1)
    rng.shuffle(edges)
    assert clusters([str(i) for i in range(16)], [pair(*edge) for edge in edges]) == expected


def test_pairs_of_unknown_images_are_ignored() -> None:
    assert clusters(["1", "2", "3"], [pair(1, 9), pair(9, 2)]) == []


# ---- the parts


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
@pytest.mark.parametrize("part", [0, 1, 5, 13])
def test_descriptor_of_a_turned_image_needs_no_turned_image(part: int, orientation: int) -> None:
    grey = fingerprint(np.asarray(scene(3))).grey[None]
    turned = oriented(grey, np.array([orientation]))
    where = PARTS[part]
    # The cells that the part covers, carried to where the orientation puts them.
    marked = np.zeros((1, 64, 64), np.uint8)
    rows, columns = (slice(round(at * 64), round((at + where.side) * 64)) for at in (where.top, where.left))
    marked[:, rows, columns] = 1
    moved = np.argwhere(oriented(marked, np.array([orientation]))[0]).min(axis=0) / 64
    there = min(
        (each for each in PARTS if each.side == where.side),
        key=lambda each: abs(each.top - moved[0]) + abs(each.left - moved[1]),
    )
    expected = describe(turned, there)
    np.testing.assert_allclose(redescribed(describe(grey, where), orientation), expected, atol=1e-4)


def test_orientations_are_the_eight_of_a_square() -> None:
    picture = np.arange(64 * 64, dtype=np.uint8).reshape(1, 64, 64)
    turned = [oriented(picture, np.array([code]))[0] for code in range(ORIENTATIONS)]
    quarters = [np.rot90(picture[0], k) for k in range(4)]
    expected = [*quarters, *(each[:, ::-1] for each in quarters)]
    assert {each.tobytes() for each in turned} == {np.ascontiguousarray(each).tobytes() for each in expected}
    assert np.array_equal(turned[1], picture[0][:, ::-1]) and np.array_equal(turned[3], np.rot90(picture[0], 2))


def test_fingerprint_of_a_resized_image_is_nearly_the_same() -> None:
    large = scene(2, 640, 480)
    one, other = (fingerprint(np.asarray(image)) for image in (large, large.resize((320, 240), Image.Resampling.BOX)))
    assert np.abs(one.grey.astype(int) - other.grey).mean() < 2.0
    assert (one.grey.shape, one.grey.dtype, one.colour.shape) == ((64, 64), np.uint8, (16, 16, 3))


@settings(max_examples=40)
@given(st.floats(0.85, 1.0), st.floats(0, 1), st.floats(0, 1))
def test_registration_finds_a_known_crop(side: float, right: float, down: float) -> None:
    large = np.asarray(scene(4, 256, 256).convert("L"))
    left, top = right * (1 - side), down * (1 - side)
    box = (left * 256, top * 256, (left + side) * 256, (top + side) * 256)
    first = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX, box=box), np.float32)[None]
    second = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX), np.float32)[None]
    start = np.array([[0.93, 0.035, 0.93, 0.035]], np.float32)
    placement = align(first, second, start, blur=3.0, steps=10)
    placement = align(first, second, placement, blur=0.7, steps=5)
    np.testing.assert_allclose(placement[0], [side, left, side, top], atol=0.012)
    assert compare(first, second, placement).correlation[0] > 0.98
