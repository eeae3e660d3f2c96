"""Images of one patient or one scene say together what one of them says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from snellen.doctor.judge import one_of_each
from snellen.doctor.scores import Scores, gain


def test_images_of_one_unit_are_one_witness() -> None:
    """Thirty units of forty images, and two models that differ by luck, a unit as a whole being easier for one."""
    rng = np.random.default_rng(0)
    units = [f"patient {unit}" for unit in range(30) for _ in range(40)]
    alone, together = [], []
    for _ in range(100):
        lead = np.repeat(rng.normal(0, 0.15, 30), 40)
        first, second = (rng.random(1200) < 0.6 + sign * lead for sign in (-1, 1))
        plain = Scores(values=first.astype(float)), Scores(values=second.astype(float))
        alone.append(gain(*plain).p)
        together.append(gain(replace(plain[0], units=units), plain[1]).p)
    assert np.mean(np.array(alone) < 0.01) > 0.1
    assert np.mean(np.array(together) < 0.05) <= 0.1


def test_a_gain_in_every_unit_is_shown_and_a_few_units_show_nothing() -> None:
    wrong, right = np.zeros(120), np.ones(120)
    for num, shown in ((40, True), (6, False)):
        units = [f"scene {i % num}" for i in range(120)]
        found = gain(Scores(values=wrong, units=units), Scores(values=right))
        assert found.mean == 1 and (found.p < 1e-6) == shown


def test_of_each_unit_the_first_row_is_kept() -> None:
    assert one_of_each([3, 1, 0, 2], ["a", "b", "a", "c"]) == [3, 1, 0]
    assert one_of_each([3, 1, 0], []) == [3, 1, 0]
