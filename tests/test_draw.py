"""Charts and pictures: the same bytes each time, readable by eye and as a table, whatever the names and the sizes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from snellen.core.errors import ImageError
from snellen.draw.chart import HEAT, INK, ON_HEAT, SERIES, Chart
from snellen.draw.charts import MAX_POINTS, Line, bars, curves, heat, heatmap, histogram, lines, thin
from snellen.draw.pictures import contact_sheet, draw_label, thumbnail
from snellen.draw.text import legible
from snellen.tasks.classification.plots import charts

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "\u202egpj.exe",
    "NUL\x00 and \x1b[31m",
    "$\\frac{1}{0",
    "名前 😀 مرحبا",
    "\udcff not UTF-8",
    'quote " and & and <b>',
    "a\nb",
    "x" * 4096,
    "",
)


def drawn(kind: str, name: str = "ants") -> Chart:
    """One chart of each kind, with ``name`` wherever a name can stand."""
    ramp = np.linspace(0, 1, 50)
    makers: dict[str, Callable[[], Chart]] = {
        "lines": lambda: lines(
            name,
            name,
            [Line(name, ramp, ramp), Line("b", ramp, 1 - ramp, name)],
            x_label=name,
            y_label=name,
            mark=(0.5, name),
        ),
        "curves": lambda: curves(
            name, name, [Line(name, ramp, ramp)], x_label=name, y_label=name, rows=[(name, "1")], chance=True
        ),
        "bars": lambda: bars(name, name, {name: {name: 3}, "val": {name: 1, "bees": 2}}, x_label=name),
        "histogram": lambda: histogram(name, name, [1, 2], [0, 1, 2], x_label=name),
        "heatmap": lambda: heatmap(name, name, np.array([[5, 1], [0, 9]]), [name, "bees"]),
    }
    return makers[kind]()


KINDS = ("lines", "curves", "bars", "histogram", "heatmap")


def tags(chart: Chart) -> list[str]:
    return [element.tag for element in ET.fromstring(chart.svg).iter()]


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_is_the_same_bytes_each_time(kind: str) -> None:
    assert drawn(kind) == drawn(kind)


def test_charts_of_one_page_share_no_id() -> None:
    ids = [re.findall(r' id="([^"]*)"', drawn(kind, name).svg) for kind in KINDS for name in ("ants", "bees")]
    flat = [each for chart in ids for each in chart]
    assert flat and len(flat) == len(set(flat))


@pytest.mark.parametrize("kind", KINDS)
def test_every_reference_in_a_chart_stays_inside_it(kind: str) -> None:
    svg = drawn(kind).svg
    ids = set(re.findall(r' id="([^"]*)"', svg))
    assert set(re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)) <= {(i, "") for i in ids} | {("", i) for i in ids}
    assert not re.search(r'href="[^#]|<style|<script|<image', svg)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_names_are_text(kind: str, name: str) -> None:
    chart = drawn(kind, name)
    assert set(tags(chart)) <= set(tags(drawn(kind))) | {"{http://www.w3.org/2000/svg}g"}
    assert chart.svg.encode("utf-8") and "\x00" not in chart.svg


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_says_what_it_is_to_those_who_cannot_see_it(kind: str) -> None:
    chart = drawn(kind)
    root = ET.fromstring(chart.svg)
    assert root.get("role") == "img"
    assert [root[0].tag.rpartition("}")[2], root[0].text] == ["title", chart.title]
    assert root[1].tag.endswith("desc") and root[1].text
    assert chart.rows and all(len(row) == len(chart.header) for row in chart.rows)


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_10_pixels_or_more_at_the_natural_width(kind: str) -> None:
    sizes = [float(size) for size in re.findall(r"font-size: ?([\d.]+)px", drawn(kind).svg)]
    assert sizes and min(sizes) >= 10


@pytest.mark.parametrize("kind", KINDS)
def test_colours_and_fonts_are_left_to_the_page(kind: str) -> None:
    svg = drawn(kind).svg
    assert "currentColor" in svg and "font-family" not in svg
    plain = re.sub(r"var\(--[a-z0-9-]+,#[0-9a-f]{6}\)", "", svg)
    assert not set(re.findall(r"#[0-9a-f]{6}\b", plain)) & {INK, HEAT, ON_HEAT, *SERIES}


def luminance(colour: str) -> float:
    """Relative luminance of '#rrggbb' (WCAG 2)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def blended(colour: str, paper: str, opacity: float) -> str:
    mixed = [round(opacity * int(colour[i : i + 2], 16) + (1 - opacity) * int(paper[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def test_contrast_is_known_for_black_on_white() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("colour", SERIES)
def test_lines_stand_out_from_white(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 4.5


# Page, heat and the figures on light and on dark cells: of a plain white page, and of the report's dark one.
THEMES = (("#ffffff", HEAT, INK, ON_HEAT), ("#14171b", "#8fc7ff", "#e6e9ed", "#000000"))


@pytest.mark.parametrize(("page", "colour", "on_light", "on_dark"), THEMES)
@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.501, 0.75, 1.0])
def test_figures_in_a_confusion_matrix_can_be_read(
    share: float, page: str, colour: str, on_light: str, on_dark: str
) -> None:
    cell = blended(colour, page, heat(share))
    assert contrast(cell, on_dark if share > 0.5 else on_light) >= 4.5


# Machado, Oliveira and Fernandes (2009), severity 1, in linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_the_first_three_colours_differ_with_every_colour_vision(deficiency: str) -> None:
    seen = []
    for colour in SERIES[:3]:
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        seen.append(lab(np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)))
    distances = [np.linalg.norm(seen[i] - seen[j]) for i in range(3) for j in range(i)]
    assert min(distances) > 10  # a difference of 2.3 is just noticeable


def lab(linear: NDArray[Any]) -> NDArray[Any]:
    """CIE L*a*b* (D65) of linear RGB."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / (0.9505, 1.0, 1.089), 0.0089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(10, 500))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float], limit: int) -> None:
    y = np.array(values)
    x, kept = thin(np.arange(len(y)), y, limit)
    assert len(kept) == min(len(y), len(kept)) <= max(limit, 0)
    assert (kept == y[x]).all() and (np.diff(x) > 0).all()
    assert kept[0] == y[0] and kept[-1] == y[-1]
    assert kept.min() == y.min() and kept.max() == y.max()


def test_a_line_of_a_million_points_makes_a_small_picture() -> None:
    y = np.sin(np.arange(1_000_000) / 1000)
    chart = lines("Loss", "", [Line("train", np.arange(len(y)), y)], x_label="step", y_label="loss")
    assert len(chart.svg) < 40_000 and len(chart.rows) <= 100
    assert max(path.count("L ") for path in re.findall(r' d="([^"]*)"', chart.svg)) <= MAX_POINTS


def test_missing_values_leave_a_gap() -> None:
    chart = lines("Loss", "", [Line("a", [1, 2, 3], [1.0, float("nan"), 2.0])], x_label="epoch", y_label="loss")
    assert chart.rows == (("1", "1"), ("2", "–"), ("3", "2"))
    assert "nan" not in chart.svg.lower()


def test_a_logarithmic_axis_has_plain_figures() -> None:
    chart = lines("Loss", "", [Line("a", [1, 2], [0.01, 10.0])], x_label="epoch", y_label="loss", log_y=True)
    labels = [element.text for element in ET.fromstring(chart.svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "0.1" in labels and not any("mathdefault" in (label or "") for label in labels)


def test_bars_of_many_classes_lose_no_image() -> None:
    counts = {
        split: {f"class {i}": (i * 7919 + k) % 500 for i in range(1000)} for k, split in enumerate(("train", "val"))
    }
    chart = bars("Images", "", counts, x_label="images")
    total = sum(int(row[-1].replace(",", "")) for row in chart.rows)
    assert total == sum(sum(split.values()) for split in counts.values())
    assert "940 others" not in chart.svg and "970 others, mean" in chart.svg
    assert len(chart.svg) < 60_000


def test_bars_keep_long_names_apart_that_look_alike_when_cut() -> None:
    chart = bars("Images", "", {"train": {"a" * 500 + "x" + "b" * 500: 1, "a" * 500 + "y" + "b" * 500: 2}}, x_label="n")
    assert len(chart.rows) == 2


def test_a_class_whose_name_begins_with_an_underscore_is_in_the_legend() -> None:
    line = Line("_background", [0, 1], [0, 1])
    chart = curves("ROC", "", [line], x_label="x", y_label="y", rows=[("_background", "1")])
    assert "_background" in chart.svg
    assert "_unlabelled" in bars("Images", "", {"_unlabelled": {"a": 1}, "val": {"a": 2}}, x_label="images").svg


def test_a_histogram_wants_one_edge_more_than_counts() -> None:
    with pytest.raises(ValueError, match="2 counts need 3 edges, got 2"):
        histogram("Width", "", [1, 2], [0, 1], x_label="pixels")


def test_a_large_confusion_matrix_shows_the_most_confused_classes_and_says_so() -> None:
    counts = np.eye(100, dtype=int) * 50
    counts[7, 93] = counts[41, 12] = 9
    chart = heatmap("Confusion matrix", "Rows are truth.", counts, [f"class {i}" for i in range(100)])
    assert "Of 100 classes, the 30" in chart.caption
    assert {"class 7", "class 93", "class 41", "class 12"} <= {row[0] for row in chart.rows}
    assert len(chart.rows) == 30 and len(chart.svg) < 300_000


@given(st.text(), st.integers(1, 200))
def test_legible_text_can_always_be_written(text: str, limit: int) -> None:
    clean = legible(text, limit)
    assert len(clean) <= limit
    ET.fromstring(f"<p>{clean.replace('&', '').replace('<', '')}</p>".encode())
    assert legible(clean, limit) == clean


def test_legible_keeps_what_can_be_read() -> None:
    assert legible("Ärzte 名前 97\u00a0% 😀") == "Ärzte 名前 97\u00a0% 😀"
    assert legible("a" * 500 + "z") == "a" * 79 + "…" + "a" * 39 + "z"


# --- a classifier's charts


@pytest.fixture(scope="module")
def answers() -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    scores = rng.dirichlet(np.ones(4), 300)
    scores[np.arange(300), truth] += rng.random(300)
    return truth, np.round(scores / scores.sum(axis=1, keepdims=True), 2)  # rounded: with ties


def test_areas_and_counts_equal_those_of_scikit_learn(answers: tuple[NDArray[Any], NDArray[Any]]) -> None:
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

    truth, scores = answers
    names = ["ant", "bee", "cow", "dog"]
    confusion, roc, pr, _ = charts(truth, scores, names, False)
    expected = confusion_matrix(truth, scores.argmax(axis=1))
    assert [[int(cell) for cell in row[1:]] for row in confusion.rows] == expected.tolist()
    for i, name in enumerate(names):
        assert {row[0]: row[1] for row in roc.rows}[name] == f"{roc_auc_score(truth == i, scores[:, i]):.3f}"
        assert {row[0]: row[1] for row in pr.rows}[name] == f"{average_precision_score(truth == i, scores[:, i]):.3f}"


def test_labels_of_their_own_have_no_confusion_matrix(answers: tuple[NDArray[Any], NDArray[Any]]) -> None:
    _, scores = answers
    truth = (scores > 0.3).astype(np.uint8)
    right, roc, pr, _ = charts(truth, scores, ["ant", "bee", "cow", "dog"], True)
    assert right.title == "Right and wrong answers" and right.header == (
        "name",
        "found",
        "missed",
        "wrongly said",
        "all",
    )
    found = {row[0]: int(row[1]) for row in right.rows}
    assert found["cow"] == int(((scores[:, 2] >= 0.5) & truth[:, 2].astype(bool)).sum())
    assert {row[1] for row in roc.rows} == {row[1] for row in pr.rows} == {"1.000"}


def test_of_many_classes_the_mean_and_the_worst_are_drawn() -> None:
    rng = np.random.default_rng(1)
    truth, scores = rng.integers(0, 40, 2000), rng.random((2000, 40))
    scores[np.arange(2000), truth] += np.where(truth < 5, 0.0, 2.0)
    _, roc, *_ = charts(truth, scores, [f"class {i}" for i in range(40)], False)
    assert {row[0] for row in roc.rows[:5]} == {f"class {i}" for i in range(5)}
    legend = [element.text or "" for element in ET.fromstring(roc.svg).iter("{http://www.w3.org/2000/svg}text")]
    assert sum(text.startswith("class ") for text in legend) == 5 and any(text.startswith("mean (") for text in legend)


@pytest.mark.parametrize(
    ("truth", "scores"),
    [
        (np.zeros(0, int), np.zeros((0, 2))),
        (np.zeros(3, int), np.full((3, 2), np.nan)),
    ],
    ids=["no images", "no numbers"],
)
def test_nothing_to_show_is_no_charts(truth: NDArray[Any], scores: NDArray[Any]) -> None:
    assert charts(truth, scores, ["ants", "bees"], False) == []


def test_a_class_without_images_has_no_curve() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    _, roc, _ = charts(np.array([0, 1, 1]), scores, ["ants", "bees", "wasps"], False)
    assert {row[0] for row in roc.rows} == {"ants", "bees"}


@pytest.mark.parametrize(
    ("truth", "scores"),
    [(np.zeros(3, int), np.zeros((3, 5))), (np.zeros(2, int), np.zeros((3, 2))), (np.full(3, 2), np.zeros((3, 2)))],
    ids=["other classes", "other images", "no such class"],
)
def test_predictions_that_do_not_fit_are_refused(truth: NDArray[Any], scores: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="2 classes"):
        charts(truth, scores, ["ants", "bees"], False)


# --- pictures


def photo(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(300, 200), (50, 60), (1, 1), (5000, 3)])
def test_a_thumbnail_is_never_larger_than_asked(size: tuple[int, int]) -> None:
    content = thumbnail(photo(*size), 100)
    with Image.open(BytesIO(content)) as small:
        assert max(small.size) == min(100, max(size))
    assert content == thumbnail(photo(*size), 100)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16", "F"])
def test_thumbnails_of_every_mode(mode: str) -> None:
    with Image.open(BytesIO(thumbnail(Image.new(mode, (40, 30)), 20))) as small:
        assert small.size == (20, 15)


def test_a_contact_sheet_shows_the_very_pixels_in_order() -> None:
    images = [photo(100, 100, seed) for seed in range(5)]
    sheet = np.asarray(contact_sheet(images, ["x"] * 5, columns=2))
    places = [np.argwhere((sheet == image[0, 0]).all(axis=-1)) for image in images]
    for image, found in zip(images, places, strict=True):
        assert any((sheet[y : y + 100, x : x + 100] == image).all() for y, x in found if y + 100 <= len(sheet))
    assert sheet.shape[1] < 3 * 100 + 50


@pytest.mark.parametrize("caption", HOSTILE, ids=range(len(HOSTILE)))
def test_any_caption_can_be_drawn(caption: str) -> None:
    sheet = contact_sheet([photo(100, 100)], [caption])
    assert sheet.size == contact_sheet([photo(100, 100)], ["x"]).size
    assert draw_label(photo(200, 100), caption).width == 200


def test_captions_can_be_seen() -> None:
    bare, told = (np.asarray(contact_sheet([photo(100, 100)], [caption])) for caption in ("", "ants"))
    assert (bare != told).any() and (bare[:108] == told[:108]).all()


@pytest.mark.parametrize("captions", [[], ["a", "b"]])
def test_a_sheet_wants_a_caption_for_each_image(captions: list[str]) -> None:
    with pytest.raises(ImageError, match="a caption for each image"):
        contact_sheet([photo(10, 10)], captions)


def test_a_label_covers_nothing_of_the_image() -> None:
    image = photo(200, 120)
    labelled = np.asarray(draw_label(image, "ants 98 %"))
    assert (labelled[:120] == image).all() and len(labelled) > 120
    assert (labelled[120:] != np.asarray(draw_label(image, ""))[120:]).any()


def test_a_tiny_image_is_enlarged_by_whole_pixels() -> None:
    labelled = np.asarray(draw_label(photo(32, 32), "frog"))
    assert (labelled[:160:5, ::5] == photo(32, 32)).all()
