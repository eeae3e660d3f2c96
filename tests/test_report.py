"""The page is what the folder says: no more, no less, the same bytes each time, and safe to open."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from run_folders import HOSTILE, write_json, write_run
from snellen.core.errors import RunError
from snellen.core.estimate import Estimate
from snellen.report import summary
from snellen.report.album import Album
from snellen.report.build import build_audit_report, build_report
from snellen.report.notebook import run_as_html
from snellen.report.wording import confidence, duration, percent, plain, reading

MAX_PAGE = 5_000_000  # bytes
OPTIONAL = (
    "plan.json",
    "data.json",
    "findings.json",
    "metrics.jsonl",
    "results.json",
    "environment.json",
    "predictions",
    "pictures",
)


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self._hidden = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._hidden += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def built(folder: Path) -> str:
    return build_report(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run", ["ants", "bees"])


@pytest.fixture(scope="module")
def html(run: Path) -> str:
    return built(run)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(run: Path, html: str, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "elsewhere")
    (copy / "report.html").unlink()
    assert built(copy) == html == built(run)


def test_the_report_needs_neither_torch_nor_the_images(run: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from pathlib import Path; from snellen.report.build import *; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(build_report(Path(sys.argv[1])))", str(run)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("report.html")


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/webp;base64,"))
    policies = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'") and "script-src" not in policies[0]
    outside = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert {
        value for _, a in page.elements for value in a.values() if "//" in value and "data:" not in value
    } <= outside


def test_the_verdict_comes_first_beside_both_baselines(page: Page) -> None:
    text = page.text
    places = [
        text.index(part) for part in ("Good at ants.", "93 %", "87 %", "50 %", "Remove ants.", "Images per class")
    ]
    assert places == sorted(places)
    assert "88 to 95 %" in text and "n = 40" in text


def test_every_number_is_told_with_its_n_and_interval(run: Path, html: str) -> None:
    cells = [re.sub(r"<[^>]*>", " ", cell) for cell in re.findall(r'<td class="number">(.*?<small>.*?)</td>', html)]
    told = Counter(re.sub(r"\s+", " ", cell).strip() for cell in cells)
    results = json.loads((run / "results.json").read_text())
    for split, metrics in results["splits"].items():
        for name, fields in metrics.items():
            if "/" in name and split == "val":
                continue  # class by class only on the split of the headline
            expected = reading(name, fields)
            variants = (
                f"{expected.value} {expected.interval or 'no interval'}{gap}n = {expected.n}" for gap in (" ", ", ")
            )
            assert any(told[re.sub(r"\s+", " ", variant)] for variant in variants), (split, name)
    assert all("n = " in cell and ("to" in cell or "no interval" in cell) for cell in told)


def test_headings_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_everything_can_be_read_without_seeing_it(page: Page) -> None:
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert all(image.get("alt") for image in page.all("img")) and len(page.all("img")) >= 8
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(charts) >= 7 and len(page.all("title")) == len(charts) + 1 and len(page.all("desc")) == len(charts)
    assert page.all("html") == [{"lang": "en"}]
    for _, attributes in page.elements:
        if attributes.get("tabindex") == "0" and attributes.get("role") == "region":
            assert attributes.get("aria-label")


def test_ids_are_unique_and_links_arrive(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} <= {f"#{each}" for each in ids}


def test_training_and_validation_loss_are_in_one_picture(html: str) -> None:
    loss = html[html.index("<h3>Loss</h3>") :]
    picture = loss[: loss.index("</svg>")]
    assert "training" in picture and "validation" in picture and "best: epoch 5" in picture


def test_advice_on_good_data_is_not_invented(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    write_json(copy / "findings.json", [])
    assert "No check found anything that needs mending." in built(copy)
    (copy / "findings.json").unlink()
    assert "The checks have not run yet." in built(copy)


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_part_is_left_out_of_the_page(run: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
    assert "</html>" in built(copy)


@pytest.mark.parametrize("status", ["running", "stopped", "failed"])
def test_a_run_that_is_not_done_says_so(tmp_path: Path, status: str) -> None:
    (tmp_path / "STATUS").write_text(status)
    assert 'class="note"' in built(tmp_path) and "There is no result yet." in built(tmp_path)


def test_when_the_probe_is_the_model_the_page_says_so(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    results = json.loads((copy / "results.json").read_text())
    write_json(copy / "results.json", {**results, "shipped": "linear probe", "ended": "time limit", "best_epoch": 0})
    text = Page(built(copy)).text
    assert "This model (the linear probe)" in text and "Training ended early: time limit." in text
    assert "best: epoch" not in text


def test_every_reason_of_the_plan_is_told(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    choices = {"model": "net", "preprocessing": {"fit": "squash", "input_size": [224, 224]}, "seed": 0}
    reasons = {"fit": "nothing is lost", "model": "It is light.", "standardisation": "as trained"}
    write_json(copy / "plan.json", {"version": 1, "choices": choices, "reasons": reasons})
    rows = re.findall(r'row">([^<]*)</th><td>([^<]*)</td><td class="reason">([^<]*)<', built(copy))
    assert rows == [
        ("fit", "squash", "Nothing is lost"),
        ("model", "net", "It is light."),
        ("standardisation", "–", "As trained"),
        ("seed", "0", ""),
        ("input size", "224, 224", ""),
    ]


def test_without_a_test_split_the_optimism_is_told(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    results = json.loads((copy / "results.json").read_text())
    del results["splits"]["test"]
    write_json(copy / "results.json", results)
    assert "slightly optimistic" in built(copy) and "never saw" not in built(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("results.json", b"{"),
        ("metrics.jsonl", b"not json\n{}\n"),
        ("predictions/test.safetensors", b"\x00" * 20),
    ],
)
def test_a_damaged_file_is_named(run: Path, tmp_path: Path, name: str, content: bytes) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{Path(name).name} is damaged"):
        build_report(copy)


def test_predictions_of_other_classes_are_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    arrays: dict[str, Any] = {"scores": np.zeros((3, 7), np.float32), "truth": np.zeros(3, np.int64)}
    save_file(arrays, copy / "predictions" / "test.safetensors")
    with pytest.raises(RunError, match="2 classes"):
        build_report(copy)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        build_report(tmp_path)
    with pytest.raises(RunError, match=r"no data\.json"):
        build_audit_report(tmp_path)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    alike = [f"{i:02}" + "z" * (len(name) - 2) for i, name in enumerate(HOSTILE)]
    tame = Page(built(write_run(tmp_path / "tame", alike)))
    html = built(write_run(tmp_path / "hostile", list(HOSTILE)))
    hostile = Page(html)
    kinds = [Counter(tag for tag, _ in page.elements) for page in (tame, hostile)]
    for drawing in ("g", "path", "use", "text", "defs", "tspan"):  # tick marks may differ with the width of names
        kinds[0].pop(drawing, None), kinds[1].pop(drawing, None)
    assert kinds[0] == kinds[1]
    assert {name for _, a in hostile.elements for name in a} == {name for _, a in tame.elements for name in a}
    assert "<img src=x" not in html and "{{ 7 * 7 }}" in hostile.text and "\x00" not in html and "\u202e" not in html
    assert "x" * 1000 not in html  # any text has its limit


def test_the_page_stays_small_for_any_data(tmp_path: Path) -> None:
    classes = [f"class {i} of a thousand" for i in range(1000)]
    folder = write_run(tmp_path / "run", classes, num_rows=100_000, num_test=4000, num_pictures=4, side=200)
    assert build_report(folder).stat().st_size < MAX_PAGE


def test_every_file_left_out_is_counted(tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(18)]
    text = Page(built(write_run(tmp_path / "run", classes))).text
    assert text.count("1 file : cannot be decoded") + text.count("1 file: cannot be decoded") == 11
    assert "7 files: other reasons" in text and "class 17.jpg" in text


def test_an_audit_is_told_without_training(run: Path, tmp_path: Path) -> None:
    for name in ("data.json", "findings.json"):
        shutil.copy(run / name, tmp_path / name)
    shutil.copytree(run / "pictures", tmp_path / "pictures")
    page = Page(build_audit_report(tmp_path).read_text(encoding="utf-8"))
    assert "Images per class" in page.text and "Remove ants." in page.text
    assert not {"training", "results", "mistakes", "plan", "use"} & {a.get("id") for _, a in page.elements}


def test_a_notebook_shows_the_verdict_and_the_contact_sheet(run: Path) -> None:
    page = Page(run_as_html(run))
    assert "Good at ants." in page.text and "88 to 95 %" in page.text and len(page.all("img")) == 1
    assert "<html" not in run_as_html(run)


def test_a_picture_shown_twice_is_stored_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (30, 30), "red").save(tmp_path / name)
    album = Album(tmp_path, 100_000)
    assert album.fresh("a.png", 100) is not None
    assert album.fresh("b.png", 100) is None and album.picture("b.png", 100) is not None


def test_an_album_keeps_to_its_budget_and_to_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for path in (folder / "a.png", tmp_path / "secret.png"):
        Image.fromarray(noise).save(path)
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:500])
    album = Album(folder, 1000)
    assert album.picture("a.png", 200) is None and album.refused == 1
    assert Album(folder, 10**6).picture("a.png", 200) is not None
    assert Album(folder, 10**6).picture("../secret.png", 200) is None
    assert Album(folder, 10**6).picture("broken.png", 200) is None
    assert Album(folder, 10**6).picture("missing.png", 200) is None


@pytest.mark.parametrize(
    ("fraction", "n", "text"),
    [
        (0.97386, 153, "97.4 %"),
        (0.5, 20, "50 %"),
        (0.912345, 50_000, "91.23 %"),
        (1.0, 153, "100.0 %"),
        (0.0, 9, "0 %"),
    ],
)
def test_percentages_have_the_digits_that_n_can_carry(fraction: float, n: int, text: str) -> None:
    assert percent(fraction, n).replace("\u00a0", " ") == text


def test_numbers_are_worded_for_people() -> None:
    assert [duration(seconds) for seconds in (0.4, 59, 250, 7500)] == ["0 s", "59 s", "4 min 10 s", "2 h 5 min"]
    assert confidence(0.9999).startswith("over 99") and confidence(0.62).startswith("62")
    assert plain({"flip": True, "scale": [0.5, 1.0], "note": None}) == "flip yes; scale 0.5, 1; note none"
    assert plain(list(range(100)), limit=3) == "0, 1, 2, and 97 more"
    assert reading("log_loss", Estimate(value=0.31274, n=9).to_json()).value == "0.313"


def test_the_summary_is_told() -> None:
    told: dict[str, Any] = {
        "width": {"quantiles": [20, 30, 400, 500, 600, 700, 1234], "counts": [3, 1], "edges": [20, 600, 1234]},
        "height": {"quantiles": [32] * 7, "counts": [4], "edges": [31.5, 32.5]},
        "brightness": {"quantiles": [], "counts": [], "edges": []},
        "modes": {"RGB": 5, "L": 1},
        "formats": {"JPEG": 6},
        "orientations": {"1": 4, "6": 2},
        "duplicate_sets": 1,
        "redundant_images": 2,
        "pairs_across_splits": 0,
        "groups": 3,
    }
    assert [(fact.name, fact.value, fact.note) for fact in summary.facts(told)] == [
        ("Median width", "500 px", "20 to 1,234 px"),
        ("Median height", "32 px", "all alike"),
        ("Colour mode", "RGB", "RGB 5, L 1"),
        ("File format", "JPEG", "all images"),
        ("Turned upright", "2", "as their EXIF data says"),
        ("Duplicates", "2", "in 1 set of copies"),
        ("Copies across splits", "0", ""),
        ("Groups", "3", ""),
    ]
    (chart,) = summary.charts(told)
    assert (chart.title, chart.rows) == ("Width", (("20 to 600", "3"), ("600 to 1234", "1")))


def test_without_a_summary_nothing_is_made_up() -> None:
    assert not summary.facts({}) and not summary.charts({})
