"""Predictions as files: what each kind holds, in pixels of the upright image, and which fits which task."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from predict_cases import CLASSES, NAMES, class_map, pixels_of, predictor, save_photos, tree
from snellen.core.errors import ConfigError
from snellen.draw.palette import colour_of
from snellen.predict.prediction import Prediction
from snellen.predict.predictor import Predictor
from snellen.predict.sources import Images
from snellen.predict.writers.table import WRITERS, check_fit, names_of
from snellen.predict.writing import PredictedFiles, write_predictions
from snellen.tasks.base import TASKS
from snellen.tasks.instances.object_mask import ObjectMask
from snellen.tasks.instances.target import InstanceSet

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools decodes

ANY = {"pictures", "pictures-jpg", "pictures-png", "csv", "jsonl"}
FIT = {
    "classification": ANY,
    "multilabel": ANY,
    "regression": ANY,
    "detection": ANY | {"coco", "yolo"},
    "segmentation": ANY | {"masks"},
    "instances": ANY | {"coco", "yolo", "masks"},
}
BROKEN = 2


def written(task: str, out: Path, images: Path, *formats: str, model: Predictor | None = None) -> PredictedFiles:
    return write_predictions(model or predictor(task), Images([images]), out, formats, asked={})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return save_photos(tmp_path / "photos")


def said_of(task: str, photos: Path) -> list[Prediction]:
    return list(predictor(task).predictions(Images([photos])))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_task_says_what_it_can_be_written_as() -> None:
    assert set(FIT) == set(TASKS)
    for task, fit in FIT.items():
        for name in WRITERS:
            if name in fit:
                check_fit([name], task)
                continue
            with pytest.raises(ConfigError, match=f"'{task}' cannot be written as {name}: use pictures, ") as refused:
                check_fit(["csv", name], task)
            assert set(str(refused.value).partition(": use ")[2].split(", ")) == fit


def test_names_come_with_commas_or_one_by_one_and_each_once() -> None:
    assert names_of("csv, coco") == names_of(["csv", "coco,csv"]) == ["csv", "coco"]
    with pytest.raises(ConfigError, match="predictions as 'picture' are not known; did you mean 'pictures'"):
        names_of("picture")
    with pytest.raises(ConfigError, match="no formats are named"):
        names_of([])


def test_a_format_that_does_not_fit_is_refused_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written as coco"):
        written("classification", tmp_path / "out", photos, "csv", "coco")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", NAMES)
def test_lines_are_the_predictions_and_errors_are_told_and_counted(task: str, photos: Path, tmp_path: Path) -> None:
    files = written(task, tmp_path / "out", photos, "jsonl")
    lines = files.formats["jsonl"].read_text(encoding="utf-8").splitlines()
    predictions = [prediction.to_json() for prediction in said_of(task, photos)]
    assert [json.loads(line) for line in lines] == predictions
    broken = [each for each in predictions if "error" in each]
    assert list(files.errors()) == broken and len(broken) == files.num_errors == BROKEN
    assert files.num_images == len(predictions)


def test_without_errors_there_is_no_file_of_them(tmp_path: Path) -> None:
    files = written("detection", tmp_path / "out", save_photos(tmp_path / "photos", broken=()), "csv", "coco")
    assert list(files.errors()) == [] and files.num_errors == 0
    assert set(tree(tmp_path / "out")) == {"predictions.csv", "coco.json", "progress.json"}


COLUMNS = {
    "classification": ["label", "confidence", *(f"p:{name}" for name in CLASSES)],
    "multilabel": ["labels", *(f"p:{name}" for name in CLASSES)],
    "regression": list(CLASSES),
    "detection": ["label", "confidence", "x0", "y0", "x1", "y1"],
    "instances": ["label", "confidence", "x0", "y0", "x1", "y1", "area"],
    "segmentation": ["width", "height", "confidence", *(f"share:{name}" for name in CLASSES)],
}


def cells_of(task: str, result: dict[str, Any]) -> list[list[Any]]:
    """What the rows of an image must hold, by its description."""
    if "objects" in result:
        keys = ("label", "confidence", "box", "area")[: 4 if task == "instances" else 3]
        return [list(np.hstack([np.array(each[key], object) for key in keys])) for each in result["objects"]]
    if task == "segmentation":
        shares = [result["shares"].get(name, 0.0) for name in CLASSES]
        return [[*result["size"], result["confidence"], *shares]]
    if task == "regression":
        return [[result["values"][name] for name in CLASSES]]
    first = [result["label"], result["confidence"]] if task == "classification" else ["|".join(result["labels"])]
    return [[*first, *(result["probabilities"][name] for name in CLASSES)]]


@pytest.mark.parametrize("task", NAMES)
def test_the_table_has_a_row_an_image_or_object_and_one_for_each_error(task: str, photos: Path, tmp_path: Path) -> None:
    rows = rows_of(written(task, tmp_path / "out", photos, "csv").formats["csv"])
    assert list(rows[0]) == ["image", *COLUMNS[task], "error"]
    expected: list[tuple[str, list[Any], str]] = []
    for prediction in said_of(task, photos):
        if prediction.result is None:
            expected.append((prediction.path, [""] * len(COLUMNS[task]), str(prediction.error)))
        else:
            expected += [(prediction.path, cells, "") for cells in cells_of(task, prediction.result)]
    assert len(rows) == len(expected)
    for row, (path, cells, error) in zip(rows, expected, strict=True):
        assert (row["image"], row["error"]) == (path, error)
        for name, cell in zip(COLUMNS[task], cells, strict=True):
            assert row[name] == cell if isinstance(cell, str) else float(row[name]) == pytest.approx(cell, rel=1e-6)


def as_coco(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize("task", ["detection", "instances"])
def test_coco_reads_what_was_found(task: str, photos: Path, tmp_path: Path) -> None:
    coco = as_coco(written(task, tmp_path / "out", photos, "coco").formats["coco"])
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    readable = [prediction for prediction in said_of(task, photos) if prediction.result is not None]
    assert [str(photos / each["file_name"]) for each in coco.loadImgs(coco.getImgIds())] == [p.path for p in readable]
    for image, prediction in zip(coco.loadImgs(coco.getImgIds()), readable, strict=True):
        assert prediction.result is not None
        assert [image["width"], image["height"]] == prediction.result["size"]
        found = coco.loadAnns(coco.getAnnIds(image["id"]))
        assert len(found) == len(prediction.result["objects"])
        for each, told in zip(found, prediction.result["objects"], strict=True):
            x, y, width, height = each["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(told["box"], abs=0.011)
            assert CLASSES[each["category_id"] - 1] == told["label"] and each["score"] == told["confidence"]
            if task == "instances":
                x0, y0, x1, y1 = np.ceil(np.array(told["box"]) - 0.5).astype(int)
                mask = np.zeros((image["height"], image["width"]), np.uint8)
                mask[y0:y1, x0:x1] = 1
                assert np.array_equal(coco.annToMask(each), mask) and each["area"] == mask.sum()
    with contextlib.redirect_stdout(io.StringIO()):
        results = coco.loadRes(coco.dataset["annotations"])
    assert len(results.anns) == len(coco.anns) > 0


def test_yolo_tells_boxes_as_shares_of_the_image(photos: Path, tmp_path: Path) -> None:
    files = written("detection", tmp_path / "out", photos, "yolo")
    assert (tmp_path / "out" / "classes.txt").read_text(encoding="utf-8").splitlines() == list(CLASSES)
    readable = [prediction for prediction in said_of("detection", photos) if prediction.result is not None]
    labels = {Path(prediction.path).relative_to(photos).with_suffix(".txt"): prediction for prediction in readable}
    assert set(tree(files.formats["yolo"])) == set(map(str, labels))
    for name, prediction in labels.items():
        assert prediction.result is not None
        width, height = prediction.result["size"]
        lines = (files.formats["yolo"] / name).read_text().splitlines()
        for line, told in zip(lines, prediction.result["objects"], strict=True):
            kind, cx, cy, w, h, score = map(float, line.split())
            box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
            assert box == pytest.approx(told["box"], abs=1e-3) and score == pytest.approx(told["confidence"], abs=1e-6)
            assert CLASSES[int(kind)] == told["label"]


def test_masks_of_classes_hold_the_map_and_say_what_values_mean(photos: Path, tmp_path: Path) -> None:
    files = written("segmentation", tmp_path / "out", photos, "masks")
    meaning = json.loads((tmp_path / "out" / "classes.json").read_text(encoding="utf-8"))
    assert [(each["value"], each["class"]) for each in meaning] == list(enumerate(CLASSES))
    masks = tree(files.formats["masks"])
    assert len(masks) == len(said_of("segmentation", photos)) - BROKEN
    for name in masks:
        mask = Image.open(files.formats["masks"] / name)
        assert mask.mode == "P" and np.array_equal(np.asarray(mask), class_map(pixels_of(photos / name)))
        for each in meaning:
            palette = np.array(mask.getpalette()).reshape(-1, 3)
            assert palette[each["value"]].tolist() == each["colour"] == list(colour_of(each["value"]))


def test_masks_of_objects_hold_their_numbers_the_surest_in_front(photos: Path, tmp_path: Path) -> None:
    files = written("instances", tmp_path / "out", photos, "masks")
    for prediction in said_of("instances", photos):
        path = files.formats["masks"] / Path(prediction.path).relative_to(photos)
        if prediction.result is None:
            assert not path.exists()
            continue
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert [(each["class"], each["confidence"]) for each in told] == [
            (each["label"], each["confidence"]) for each in prediction.result["objects"]
        ]
        expected = np.zeros(prediction.result["size"][::-1], np.uint8)
        for number, box in reversed([(each["value"], each["box"]) for each in told]):
            x0, y0, x1, y1 = np.ceil(np.array(box) - 0.5).astype(int)
            expected[y0:y1, x0:x1] = number
        assert np.array_equal(np.asarray(Image.open(path)), expected)


def test_a_mask_of_very_many_objects_has_sixteen_bits(tmp_path: Path) -> None:
    class Crowd:
        def __getattr__(self, name: str) -> Any:
            return getattr(eyes, name)

        def decide(self, seen: Sequence[Any]) -> list[InstanceSet]:
            boxes = np.array([[x, 0, x + 1, 4] for x in range(300)], np.float32)
            masks = [ObjectMask.of_box(tuple(box), (300, 4)) for box in boxes.tolist()]
            row = np.zeros(300, np.int64), np.linspace(1, 0.5, 300, dtype=np.float32)
            return [InstanceSet.predicted((300, 4), masks, boxes, *row) for _ in seen]

    eyes = predictor("instances")._answering
    Image.new("RGB", (300, 4)).save(tmp_path / "crowd.png")
    files = written("instances", tmp_path / "out", tmp_path / "crowd.png", "masks", model=Predictor(Crowd()))
    mask = Image.open(files.formats["masks"] / "crowd.png")
    assert mask.mode == "I;16" and np.array_equal(np.asarray(mask), np.tile(np.arange(1, 301), (4, 1)))


SHAPES = [("pictures", "WEBP", ".webp"), ("pictures-jpg", "JPEG", ".jpg"), ("pictures-png", "PNG", ".png")]


@pytest.mark.parametrize(("name", "kind", "suffix"), SHAPES)
def test_pictures_lie_as_the_images_do_and_broken_ones_have_none(
    name: str, kind: str, suffix: str, photos: Path, tmp_path: Path
) -> None:
    files = written("detection", tmp_path / "out", photos, name)
    readable = [prediction for prediction in said_of("detection", photos) if prediction.result is not None]
    expected = {str(Path(each.path).relative_to(photos).with_suffix(suffix)): each for each in readable}
    assert set(tree(files.formats[name])) == set(expected)
    for path, prediction in expected.items():
        drawn = prediction.picture()
        picture = Image.open(files.formats[name] / path)
        assert drawn is not None and (picture.format, picture.size) == (kind, drawn.size)
        difference = np.abs(np.asarray(picture.convert("RGB"), float) - np.asarray(drawn, float)).mean()
        assert difference <= (0 if kind == "PNG" else 12)


def test_places_are_those_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise brings it upright
    lying = np.zeros((20, 40, 3), np.uint8)
    lying[:, :20, 0], lying[:, 20:, 2] = 250, 250  # the top half is red once it is upright
    Image.fromarray(lying).save(tmp_path / "phone.png", exif=exif)
    maps = written("segmentation", tmp_path / "maps", tmp_path / "phone.png", "masks").formats["masks"]
    mask = np.asarray(Image.open(maps / "phone.png"))
    assert mask.shape == (40, 20) and (mask[:20] == 0).all() and (mask[20:] == 2).all()
    coco = as_coco(written("instances", tmp_path / "found", tmp_path / "phone.png", "coco").formats["coco"])
    assert (coco.imgs[1]["width"], coco.imgs[1]["height"]) == (20, 40)
    assert coco.anns[1]["bbox"] == [1, 2, 19, 37]
    assert np.array_equal(np.argwhere(coco.annToMask(coco.anns[1]))[[0, -1]], [[2, 1], [38, 19]])


ODD = ["new\nline", 'quo"te,', "=cmd()", "\udcff", "\x1b[31m", "日本🐕"]


def test_odd_names_come_back_from_tables_and_lines(tmp_path: Path) -> None:
    for name in ODD:
        (tmp_path / "photos").mkdir(exist_ok=True)
        with open(tmp_path / "photos" / f"{name}.png", "wb") as file:
            Image.new("RGB", (6, 5), "red").save(file, "PNG")
    names = [f"{name}.png" for name in sorted(ODD)]
    files = written("detection", tmp_path / "out", tmp_path / "photos", "jsonl", "csv", "coco", "yolo")
    lines = files.formats["jsonl"].read_text(encoding="utf-8").splitlines()
    assert [Path(json.loads(line)["path"]).name for line in lines] == names
    found = json.loads(files.formats["coco"].read_text(encoding="utf-8"))
    assert [each["file_name"] for each in found["images"]] == names
    rows = [Path(row["image"]).name for row in rows_of(files.formats["csv"])]
    assert rows == [name.replace("\udcff", "\\udcff") for name in names for _ in range(2)]
    assert len(tree(files.formats["yolo"])) == len(ODD)


def test_an_image_that_is_gone_when_it_is_to_be_drawn_has_no_picture(photos: Path, tmp_path: Path) -> None:
    images = Images([photos])
    model = predictor("detection")
    answers = list(model.answers(images))
    (photos / "a" / "000.png").unlink()
    writer = WRITERS["pictures-png"](tmp_path / "out", model.task, {})
    for answer in answers:
        writer.add(answer)
    assert len(tree(tmp_path / "out")) == len(answers) - BROKEN - 1
