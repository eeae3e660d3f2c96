"""Settings that not every task has a use for are refused where they would do nothing."""

from __future__ import annotations

from typing import Any

import pytest

from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.tasks.base import TASKS, create_task


@pytest.mark.parametrize(
    ("name", "given", "word"),
    [
        ("detection", {"dropout": 0.2}, "dropout = 0.2 does nothing for the task 'detection'"),
        ("instances", {"dropout": 0.2}, "dropout"),
        ("detection", {"copy_paste": 0.5}, "copy_paste"),
        ("segmentation", {"copy_paste": 0.5}, "copy_paste"),
        ("segmentation", {"nms": "soft"}, "nms"),
        ("segmentation", {"loss_weights": "box=2"}, "loss_weights"),
        ("classification", {"mosaic": 0.5}, "mosaic"),
        ("regression", {"nms_iou": 0.4}, "nms_iou"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(name: str, given: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        create_task(name, ["a"]).check_settings(Config.of(data="x", **given))


@pytest.mark.parametrize("name", list(TASKS))
def test_no_setting_is_refused_that_nobody_gave(name: str) -> None:
    create_task(name, ["a"]).check_settings(Config.of(data="x"))
