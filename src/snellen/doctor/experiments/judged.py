"""A side as the training's own loss judges it, image by image: what the experiments on boxes and masks stand on.

As many images are drawn of each side as have the pixels of 48 photographs of 448 x 352, 24 at least and 64 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from scipy import stats

from snellen.core.estimate import spoken
from snellen.core.seeds import keyed_permutation
from snellen.doctor.case import Batch, Case, Floats, Training
from snellen.doctor.judge import Judge, Judged, Moved, Side, one_of_each
from snellen.doctor.safety import untouched
from snellen.doctor.scores import Gain, Scores, gain

_FEWEST, _MOST = 24, 64  # images of a side; fewer show nothing at the levels that are asked for here
_PIXELS = 48 * 448 * 352


class Judgements:
    """What is asked of one training, each side as it is judged once."""

    def __init__(self, training: Training, judge: Judge, seed: int) -> None:
        self.training, self.judge, self.seed = training, judge, seed
        inputs, _ = judge.images("train", [0])
        most = max(_FEWEST, min(_MOST, _PIXELS // max(1, inputs.shape[-1] * inputs.shape[-2])))
        self.rows: dict[Side, Sequence[int]] = {
            side: sorted(one_of_each(_drawn(judge, side, seed), training.units.get(side, ()))[:most])
            for side in ("train", "val")
        }
        self._as_they_are: dict[Side, Judged] = {}
        self._by_others: dict[Side, Judged] = {}

    def side(self, name: Side) -> Judged:
        if name not in self._as_they_are:
            self._as_they_are[name] = self.again(name)
        return self._as_they_are[name]

    def by_others(self, name: Side) -> Judged:
        """Each image with the marks of one from the other half of those that were drawn."""
        if name not in self._by_others:
            rows = self.rows[name]
            self._by_others[name] = self.again(name, marks=[*rows[len(rows) // 2 :], *rows[: len(rows) // 2]])
        return self._by_others[name]

    def again(self, name: Side, *, moved: Moved | None = None, marks: Sequence[int] | None = None) -> Judged:
        """The same images with whatever is now changed about the model; the rest as ``Judge.judged``."""
        with untouched(self.training):
            return self.judge.judged(name, self.rows[name], moved=moved, marks=marks)

    def images(self, name: Side, most: int = _MOST) -> Batch:
        return self.judge.images(name, self.rows[name][:most])


def _drawn(judge: Judge, side: Side, seed: int) -> list[int]:
    return [int(row) for row in keyed_permutation(judge.count(side), "judged", seed)]


_KEPT: WeakKeyDictionary[Case, Judgements] = WeakKeyDictionary()


def judgements(case: Case) -> Judgements | None:
    """None where there is no judge, or fewer than 24 images on a side."""
    training = case.training
    if training is None or training.judge is None:
        return None
    judge = training.judge
    if min(judge.count("train"), judge.count("val")) < _FEWEST:
        return None
    if case not in _KEPT:
        _KEPT[case] = Judgements(training, judge, case.seed)
    return _KEPT[case]


def fall(before: Judged, after: Judged) -> Gain:
    """How far the losses of the same images fell; ``relative`` is the share of the loss that is gone."""
    return gain(Scores(values=-before.losses), Scores(values=-after.losses))


def p_of_no_better(losses: Floats, than: Floats, share: float) -> float:
    """t-test that the losses of the same images are not as low as ``share`` of others; 1 where their mean is."""
    excess = losses - share * than
    if excess.mean() <= 0:
        return 1.0
    return float(stats.ttest_1samp(excess, 0.0, alternative="greater").pvalue) if excess.std() > 0 else 0.0


def told(judged: Judged) -> str:
    return f"a loss of {judged.mean:.3g} ({spoken(judged.metric)} {judged.score:.3f})"
