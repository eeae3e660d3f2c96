"""Colours of classes: those of the paper first, then always one that is unlike all before it."""

from __future__ import annotations

import numpy as np

from snellen.draw.palette import COLOURS, _as_seen, colour_of


def test_the_first_colours_are_told_apart_with_any_colour_vision() -> None:
    assert tuple(colour_of(i) for i in range(len(COLOURS))) == COLOURS


def test_distances_are_those_of_oklab() -> None:
    """Against the values that its author gives for white, and for the primary red of sRGB."""
    white, red = _as_seen([(255, 255, 255), (255, 0, 0)])
    np.testing.assert_allclose(white, [1, 0, 0], atol=2e-3)
    np.testing.assert_allclose(red, [0.628, 0.225, 0.126], atol=2e-3)


def test_no_two_of_twenty_colours_look_alike_and_none_of_two_hundred_is_another() -> None:
    twenty = _as_seen([colour_of(i) for i in range(20)])
    apart = np.linalg.norm(twenty[:, None] - twenty, axis=2) + 9 * np.eye(20)
    assert apart.min() > 0.1
    assert len({colour_of(i) for i in range(180)}) == 180
    assert colour_of(10_000) == colour_of(10_000)
