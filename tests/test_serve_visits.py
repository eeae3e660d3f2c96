"""How a visitor comes to the page, and comes back: through a proxy, with a token, with a model in the address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

import page_browser as browsing
from page_browser import CELLS, MODEL, ONE, StandIn, choose, data_uri, file, visiting
from serve_cases import Shades, listening, plain, served
from snellen.draw.palette import colour_of
from snellen.serve.address import Access

pytestmark = pytest.mark.skipif(browsing.CHROMIUM is None, reason="no Chromium is installed to show the page")

REFUSED = ("Failed to load resource",)
TOKEN = "correct-horse"
BELOW = "/eyes/"


class Proxied(StandIn):
    """The stand-in below a path of a proxy, which calls it by its own name, as nginx does unless told otherwise."""

    def app(self) -> ASGIApp:
        inner = super().app()

        async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
            path, to = scope["path"], inner
            if path == BELOW[:-1]:
                to = RedirectResponse(BELOW)
            elif not path.startswith(BELOW):
                to = Response("another site", 404)
            headers = [(name, b"127.0.0.1:8000" if name == b"host" else value) for name, value in scope["headers"]]
            await to({**scope, "path": path[len(BELOW) - 1 :], "headers": headers}, receive, send)

        return proxy


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


def test_page_works_below_a_path_of_a_proxy_that_names_the_server_otherwise(browser: Browser) -> None:
    stand_in = Proxied([MODEL], lambda asked: ONE, access=Access(TOKEN, frozenset(["127.0.0.1"])))
    with (
        browsing.serving(stand_in) as server,
        visiting(browser, server.address, f"{BELOW}?token={TOKEN}") as page,
    ):
        choose(page)
        expect(page.locator("article .verdict")).to_contain_text("bees")
        assert page.url == server.address + BELOW


def test_link_with_the_token_of_an_earlier_start_leads_to_the_page_that_asks_for_it(
    browser: Browser, server: StandIn
) -> None:
    server.access = Access(TOKEN)
    with visiting(browser, server.address, "/?token=wrong-horse", expected=REFUSED) as page:
        expect(page.get_by_label("Token")).to_be_focused()
        assert page.url == f"{server.address}/"
        assert page.locator("#token-trouble").is_hidden()


@pytest.mark.parametrize("wrong", ["wrong-horse", "\u7389\u99ac\u99ac\u99ac\u99ac"])
def test_wrong_token_is_said_and_the_right_one_is_taken_with_blanks_around(
    browser: Browser, server: StandIn, wrong: str
) -> None:
    server.access = Access(TOKEN)
    with visiting(browser, server.address, expected=REFUSED) as page:
        page.get_by_label("Token").fill(wrong)
        page.keyboard.press("Enter")
        expect(page.locator("#token-trouble")).to_contain_text("not the one of this server")
        expect(page.get_by_role("alert")).to_contain_text("not the one of this server")
        expect(page.get_by_label("Token")).to_be_focused()
        page.get_by_label("Token").fill(f" {TOKEN} ")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_chosen_model_is_chosen_again_when_the_page_is_loaded_again(browser: Browser, server: StandIn) -> None:
    server.models = [MODEL, {**MODEL, "name": "a&b=%", "classes": ["cats"]}]
    with visiting(browser, server.address) as page:
        page.get_by_label("Model", exact=True).select_option("a&b=%")
        page.reload()
        expect(page.locator("#lead")).to_contain_text("cats")
        expect(page.get_by_label("Model", exact=True)).to_have_value("a&b=%")
        page.goto(f"{server.address}/#model=%")
        page.reload()
        expect(page.get_by_label("Model", exact=True)).to_have_value("ants")


def explanations(page: Page) -> Any:
    return page.locator("article").get_by_role("button", name="Explain")


def test_explanations_are_asked_one_after_another_and_one_that_waits_can_be_cancelled(
    browser: Browser, server: StandIn
) -> None:
    hold = browsing.Hold()
    held = hold.reply({"picture": data_uri(), "about": "The wing."})
    server.reply = lambda asked: held(asked) if asked.verb == "explain" else ONE
    with visiting(browser, server.address) as page:
        choose(page, *[file()] * 3)
        expect(explanations(page)).to_have_count(3)
        explanations(page).evaluate_all("(all) => all.forEach((node) => node.click())")
        articles = page.get_by_role("article")
        expect(articles.nth(0)).to_contain_text("The model looks at it again")
        expect(articles.nth(1)).to_contain_text("Waiting for the explanation before it")
        articles.nth(1).get_by_role("button", name="Cancel").click()
        expect(articles.nth(1).get_by_role("button", name="Explain")).to_be_visible()
        hold.release()
        expect(articles.nth(2)).to_contain_text("The wing.")
    assert server.at_once == {1}
    assert [asked.verb for asked in server.asked] == ["predict"] * 3 + ["explain"] * 2


def test_shares_have_the_colours_of_the_picture(browser: Browser) -> None:
    with (
        listening(served(shades=Shades("segmentation"))) as running,
        visiting(browser, f"http://127.0.0.1:{running.port}") as page,
    ):
        choose(page, file("red.png", plain(200), "image/png"))
        rows = page.locator("article .bars li").filter(has=page.locator(".patch"))
        expect(rows.first).to_contain_text("dark")
        colour = rows.first.locator(".patch").evaluate("(node) => getComputedStyle(node).backgroundColor")
    assert colour == "rgb({}, {}, {})".format(*colour_of(0))


def test_of_many_kinds_only_the_most_frequent_are_counted_aloud(browser: Browser, server: StandIn) -> None:
    names = [f"kind {i}" for i in range(40)]
    found = [{"label": name, "confidence": 0.5, "box": [1, 1, 9, 9]} for name in [*names, "kind 7"]]
    replies = [{"objects": found, "size": [64, 48]}, {"labels": names, "probabilities": {}, "size": [64, 48]}]
    server.models, server.reply = [{**CELLS, "classes": names}], lambda asked: replies[len(server.asked) - 1]
    with visiting(browser, server.address) as page:
        choose(page, file())
        verdict = page.locator("article .verdict").first
        expect(verdict).to_have_text(
            "2 kind 7, 1 kind 0, 1 kind 1, 1 kind 2, 1 kind 3, 1 kind 4, 1 kind 5, 1 kind 6, 32 of 32 other kinds"
        )
        choose(page, file())
        expect(page.locator("article .chip")).to_have_count(8)
        expect(verdict).to_contain_text("and 32 more")
        expect(page.get_by_role("status").last).to_contain_text("kind 7, 32 more")


def test_memory_of_pictures_is_given_back_when_they_are_removed(browser: Browser, server: StandIn) -> None:
    server.models, server.reply = [CELLS], lambda asked: browsing.FOUND
    with visiting(browser, server.address) as page:
        choose(page, file(), file())
        expect(page.locator("article .box")).to_have_count(6)
        page.evaluate("() => { window.kept = [...document.querySelectorAll('canvas')]; }")
        assert page.evaluate("() => window.kept.map((canvas) => canvas.width)") == [64] * 4
        page.get_by_role("button", name="Remove all").click()
        assert page.evaluate("() => window.kept.map((canvas) => canvas.width)") == [0] * 4
