"""A photograph as phones take it, from its bytes to the box on the page, with the server's own decoder between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

import page_browser as browsing
from page_browser import choose, file, is_narrow, visiting
from serve_cases import Shades, listening, served
from snellen.core.geometry import Size
from snellen.tasks.detection.target import Boxes

pytestmark = pytest.mark.skipif(browsing.CHROMIUM is None, reason="no Chromium is installed to show the page")

SIZE, RED = (750, 1000), (375, 700, 625, 880)


class Reds(Shades):
    """Finds the red box, in the pixels that it is given, and tells it in those of the image."""

    def prepare(self, pixels: np.ndarray, size: Size) -> tuple[np.ndarray, Size]:
        rows, columns = np.nonzero((pixels[..., 0] > 180) & (pixels[..., 1] < 80))
        if not len(rows):  # the server's own first question
            return np.zeros((0, 4), np.float32), size
        box = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
        return (box * (size[0] / pixels.shape[1])).astype(np.float32), size

    def decide(self, seen: Sequence[tuple[np.ndarray, Size]]) -> list[Any]:
        scores = np.array([0.9], np.float32)
        return [Boxes.predicted(size, box, np.ones(len(box), np.int64), scores[: len(box)]) for box, size in seen]


@pytest.mark.parametrize("min_side", [None, 90], ids=["whole", "decoded at a reduced scale"])
def test_box_lies_on_its_object_in_a_photograph_that_was_taken_sideways(min_side: int | None) -> None:
    photograph = file("side.jpg", browsing.sideways(SIZE, RED))
    phone: dict[str, Any] = {"viewport": {"width": 320, "height": 600}}
    with (
        browsing.chromium() as browser,
        listening(served(reds=Reds("detection", min_side=min_side))) as server,
        visiting(browser, f"http://127.0.0.1:{server.port}", **phone) as page,
    ):
        choose(page, photograph)
        expect(page.locator("article .verdict")).to_have_text("1 red")
        box = browsing.corners(page.locator("article .box"))
        page.locator("article svg").evaluate("(node) => node.remove()")
        left, top, *_ = browsing.corners(page.locator("article .frame"))
        red = browsing.red_in(page.locator("article .frame").screenshot())
        assert is_narrow(page)
    assert [box[0] - left, box[1] - top, box[2] - left, box[3] - top] == pytest.approx(red, abs=2)
