"""What the web page of the server promises, in a real browser: Debian's Chromium without a window."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

import page_browser as browsing
from page_browser import (
    CELLS,
    FOUND,
    HOSTILE,
    MODEL,
    ONE,
    SCRIPT,
    StandIn,
    choose,
    data_uri,
    file,
    hand_over,
    is_narrow,
    refusal,
    visiting,
)
from serve_cases import Shades, listening, plain, served
from snellen.core.estimate import is_share, told
from snellen.core.masks import encode, runs_to_text
from snellen.report.wording import METRICS
from snellen.serve.address import Access

pytestmark = pytest.mark.skipif(browsing.CHROMIUM is None, reason="no Chromium is installed to show the page")

REFUSED = ("Failed to load resource",)  # what Chromium says of each answer that is an error


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running() -> Iterator[StandIn]:
    with browsing.serving(StandIn()) as stand_in:
        yield stand_in


@pytest.fixture
def server(running: StandIn) -> StandIn:
    return running.anew()


def test_chosen_image_is_sent_as_it_is_and_its_label_and_bars_are_shown(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address) as page:
        choose(page, file("bee.jpg", browsing.jpeg()))
        article = page.get_by_role("article")
        expect(article.locator(".verdict")).to_have_text("bees 90.0 % sure")
        rows = article.get_by_role("list", name="How likely").get_by_role("listitem")
        assert rows.all_text_contents() == ["bees 90.0 %", "ants 10.0 %"]
        widths = [row.bounding_box()["width"] for row in article.locator(".fill").all()]  # type: ignore[index]
        assert widths[0] == pytest.approx(9 * widths[1], rel=0.02)
        expect(article.get_by_role("img", name="bee.jpg")).to_be_visible()
        expect(page.get_by_role("status").last).to_have_text("bee.jpg: bees, 90.0 % sure")
    (asked,) = server.asked
    assert (asked.verb, asked.model, asked.content_type) == ("predict", "ants", "image/jpeg")
    assert asked.body == browsing.jpeg()


def test_images_are_dropped_and_pasted(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address) as page:
        expect(page.locator("#main")).to_be_visible()
        hand_over(page, "drop", "dropped.png")
        hand_over(page, "paste", "pasted.png")
        expect(page.locator("article .verdict")).to_have_count(2)
        assert page.locator("article .file").all_text_contents() == ["pasted.png", "dropped.png"]
    assert [asked.body for asked in server.asked] == [b"dropped.png", b"pasted.png"]


def test_several_files_are_asked_one_after_another_and_saved_together(browser: Browser, server: StandIn) -> None:
    async def slowly(asked: browsing.Asked) -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return ONE

    server.reply, names = slowly, ["a.jpg", "b.jpg", "c.xyz"]
    with visiting(browser, server.address) as page:
        choose(page, *(file(name, name.encode(), "image/jpeg" if "jpg" in name else "") for name in names))
        expect(page.locator("article .verdict")).to_have_count(3)
        assert page.locator("article .file").all_text_contents() == names
        with page.expect_download() as download:
            page.get_by_role("button", name="Save all as JSON").click()
        saved = json.loads(Path(download.value.path()).read_text())
        page.get_by_role("button", name="Remove b.jpg").click()
        assert page.locator("article .file").all_text_contents() == ["a.jpg", "c.xyz"]
    assert [asked.body for asked in server.asked] == [name.encode() for name in names]
    assert server.asked[-1].content_type in ("application/octet-stream", "chemical/x-xyz")
    assert server.at_once == {1}
    assert saved == [{"file": name, **ONE} for name in names]


def test_hostile_names_are_text(browser: Browser, server: StandIn) -> None:
    shares = {name: 1 / len(HOSTILE) for name in HOSTILE}
    server.models = [browsing.HOSTILE_MODEL]
    server.reply = lambda asked: {**ONE, "label": HOSTILE[2], "probabilities": shares, "picture": "javascript:alert(2)"}
    with visiting(browser, server.address, viewport={"width": 320, "height": 600}) as page:
        choose(page, *(file(name.replace("\x00", "0").replace("/", ":")) for name in HOSTILE))
        expect(page.locator("article .verdict")).to_have_count(len(HOSTILE))
        assert page.locator("article").first.locator(".bars .name").all_text_contents() == HOSTILE
        assert page.locator("img, main script").count() == 0
        assert is_narrow(page)
        page.locator("summary", has_text="All numbers").click()
        assert is_narrow(page)


def test_every_answer_of_the_real_server_fits_a_small_phone(browser: Browser) -> None:
    models = served(**{task: Shades(task) for task in browsing.REAL})
    with listening(models) as server:
        phone: dict[str, Any] = {"viewport": {"width": 320, "height": 600}}
        with visiting(browser, f"http://127.0.0.1:{server.port}", **phone) as page:
            for task, words in browsing.REAL.items():
                page.get_by_label("Model", exact=True).select_option(task)
                choose(page, file("red.png", plain(200), "image/png"))
                expect(page.get_by_role("article").first).to_contain_text(words)
                assert is_narrow(page)
            expect(page.get_by_role("article")).to_have_count(len(browsing.REAL))
            assert browsing.nameless(page) == []


def test_slider_hides_boxes_on_the_picture_and_in_the_list(browser: Browser, server: StandIn) -> None:
    server.models, server.reply = [CELLS], lambda asked: FOUND
    with visiting(browser, server.address) as page:
        choose(page)
        boxes, rows = page.locator("article .box"), page.locator("article .bars li")
        expect(boxes).to_have_count(3)
        assert rows.all_text_contents() == ["bee 90.0 %", "bee 60.0 %", "ant 40.0 %"]
        slider = page.get_by_role("slider", name="Show if at least this sure")
        slider.fill("50")
        expect(boxes).to_have_count(2)
        assert rows.all_text_contents() == ["bee 90.0 %", "bee 60.0 %"]
        expect(page.locator("article .verdict")).to_have_text("2 bee")
        slider.press("Home")
        expect(boxes).to_have_count(3)


def test_outlines_are_drawn_where_the_masks_are(browser: Browser, server: StandIn) -> None:
    rng = np.random.default_rng(7)
    pixels = np.kron(rng.random((12, 16)) < 0.4, np.ones((4, 4))).astype(bool)
    rle = encode(pixels)
    shape = {"size": list(rle.size), "counts": runs_to_text(rle.counts)}
    bee = {"label": "bee", "confidence": 0.9, "box": [0, 0, 64, 48], "segmentation": shape}
    server.models = [{**CELLS, "task": "instances"}]
    server.reply = lambda asked: {"size": [64, 48], "objects": [bee]}
    with visiting(browser, server.address) as page:
        choose(page)
        expect(page.locator("article .verdict")).to_have_text("1 bee")
        drawn = page.locator("article canvas").last.evaluate(
            "(node) => [...node.getContext('2d').getImageData(0, 0, 64, 48).data].filter((_, i) => i % 4 === 3)"
        )
    assert np.array_equal(np.array(drawn).reshape(48, 64) > 0, pixels)


def test_explanation_takes_the_place_of_the_picture_until_it_is_put_away(browser: Browser, server: StandIn) -> None:
    map_of_it = {"picture": data_uri(), "about": "Covering the wing changed the answer most."}
    server.reply = lambda asked: map_of_it if asked.verb == "explain" else ONE
    with visiting(browser, server.address) as page:
        choose(page)
        explain = page.get_by_role("button", name="Explain")
        explain.click()
        expect(explain).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_role("article")).to_contain_text("Covering the wing")
        expect(page.get_by_role("img", name="what its answer rests on")).to_be_visible()
        assert page.locator("article canvas").is_hidden()
        explain.click()
        expect(page.locator("article canvas")).to_be_visible()
    assert [asked.verb for asked in server.asked] == ["predict", "explain"]


def test_model_is_told_with_its_numbers_and_weaknesses(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address) as page:
        card = page.get_by_role("region", name="About this model")
        for words in ("94.8 %", "153 validation pictures", "within 90.0 to 97.3 % (95 % interval)", "245 images"):
            expect(card).to_contain_text(words)
        expect(card.locator(".points").first).to_have_text("Serious: Copies lie on both sides. Move them.")
        assert not card.get_by_text("Some are small.").is_visible()
        page.locator("summary", has_text="All numbers").click()
        row = card.get_by_role("row").filter(has_text="Recall of ants")
        assert row.get_by_role("cell").all_text_contents() == ["100.0 %", "–", "70"]


def test_metrics_are_worded_as_in_the_reports(browser: Browser, server: StandIn) -> None:
    ask = "(names) => import('/page/words.js').then((w) => names.map((n) => [w.isShare(n), w.metricValue(n, 0.03217)]))"
    with visiting(browser, server.address) as page:
        worded = page.evaluate(ask, list(METRICS))
    assert worded == [[is_share(name), told(name, 0.03217)] for name in METRICS]


def test_chosen_model_is_asked(browser: Browser, server: StandIn) -> None:
    server.models = [MODEL, {**MODEL, "name": "a&b", "classes": ["cats"]}]
    with visiting(browser, server.address) as page:
        page.get_by_label("Model", exact=True).select_option("a&b")
        expect(page.locator("#lead")).to_contain_text("cats")
        choose(page)
        expect(page.get_by_role("article")).to_contain_text("Answered by a&b")
    assert [asked.model for asked in server.asked] == ["a&b"]


REFUSALS = [
    (refusal(413, "the file has 61 MB"), "This picture is too large", "The file has 61 MB"),
    (refusal(422, "the file is cut off"), "could not read this as a picture", "The file is cut off"),
    (refusal(429, SCRIPT), "Too many pictures at once", SCRIPT),
    (refusal(503, "busy", retry_after=900), "The server is busy", "Try again"),
]


def test_refusals_are_said_with_the_servers_reason(browser: Browser, server: StandIn) -> None:
    server.reply = lambda asked: REFUSALS[len(server.asked) - 1][0]
    with visiting(browser, server.address, expected=REFUSED) as page:
        choose(page, *[file()] * len(REFUSALS))
        for i, (_, title, detail) in enumerate(REFUSALS):
            expect(page.get_by_role("article").nth(i)).to_contain_text(title)
            expect(page.get_by_role("article").nth(i)).to_contain_text(detail)
        expect(page.get_by_role("alert")).to_contain_text("The server is busy. Busy")
        assert page.get_by_role("button", name="Try again").count() == 2  # not where it would be the same again


def test_file_that_is_refused_before_it_was_read_is_said_to_be_too_large(
    browser: Browser, server: StandIn, tmp_path: Path
) -> None:
    server.largest = 10**6
    (tmp_path / "huge.jpg").write_bytes(bytes(30_000_000))
    with visiting(browser, server.address, expected=REFUSED) as page:
        expect(page.locator("#main")).to_be_visible()
        page.locator("#files").set_input_files(tmp_path / "huge.jpg")
        expect(page.get_by_role("article")).to_contain_text("This picture is too large for this server")
    assert server.asked == []


def test_busy_server_is_asked_again_after_the_time_it_named(browser: Browser, server: StandIn) -> None:
    server.reply = lambda asked: ONE if len(server.asked) > 1 else refusal(503, "busy", retry_after=1)
    with visiting(browser, server.address, expected=REFUSED) as page:
        choose(page)
        expect(page.get_by_role("article")).to_contain_text("It is asked again in 1 s")
        expect(page.locator("article .verdict")).to_contain_text("bees")


def test_server_that_is_gone_is_said_and_another_try_can_succeed(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address, expected=REFUSED) as page:
        page.route("**/predict*", lambda route: route.abort("connectionrefused"))
        choose(page)
        expect(page.get_by_role("article")).to_contain_text("The server cannot be reached")
        page.unroute("**/predict*")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("article .verdict")).to_contain_text("bees")


def test_token_is_asked_for_until_it_is_right(browser: Browser, server: StandIn) -> None:
    server.access = Access(token="correct-horse")
    with visiting(browser, server.address, expected=REFUSED) as page:
        for token in ("wrong-horse", "correct-horse"):
            page.get_by_label("Token").fill(token)
            page.keyboard.press("Enter")
        choose(page)
        expect(page.locator("article .verdict")).to_contain_text("bees")


def test_keyboard_is_enough(browser: Browser, server: StandIn) -> None:
    hold = browsing.Hold()
    server.reply = hold.reply(ONE)
    with visiting(browser, server.address) as page:
        expect(page.locator("#main")).to_be_visible()
        with page.expect_file_chooser() as chooser:
            page.keyboard.press("Tab")
            expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
            assert page.locator(":focus").evaluate("(node) => getComputedStyle(node).outlineStyle") == "solid"
            page.keyboard.press("Enter")
        chooser.value.set_files([file()])
        expect(page.get_by_role("progressbar")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("article")).to_contain_text("Cancelled")
        hold.release()
        visited = []
        for _ in range(5):
            page.keyboard.press("Tab")
            visited.append(page.locator(":focus").evaluate("(node) => node.textContent"))
        assert visited[:3] == ["Use the camera", "Try again", "Remove"]
        page.get_by_role("button", name="Try again").press("Space")
        expect(page.locator("article .verdict")).to_contain_text("bees")
        expect(page.get_by_role("button", name="Explain")).to_be_focused()


def test_camera_sends_a_frame_and_is_switched_off(browser: Browser, server: StandIn) -> None:
    keep = """const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (wanted) => (window.seen = await ask(wanted));"""
    with visiting(browser, server.address, before=keep) as page:
        page.get_by_role("button", name="Use the camera").press("Enter")
        take = page.get_by_role("button", name="Take the picture")
        expect(take).to_be_focused()
        assert browsing.nameless(page) == []
        take.press("Space")
        expect(page.locator("article .verdict")).to_contain_text("bees")
        tracks = "() => window.seen.getTracks().map((track) => track.readyState)"
        assert page.evaluate(tracks) == ["ended"]
        page.get_by_role("button", name="Use the camera").click()
        expect(take).to_be_enabled()
        page.keyboard.press("Escape")
        expect(page.locator("#video")).to_have_js_property("srcObject", None)
        assert page.evaluate(tracks) == ["ended"]
        expect(page.get_by_role("dialog")).to_be_hidden()
    (asked,) = server.asked
    assert asked.content_type == "image/jpeg" and asked.body.startswith(b"\xff\xd8\xff")


NO_CAMERA = {
    "() => Promise.reject(new DOMException('', 'NotAllowedError'))": "The camera was not allowed",
    "() => Promise.reject(new DOMException('', 'NotFoundError'))": "No camera was found",
    "() => Promise.reject(new DOMException('in smoke', 'Other'))": "No camera: in smoke",
    "null": "only to pages over https",
}


def test_why_there_is_no_camera_is_said(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address) as page:
        expect(page.locator("#main")).to_be_visible()
        for outcome, words in NO_CAMERA.items():
            devices = f"{{ getUserMedia: {outcome} }}"
            page.evaluate(
                f"() => Object.defineProperty(navigator, 'mediaDevices', {{ value: {devices}, configurable: true }})"
            )
            page.get_by_role("button", name="Use the camera").click()
            expect(page.get_by_role("dialog")).to_contain_text(words)
            page.keyboard.press("Escape")


def test_everything_has_a_name_and_can_be_read_by_day_and_by_night(browser: Browser, server: StandIn) -> None:
    replies = [FOUND, refusal(422, "cut off"), refusal(503, "busy", retry_after=30)]
    server.models, server.reply = [CELLS, MODEL], lambda asked: replies[len(server.asked) - 1]
    with visiting(browser, server.address, expected=REFUSED, reduced_motion="reduce") as page:
        choose(page, *[file()] * 4)
        expect(page.get_by_role("article").nth(2)).to_contain_text("It is asked again")
        for summary in page.locator("summary").all():
            summary.click()
        assert browsing.nameless(page) == []
        assert page.evaluate(browsing.FAINT) == []
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(browsing.FAINT) == []
        levels = page.locator("h1, h2, h3").evaluate_all("(all) => all.map((node) => Number(node.tagName[1]))")
        assert levels[0] == 1 and max(np.diff(levels)) <= 1


def test_nothing_jumps_when_an_answer_arrives(browser: Browser, server: StandIn) -> None:
    hold = browsing.Hold()
    server.reply = hold.reply(ONE)
    watch = "new PerformanceObserver((list) => list.getEntries().forEach((each) => (window.jumped = each.value)))"
    tall: dict[str, Any] = {"viewport": {"width": 390, "height": 1600}}
    with visiting(browser, server.address, before=f"{watch}.observe({{ type: 'layout-shift' }})", **tall) as page:
        choose(page)
        expect(page.get_by_role("article")).to_contain_text("The model is looking")
        page.evaluate("() => { window.jumped = 0; }")
        hold.release()
        expect(page.locator("article .verdict")).to_contain_text("bees")
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert page.evaluate("() => window.jumped") == 0


def test_motion_is_left_out_where_it_is_not_wanted(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address, reduced_motion="reduce") as page:
        style = "(all) => all.filter((node) => getComputedStyle(node).transitionDuration !== '0s').length"
        moving = page.locator("*").evaluate_all(style)
    assert moving == 0


def test_without_scripts_the_page_says_what_it_needs(browser: Browser, server: StandIn) -> None:
    with visiting(browser, server.address, java_script_enabled=False) as page:
        assert page.locator("noscript p").inner_text().startswith("This page needs JavaScript")
