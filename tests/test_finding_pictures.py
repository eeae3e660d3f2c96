"""A finding shows the images it names: few, small, pairs side by side, each with what is said and what is proposed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from run_folders import HOSTILE, write_run
from shapes import save_folders
from snellen.audit import pictures
from snellen.audit.pictures import save_pictures
from snellen.core.annotation import Annotation
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.finding import CERTAINTIES, Finding
from snellen.core.record import Listing, Record
from snellen.core.run import RunFolder
from snellen.data.survey import Survey, read_listing, survey
from snellen.report.build import build_audit_report, build_report
from snellen.report.findings import CERTAINTY_NAMES

MAX_PAGE = 5_000_000  # bytes


def a_finding(code: str, images: Sequence[str], **more: Any) -> Finding:
    return Finding(**{"code": code, "severity": "warning", "message": "M.", "advice": "A.", "images": images, **more})


def known(folder: Path, per_class: int, cache: Path) -> Survey:
    save_folders(folder, per_class=per_class, side=200)
    config = Config.of(data=str(folder))
    name, listing = read_listing(config, cache)
    return survey(name, listing, config, console=Console(quiet=True), workers=1)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    place = tmp_path_factory.mktemp("pictures")
    return known(place / "shapes", 12, place / "cache")


def saved(run: RunFolder) -> dict[str, tuple[int, ...]]:
    """Name and shape of every picture of the findings."""
    return {path.name: pixels(path).shape for path in (run.pictures / "findings").glob("*")}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ---- what is stored


def test_each_image_is_stored_once_and_small_and_what_cannot_be_read_is_passed_over(
    shapes: Survey, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    gone = "circle/003.png"
    moved = shapes.records[gone].path.rename(tmp_path / "moved.png")
    found = [
        a_finding("a", ["circle/001.png", gone, "broken.png"]),
        a_finding("b", ["circle/001.png", "square/001.png"]),
    ]
    save_pictures(run, shapes, found)
    moved.rename(shapes.records[gone].path)
    assert saved(run) == {run.picture_of(each).name: (160, 160, 3) for each in ("circle/001.png", "square/001.png")}


def test_no_finding_has_more_than_its_share_and_all_have_not_more_than_theirs(
    shapes: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(shapes.records)
    save_pictures(RunFolder(tmp_path / "one"), shapes, [a_finding("a", every)])
    assert set(saved(RunFolder(tmp_path / "one"))) == {RunFolder(tmp_path).picture_of(each).name for each in every[:24]}
    monkeypatch.setattr(pictures, "_MOST_OF_ALL", 30)
    save_pictures(RunFolder(tmp_path / "all"), shapes, [a_finding("a", every), a_finding("b", every[::-1])])
    assert len(saved(RunFolder(tmp_path / "all"))) == 30
    largest = max(path.stat().st_size for path in (tmp_path / "one").rglob("*.webp"))
    monkeypatch.setattr(pictures, "_MOST_BYTES", 3 * largest)
    save_pictures(RunFolder(tmp_path / "bytes"), shapes, [a_finding("a", every)])
    files = list((tmp_path / "bytes").rglob("*.webp"))
    assert 0 < len(files) < 24 and sum(path.stat().st_size for path in files) <= 3 * largest


def test_what_is_marked_is_drawn(tmp_path: Path) -> None:
    grey = np.full((400, 400, 3), 128, np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    box = Annotation(label="dog", box=(50, 50, 350, 350))
    records = {
        name: Record(id=name, path=tmp_path / "a.png", labels=("dog",), objects=objects, size=(400, 400))
        for name, objects in (("with", (box,)), ("without", ()))
    }
    listing = Listing(root=tmp_path, format="made", records=list(records.values()), classes=("dog",), multi_label=True)
    manifest = MappingProxyType({"classes": ("dog",)})
    survey = Marked(listing, records, manifest)
    run = RunFolder(tmp_path / "run")
    save_pictures(run, survey, [a_finding("a", list(records))], "detection")  # type: ignore[arg-type]
    with_box, without = (pixels(run.picture_of(name)) for name in records)
    assert with_box.shape == without.shape == (320, 320, 3)
    assert np.ptp(without) < 10 and np.ptp(with_box) > 50
    overlooked = {"image": "without", "box": [100, 200, 200, 300], "given": "nothing", "suggested": "dog"}
    suspect = a_finding("suspect-boxes", ["without"], evidence={"objects": [overlooked]})
    save_pictures(run, survey, [suspect], "detection")  # type: ignore[arg-type]
    changed = np.abs(pixels(run.picture_of("without")).astype(int) - without).max(axis=2) > 60
    rows, columns = np.nonzero(changed)
    place = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
    assert np.abs(place - [80, 160, 160, 240]).max() <= 2


class Marked:
    """What ``save_pictures`` needs to know of a survey."""

    def __init__(self, listing: Listing, records: Mapping[str, Record], manifest: Mapping[str, Any]) -> None:
        self.listing, self.records = listing, records
        self.manifest = type("Manifest", (), dict(manifest))()


# ---- what is shown


def an_audit(folder: Path, findings: Sequence[Finding], *, shown: Sequence[str] = (), side: int = 64) -> str:
    """The page of an audit of ``findings`` on rows of two classes, with pictures of noise for the ids ``shown``."""
    run = RunFolder(folder)
    folder.mkdir()
    ids = [f"{i}.jpg" for i in range(30)]
    rows = [
        {"id": each, "labels": [("ant", "bee")[i % 2]], "split": ("train", "test")[i % 2]} for i, each in enumerate(ids)
    ]
    run.write_json("data.json", {"name": "photos", "manifest": {"classes": ["ant", "bee"], "rows": rows}})
    run.write_findings(findings)
    (run.pictures / "findings").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for each in shown:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(run.picture_of(each), "WEBP")
    return build_audit_report(folder).read_text(encoding="utf-8")


def captions(html: str) -> list[str]:
    """What stands below each picture of the findings, in order; '-' before those without one."""
    part = html.partition('id="findings"')[2]
    found = re.findall(r"<figure>(.*?)</figure>", part, re.DOTALL)
    return [
        ("" if "<img" in each else "- ") + re.sub(r"(?:<[^>]*>|\s)+", " ", each.partition("<figcaption>")[2]).strip()
        for each in found
    ]


def test_pairs_stand_side_by_side_in_the_order_of_the_evidence_with_side_and_class(tmp_path: Path) -> None:
    pairs = [["0.jpg", "1.jpg", "near", 0.98], ["0.jpg", "3.jpg", "exact", 1.0]]
    finding = a_finding("near-duplicates", ["0.jpg", "1.jpg", "3.jpg"], evidence={"pairs": pairs})
    html = an_audit(tmp_path / "audit", [finding], shown=["0.jpg", "1.jpg", "3.jpg"])
    assert captions(html) == [
        "ant · training 0.jpg",
        "bee · test 1.jpg",
        "ant · training 0.jpg",
        "bee · test 3.jpg",
    ]
    assert html.count('class="together"') == 2 and 'class="seen pairs"' in html


def test_single_images_stand_alone_with_what_is_proposed_for_them(tmp_path: Path) -> None:
    overlay = [
        {"image": "0.jpg", "action": "relabel", "value": "bee"},
        {"image": "1.jpg", "action": "leave out"},
        {"image": "2.jpg", "action": "relabel", "value": ["ant", "bee"]},
    ]
    finding = a_finding("suspect-labels", ["0.jpg", "1.jpg", "2.jpg"], treatment={"overlay": overlay})
    html = an_audit(tmp_path / "audit", [finding], shown=["0.jpg", "1.jpg", "2.jpg"])
    assert captions(html) == [
        "ant · training relabel: bee 0.jpg",
        "bee · test leave out 1.jpg",
        "ant · training relabel: ant, bee 2.jpg",
    ]


def test_a_few_are_shown_at_once_and_the_others_are_unfolded(tmp_path: Path) -> None:
    ids = [f"{i}.jpg" for i in range(30)]
    html = an_audit(tmp_path / "audit", [a_finding("odd-sizes", ids)], shown=ids)
    assert len(captions(html)) == 24
    assert "16 more pictures" in html and len(captions(html.partition("16 more pictures")[0])) == 8


def test_a_pair_of_which_one_cannot_be_shown_says_so_and_images_without_pictures_are_only_named(tmp_path: Path) -> None:
    pairs = [["0.jpg", "1.jpg", "near", 0.98], ["2.jpg", "3.jpg", "near", 0.98]]
    finding = a_finding("near-duplicates", [f"{i}.jpg" for i in range(4)], evidence={"pairs": pairs})
    html = an_audit(tmp_path / "audit", [finding], shown=["1.jpg"])
    assert captions(html) == ["- ant · training 0.jpg", "bee · test 1.jpg"]
    assert "<li>3.jpg</li>" in html


def test_a_folder_without_pictures_is_told_as_before(tmp_path: Path) -> None:
    html = build_report(write_run(tmp_path / "run", ["ants", "bees"])).read_text()
    assert not captions(html) and "ants is in both." in html


def test_how_sure_a_finding_is_stands_beside_how_severe_it_is(tmp_path: Path) -> None:
    assert set(CERTAINTY_NAMES) == set(CERTAINTIES)
    found = [a_finding(f"code-{each}", [], certainty=each) for each in CERTAINTIES]
    text = re.sub(r"(?:<[^>]*>|\s)+", " ", an_audit(tmp_path / "audit", found))
    assert "Warning code-certain certain M." in text
    assert "Warning code-confirmed confirmed by an experiment M." in text
    assert "Warning code-observed a sign, not a proof M." in text
    assert "docs/findings/code-observed.md" in text


def test_a_page_full_of_pictures_keeps_its_size(tmp_path: Path) -> None:
    ids = [f"{i}.jpg" for i in range(30)]
    found = [a_finding(f"code-{i}", ids) for i in range(9)]
    html = an_audit(tmp_path / "audit", found, shown=ids, side=160)
    assert 20 < len([each for each in captions(html) if not each.startswith("-")])
    assert len(html.encode()) < 1_500_000
    whole = write_run(tmp_path / "run", [f"class {i}" for i in range(40)], num_pictures=3, side=200)
    run = RunFolder(whole)
    run.write_findings(found)
    (run.pictures / "findings").mkdir()
    for each in ids:
        run.picture_of(each).write_bytes(RunFolder(tmp_path / "audit").picture_of(each).read_bytes())
    assert build_report(whole).stat().st_size < MAX_PAGE


def test_the_findings_of_a_cross_validation_show_the_pictures_of_its_first_fold(tmp_path: Path) -> None:
    finding = a_finding("odd-sizes", ["0.jpg"])
    an_audit(tmp_path / "run", [finding], shown=["0.jpg"])
    run = RunFolder(tmp_path / "run")
    (run.path / "fold-1").mkdir()
    run.pictures.rename(run.path / "fold-1" / "pictures")
    assert captions(build_audit_report(run.path).read_text()) == ["ant · training 0.jpg"]


def test_hostile_names_labels_and_changes_are_only_text(tmp_path: Path) -> None:
    found = [
        a_finding(
            "hostile",
            [name],
            evidence={"pairs": [[name, name], name, [HOSTILE[0], name, HOSTILE[1]], 3]},
            treatment={"overlay": [{"image": name, "action": name, "value": name}]},
        )
        for name in HOSTILE
    ]
    folder = tmp_path / "audit"
    an_audit(folder, [], shown=())
    run = RunFolder(folder)
    (folder / "findings.json").write_text(json.dumps([each.to_json() for each in found]))  # escapes lone surrogates
    rows = [{"id": name, "labels": [name], "split": "train"} for name in HOSTILE]
    (folder / "data.json").write_text(json.dumps({"name": "x", "manifest": {"classes": list(HOSTILE), "rows": rows}}))
    for name in HOSTILE:
        Image.new("RGB", (9, 9)).save(run.picture_of(name), "WEBP")
    html = build_audit_report(folder).read_text(encoding="utf-8")
    assert len(captions(html)) >= len(HOSTILE)
    page = Elements(html)
    assert not {"script", "base", "iframe", "link"} & {tag for tag, _ in page.found}
    assert not [name for _, attributes in page.found for name in attributes if name.startswith("on")]
    assert all(attributes["src"].startswith("data:image/webp") for tag, attributes in page.found if tag == "img")
    assert "\u202e" not in html and "\x00" not in html


class Elements(HTMLParser):
    """What a browser would make of a page: its elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))
