"""Single steps whose loss stands far above that of their neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from snellen.core.finding import Finding
from snellen.core.thresholds import alpha
from snellen.doctor.case import Case, Floats, History

_FEWEST_STEPS = 100
_FEWEST_SPIKES = 3
_ROBUST_Z = 8.0
_WINDOW = 51  # steps
_LEAST_SPREAD = 0.01  # of the loss: a smoother curve is not judged more finely
_TAIL = 2e-4  # share of steps beyond z = 8 where logarithms of losses spread as Laplace's law, heavier than a normal's
_MAX_IMAGES = 24
_LOOKS = 4


def loss_spikes(case: Case) -> Iterator[Finding]:
    """Three spikes or more that chance does not explain: too many, in a row, at the same place of each epoch, or with
    the same images.

    Losses of small batches have heavy tails, so spikes are looked for in the logarithm of the loss, where such tails
    are those of Laplace's law at worst.
    """
    history = case.history
    if history is None or len(history.step_losses) < _FEWEST_STEPS:
        return
    kept = np.flatnonzero(np.isfinite(history.step_losses) & (history.step_losses > 0))
    if len(kept) < _FEWEST_STEPS:
        return
    at = kept[_spiking(np.log(history.step_losses[kept]))]
    if len(at) < _FEWEST_SPIKES:
        return
    limit = alpha("loss-spikes", _LOOKS)
    images = _repeated_images(history.step_images, at, limit)
    chances = {
        "number": _p_number(len(at), len(kept)),
        "in_a_row": _p_in_a_row(at, len(history.step_losses)),
        "same_place": _p_period(history, at),
    }
    told = [name for name, p in chances.items() if p <= limit]
    if not told and not images:
        return
    yield _finding(history, at, chances, images)


def _finding(history: History, at: Any, chances: dict[str, float], images: Sequence[str]) -> Finding:
    steps = history.steps[at] if len(history.steps) == len(history.step_losses) else at
    worst = float(history.step_losses[at].max())
    periodic = chances["same_place"] <= alpha("loss-spikes", _LOOKS)
    words = ", at the same place of each epoch" if periodic else ""
    if images:
        words += f", and {len(images)} image{'s' * (len(images) > 1)} took part in them again and again"
    advice = "Lower the learning rate or clip gradients, and look at the images of those steps."
    return Finding(
        code="loss-spikes",
        severity="warning",
        message=f"The training loss jumps {len(at)} times far above its neighbours, up to {worst:.3g}{words}.",
        evidence={"spikes": len(at), "steps": [int(step) for step in steps[:20]], "worst": worst, "p": chances},
        images=tuple(images[:_MAX_IMAGES]),
        advice="Look at those images: one of them may be broken or wrongly labelled." if images else advice,
        certainty="observed",
    )


def _spiking(logs: Floats) -> Any:
    """Places whose robust z within a running window exceeds 8; the first steps, where all losses fall, are left out."""
    from scipy.ndimage import median_filter

    middle = median_filter(logs, _WINDOW, mode="reflect")
    away = logs - middle
    spread = 1.4826 * median_filter(np.abs(away), 2 * _WINDOW - 1, mode="reflect")
    spiking = away > _ROBUST_Z * np.maximum(spread, _LEAST_SPREAD)
    spiking[: _WINDOW // 2] = False
    return np.flatnonzero(spiking)


def _p_number(spikes: int, steps: int) -> float:
    from scipy.stats import binom

    return float(binom.sf(spikes - 1, steps, _TAIL))


def _p_in_a_row(at: Any, steps: int) -> float:
    """So many spikes right after another one, were they thrown among the steps by lot: an exact hypergeometric tail,
    since r runs of s spikes can lie in C(s - 1, r - 1) C(steps - s + 1, r) ways."""
    from scipy.stats import hypergeom

    neighbours = int(np.count_nonzero(np.diff(at) == 1))
    return float(hypergeom.sf(neighbours - 1, steps, len(at) - 1, len(at)))


def _p_period(history: History, at: Any) -> float:
    """So many spikes at one place of the epoch (and beside it), were they thrown by lot; every place is a look."""
    from scipy.stats import binom

    epochs = len(history.epochs)
    length = round(len(history.step_losses) / epochs) if epochs else 0
    if epochs < _FEWEST_SPIKES or length < 10:
        return 1.0
    places = at % length
    most = max(int(np.count_nonzero((places - place + 1) % length <= 2)) for place in places)
    return float(min(1.0, length * binom.sf(most - 1, len(at), 3 / length)))


def _repeated_images(step_images: Sequence[Sequence[str]], at: Any, limit: float) -> list[str]:
    """Images that are in spiking steps more often than by lot, the most telling first."""
    from scipy.stats import hypergeom

    if not step_images or int(at[-1]) >= len(step_images):
        return []
    steps_of = Counter(image for images in step_images for image in set(images))
    spikes_of = Counter(image for step in at for image in set(step_images[step]))
    repeated = [image for image, count in spikes_of.items() if count >= 2]
    chances = {
        image: float(hypergeom.sf(spikes_of[image] - 1, len(step_images), steps_of[image], len(at)))
        for image in repeated
    }
    told = [image for image in repeated if chances[image] * len(steps_of) <= limit]
    return sorted(told, key=lambda image: (chances[image], image))
